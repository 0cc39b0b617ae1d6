"""What both stores must do alike, one rule per test; then both at once under the same random calls, compared whole."""

from collections.abc import Awaitable, Callable
from random import Random  # noqa: TID251 - seeded
from typing import Any

import pytest
from msgspec.structs import replace

from tests.integration.lifecycle.conftest import ACCOUNT
from tests.integration.lifecycle.sides import START_MS, TERMS, MemorySide, PostgresSide, Side, TestClock
from tests.simulation.machines import KEYS_ERASED, NOT_TOLD
from tests.simulation.schedule import MINUTE_MS
from tomada.errors import BadInput, LimitReached, NotFound, TomadaError
from tomada.instances import lifecycle, subscriptions
from tomada.instances.billing import DAY_MS, HOUR_MS
from tomada.instances.deletion import CUT_SHORT, FORCE_AFTER_MS, LEASE_MS, Deletion, Done, Step, receipt_of
from tomada.instances.lifecycle import Change, Standing, State
from tomada.instances.sweeper import carry_deletions, end_what_is_due

DUE_MS = START_MS + 48 * HOUR_MS


def expiry(standing: Standing, now_ms: int) -> Change:
    """The change by which a trial ends."""
    change = lifecycle.wake(standing, now_ms, TERMS)
    assert change is not None
    return change


async def expired(side: Side, instance_id: str = "I") -> None:
    """An instance whose trial is over as of DUE_MS."""
    standing = await side.create(ACCOUNT, instance_id)
    await side.set_time(DUE_MS, DUE_MS)
    assert await side.store.swap(expiry(standing, DUE_MS), "test")


async def test_a_row_is_read_by_its_account_only(side: Side) -> None:
    """Another account's instance is as unknown as none."""
    await side.account("OTHER")
    standing = await side.create(ACCOUNT, "I")
    snapshot = await side.store.read(ACCOUNT, "I")
    assert snapshot is not None
    assert (snapshot.standing, snapshot.now_ms) == (standing, START_MS)
    assert await side.store.read("OTHER", "I") is None
    assert await side.store.read(ACCOUNT, "J") is None


async def test_a_swap_needs_the_row_as_it_was_decided_on(side: Side) -> None:
    """Of a subscribe and an expiry decided on the same row, the first wins and the second changes nothing."""
    standing = await side.create(ACCOUNT, "I")
    await side.set_time(DUE_MS, DUE_MS)
    assert await side.store.swap(lifecycle.subscribe(standing, DUE_MS, TERMS), "partner")
    assert not await side.store.swap(expiry(standing, DUE_MS), "sweeper")
    assert (await side.standing("I")).state is State.ACTIVE
    assert not (await side.state())["deletions"]


async def test_a_swap_needs_its_span_of_time(side: Side) -> None:
    """Whatever a process believed: not before `from_ms`, not at `until_ms` or later, on the database's clock."""
    standing = await side.create(ACCOUNT, "I")
    change = expiry(standing, DUE_MS)
    await side.set_time(DUE_MS - 1, START_MS)
    assert not await side.store.swap(change, "sweeper")
    await side.set_time(change.until_ms, START_MS)
    assert not await side.store.swap(change, "sweeper")
    await side.set_time(change.until_ms - 1, START_MS)
    assert await side.store.swap(change, "sweeper")


async def test_due_lists_what_is_due_oldest_first_in_pages(side: Side) -> None:
    """Exactly at its time an instance is due; the page after (due, id) begins behind it."""
    for name in ("B", "A"):
        await side.create(ACCOUNT, name)
    await side.set_time(START_MS + HOUR_MS, START_MS)
    await side.create(ACCOUNT, "C")
    await side.set_time(DUE_MS - 1, START_MS)
    assert await side.store.due(10, (-1, "")) == []
    assert await side.store.ms_to_next_due() == 1
    await side.set_time(DUE_MS, START_MS)
    assert [found.standing.id for found in await side.store.due(10, (-1, ""))] == ["A", "B"]
    assert [found.standing.id for found in await side.store.due(1, (DUE_MS, "A"))] == ["B"]
    assert await side.store.due(10, (DUE_MS, "B")) == []


async def test_nothing_is_due_where_nothing_is(side: Side) -> None:
    """Without instances there is no next time."""
    assert await side.store.ms_to_next_due() is None
    assert await side.store.claim(LEASE_MS) is None


async def test_losing_the_machine_starts_a_deletion(side: Side) -> None:
    """The row of the deletion carries the epoch after the loss, and is there at once."""
    await expired(side)
    claimed = await side.store.claim(LEASE_MS)
    assert claimed is not None
    deletion, now_ms = claimed
    assert (deletion.epoch, deletion.scope, deletion.cause, deletion.number) == (2, "machine", "expired", 1)
    assert now_ms == DUE_MS


async def test_a_claim_is_alone_until_its_lease_is_over(side: Side) -> None:
    """Then another gets it, with a greater number, and the first can write nothing any more."""
    await expired(side)
    first = await side.store.claim(LEASE_MS)
    assert first is not None
    assert await side.store.claim(LEASE_MS) is None
    await side.set_time(DUE_MS, DUE_MS + LEASE_MS)
    second = await side.store.claim(LEASE_MS)
    assert second is not None
    assert second[0].number == 2
    before = await side.state()
    assert await side.store.settle(first[0], Step.SESSION, {}, "") is None
    await side.store.postpone(first[0], 1)
    assert not await side.store.finish(first[0], receipt_of(replace(first[0], done=(Done(Step.SESSION, 1, {}),))))
    assert await side.state() == before


async def test_the_lease_follows_real_time(side: Side) -> None:
    """Moving the lifecycle's clock does not take a claim away."""
    await expired(side)
    assert await side.store.claim(LEASE_MS) is not None
    await side.set_time(DUE_MS + 30 * DAY_MS, DUE_MS)
    assert await side.store.claim(LEASE_MS) is None


async def test_a_step_is_done_once(side: Side) -> None:
    """Settling it again returns the deletion as it is and does nothing."""
    await expired(side)
    claimed = await side.store.claim(LEASE_MS)
    assert claimed is not None
    once = await side.store.settle(claimed[0], Step.QUEUE, {}, "")
    state = await side.state()
    assert await side.store.settle(claimed[0], Step.QUEUE, {}, "") == once
    assert await side.state() == state


async def test_a_postponed_deletion_waits_for_both_clocks(side: Side) -> None:
    """The pause is real time, the date is lifecycle time."""
    await expired(side)
    claimed = await side.store.claim(LEASE_MS)
    assert claimed is not None
    await side.store.postpone(claimed[0], 1000, DUE_MS + DAY_MS)
    for lifecycle_ms, real_ms, ready in ((DUE_MS, DUE_MS + 1000, False), (DUE_MS + DAY_MS, DUE_MS + 999, False)):
        await side.set_time(lifecycle_ms, real_ms)
        assert (await side.store.claim(LEASE_MS) is not None) is ready
    await side.set_time(DUE_MS + DAY_MS, DUE_MS + 1000)
    again = await side.store.claim(LEASE_MS)
    assert again is not None
    assert again[0].failures == 1


async def test_a_new_machine_begins_with_nothing(side: Side) -> None:
    """Subscribing while the old machine is being deleted: its rows go at once, only the outside steps remain."""
    await expired(side)
    change = lifecycle.subscribe(await side.standing("I"), DUE_MS, TERMS)
    assert await side.store.swap(change, "partner")
    state = await side.state()
    assert state["papers"]["I"][:2] == (False, 0)
    steps = {step for step, _at, _note in state["deletions"]["I", 2]["steps"]}
    assert steps == {"forget_session", "cancel_queue", "send_disconnected"}
    assert not await side.pair("I")  # the former machine first
    await side.set_time(DUE_MS, DUE_MS + LEASE_MS)
    assert await carry_deletions(side.store, side.machines, TERMS, TestClock()) == 1
    assert await side.pair("I")
    assert side.machines.state() == ([("I", 3)],) * 3


async def test_a_final_deletion_takes_earlier_ones_over(side: Side) -> None:
    """The earlier one is closed without a receipt, its callback was recorded, and its claim is lost."""
    await expired(side)
    claimed = await side.store.claim(LEASE_MS)
    assert claimed is not None
    change = lifecycle.delete(await side.standing("I"), DUE_MS, TERMS)
    assert change is not None
    assert await side.store.swap(change, "partner")
    assert await side.store.settle(claimed[0], Step.MACHINE, {}, "") is None
    state = await side.state()
    assert state["deletions"]["I", 2]["finished"]
    assert not state["deletions"]["I", 2]["receipt"]
    assert "deletion:2" in state["papers"]["I"][2]
    await carry_deletions(side.store, side.machines, TERMS, TestClock())
    later_ms = DUE_MS + int(TERMS.events_retention_days) * DAY_MS
    await side.set_time(later_ms, later_ms)
    assert await carry_deletions(side.store, side.machines, TERMS, TestClock()) == 1
    assert (await side.state())["papers"]["I"] == (False, 0, [], False, False)
    assert side.machines.state() == ([], [], [])


async def test_a_machine_too_many_is_refused(side: Side) -> None:
    """An ended instance takes no place, so it can be subscribed again only if there is one."""
    await side.account("SMALL", 1)
    first = await side.create("SMALL", "I")
    await side.set_time(DUE_MS, DUE_MS)
    assert await side.store.swap(expiry(first, DUE_MS), "test")
    await side.create("SMALL", "J")
    with pytest.raises(LimitReached):
        await subscriptions.subscribe(side.store, TERMS, "SMALL", "I")
    assert (await side.standing("I")).state is State.EXPIRED


async def test_a_suspension_keeps_its_first_date_and_ends_with_resume(side: Side) -> None:
    """Every instance of the account carries it, ended ones too, so that a later subscribe meets it."""
    await side.create(ACCOUNT, "I")
    until_ms = await side.store.suspend(ACCOUNT, 5, "operator")
    await side.set_time(START_MS + DAY_MS, START_MS)
    assert await side.store.suspend(ACCOUNT, 5, "operator") == until_ms == START_MS + 5 * DAY_MS
    standing = await side.standing("I")
    assert (standing.suspended_until_ms, standing.revision) == (until_ms, 1)
    await side.store.resume(ACCOUNT, "operator")
    assert (await side.standing("I")).suspended_until_ms is None
    with pytest.raises(NotFound):
        await side.store.suspend("NOBODY", 5, "operator")
    with pytest.raises(NotFound):
        await side.store.resume("NOBODY", "operator")


@pytest.mark.parametrize("days", [-1.0, 3651.0, float("inf"), float("nan")])
async def test_a_suspension_has_bounds(side: Side, days: float) -> None:
    """Nobody's instances end at once by a slip of the pen."""
    with pytest.raises(BadInput):
        await side.store.suspend(ACCOUNT, days, "operator")


async def test_one_pass_settles_whatever_a_long_downtime_left(side: Side) -> None:
    """Page after page; one row that cannot be changed stops none of the others."""
    names = [f"I{number:02}" for number in range(25)]
    for name in names:
        await side.create(ACCOUNT, name, paired=False)
    await side.set_time(DUE_MS + DAY_MS, DUE_MS + DAY_MS)

    class Stubborn:
        """The store, but I07's row."""

        def __getattr__(self, name: str) -> Any:
            return getattr(side.store, name)

        async def swap(self, change: Change, actor: str) -> bool:
            """Not I07."""
            if change.before.id == "I07":
                raise OSError
            return await side.store.swap(change, actor)

    assert await end_what_is_due(Stubborn(), TERMS, "sweeper", batch=4) == 24
    assert await end_what_is_due(side.store, TERMS, "sweeper", batch=4) == 1
    assert await side.store.due(10, (-1, "")) == []


async def test_a_decision_from_before_a_suspension_is_void(side: Side) -> None:
    """A subscribe decided before it finds another revision."""
    standing = await side.create(ACCOUNT, "I")
    await side.store.suspend(ACCOUNT, 5, "operator")
    assert not await side.store.swap(lifecycle.subscribe(standing, START_MS, TERMS), "partner")


async def test_after_a_day_of_failures_the_machine_goes_all_the_same(side: Side) -> None:
    """However often was tried; and the receipt's step says that a linked device may remain."""
    await expired(side)
    side.machines.fail = 1000
    for minute in range(0, 24 * 60, 40):
        await side.set_time(DUE_MS, DUE_MS + minute * MINUTE_MS)
        assert await carry_deletions(side.store, side.machines, TERMS, TestClock()) == 0
    await side.set_time(DUE_MS, DUE_MS + FORCE_AFTER_MS - 1)
    assert await carry_deletions(side.store, side.machines, TERMS, TestClock()) == 0
    assert side.machines.untold == []
    await side.set_time(DUE_MS, DUE_MS + FORCE_AFTER_MS + HOUR_MS)
    assert await carry_deletions(side.store, side.machines, TERMS, TestClock()) == 1
    assert side.machines.untold == [("I", 1)]
    assert await note(side) == NOT_TOLD


async def test_a_server_that_was_down_for_days_still_tries_for_a_day(side: Side) -> None:
    """The day counts from the first try that failed, in real time, not from the end of the instance."""
    await expired(side)
    side.machines.fail = 2
    for real_ms in (DUE_MS + 9 * DAY_MS, DUE_MS + 9 * DAY_MS + HOUR_MS):
        await side.set_time(real_ms, real_ms)
        assert await carry_deletions(side.store, side.machines, TERMS, TestClock()) == 0
    await side.set_time(DUE_MS + 60 * DAY_MS, DUE_MS + 9 * DAY_MS + 2 * HOUR_MS)
    assert await carry_deletions(side.store, side.machines, TERMS, TestClock()) == 1
    assert (side.machines.untold, await note(side)) == ([], KEYS_ERASED)


async def test_who_has_paid_waits_for_one_failed_try(side: Side) -> None:
    """Subscribed in the middle of the pauses: within a lease the machine is tried once more, and then it goes."""
    await expired(side)
    side.machines.fail = 1000
    for hour in range(8):
        await side.set_time(DUE_MS, DUE_MS + hour * HOUR_MS)
        assert await carry_deletions(side.store, side.machines, TERMS, TestClock()) == 0
    await subscriptions.subscribe(side.store, TERMS, ACCOUNT, "I")
    await side.set_time(DUE_MS, DUE_MS + 7 * HOUR_MS + LEASE_MS)
    assert await carry_deletions(side.store, side.machines, TERMS, TestClock()) == 1
    assert await note(side) == NOT_TOLD
    assert await side.pair("I")


async def test_who_has_paid_waits_for_the_first_try(side: Side) -> None:
    """Subscribed before anything was tried: WhatsApp is told, if it can be."""
    await expired(side)
    await subscriptions.subscribe(side.store, TERMS, ACCOUNT, "I")
    side.machines.fail = 1
    assert await carry_deletions(side.store, side.machines, TERMS, TestClock()) == 0
    assert side.machines.linked == {("I", 1)}
    await side.set_time(DUE_MS, DUE_MS + MINUTE_MS)
    assert await carry_deletions(side.store, side.machines, TERMS, TestClock()) == 1
    assert (side.machines.linked, await note(side)) == (set(), KEYS_ERASED)


@pytest.mark.parametrize("taken_over", [False, True])
async def test_a_forced_removal_that_was_not_recorded_is_admitted(side: Side, taken_over: bool) -> None:
    """Killed between erasing the keys and recording it: whoever finds nothing says what may be left all the same."""
    await expired(side)
    side.machines.fail = 1000
    assert await carry_deletions(side.store, side.machines, TERMS, TestClock()) == 0
    await side.set_time(DUE_MS, DUE_MS + FORCE_AFTER_MS)
    claimed = await side.store.claim(LEASE_MS)
    assert claimed is not None
    assert await side.machines.remove("I", 2, force=claimed[0].forced) == NOT_TOLD
    epoch = 2
    if taken_over:
        epoch = 3
        await subscriptions.delete(side.store, TERMS, ACCOUNT, "I")
    await side.set_time(DUE_MS, DUE_MS + FORCE_AFTER_MS + LEASE_MS)
    await carry_deletions(side.store, side.machines, TERMS, TestClock())
    assert await note(side, epoch) == CUT_SHORT


async def note(side: Side, epoch: int = 2) -> str:
    """Of the removal of I's machine, as the receipt has it."""
    steps = (await side.state())["deletions"]["I", epoch]["steps"]
    return next(str(words) for step, _at, words in steps if step == "remove_machine")


async def test_a_step_on_rows_that_fails_is_tried_again_with_pauses(side: Side) -> None:
    """A bug in one deletion's rows holds up no other, and does not repeat at full speed."""
    await expired(side)
    await side.create(ACCOUNT, "J")

    class Broken:
        """The store, whose step on I's session fails."""

        def __getattr__(self, name: str) -> Any:
            return getattr(side.store, name)

        async def settle(self, deletion: Deletion, step: Step, removed: dict[str, int], words: str) -> Deletion | None:
            """Not this one."""
            if (deletion.instance_id, step) == ("I", Step.SESSION):
                raise ValueError
            return await side.store.settle(deletion, step, removed, words)

    await side.set_time(DUE_MS + 2 * DAY_MS, DUE_MS)
    assert await end_what_is_due(side.store, TERMS, "sweeper") == 1
    assert await carry_deletions(Broken(), side.machines, TERMS, TestClock()) == 1
    for failures, pause_ms in ((1, 2000), (2, 4000)):
        row = (await side.state())["deletions"]["I", 2]
        now_ms = row["ready"] - pause_ms
        assert (row["failures"], now_ms) == (failures, DUE_MS if failures == 1 else DUE_MS + 2000)
        await side.set_time(DUE_MS + 2 * DAY_MS, row["ready"])
        await carry_deletions(Broken(), side.machines, TERMS, TestClock())
    await side.set_time(DUE_MS + 2 * DAY_MS, DUE_MS + HOUR_MS)
    assert await carry_deletions(side.store, side.machines, TERMS, TestClock()) == 1


async def test_a_server_that_starts_waits_for_no_lease(postgres_side: PostgresSide) -> None:
    """The claims of a killed server are void, its pauses too; whoever still held one can write nothing."""
    side = postgres_side
    await expired(side)
    claimed = await side.store.claim(LEASE_MS)
    assert claimed is not None
    await side.store.release()
    assert await carry_deletions(side.store, side.machines, TERMS, TestClock()) == 1
    assert await side.store.settle(claimed[0], Step.MACHINE, {}, "") is None


@pytest.mark.parametrize("seed", range(3))
async def test_both_stores_stay_equal_under_random_calls(postgres_side: PostgresSide, seed: int) -> None:
    """The same calls at the same times leave the same rows, deletions, audit log and machines, after every call."""
    memory = MemorySide()
    await memory.account(ACCOUNT)
    rng = Random(seed)
    now_ms = real_ms = START_MS
    for number in range(60):
        passed_ms = rng.choice((0, 0, 1000, HOUR_MS, DAY_MS, 2 * DAY_MS, 8 * DAY_MS, 45 * DAY_MS))
        now_ms, real_ms = now_ms + passed_ms, real_ms + rng.choice((0, 1000, LEASE_MS, HOUR_MS))
        verb = rng.choice(("create", *("subscribe", "cancel", "delete") * 2, *("sweep", "carry") * 3, *OTHERS))
        target, fails = rng.randrange(1 << 30), rng.choice((0, 0, 1, 3))
        answers = []
        for side in (memory, postgres_side):
            await side.set_time(now_ms, real_ms)
            answers.append(await _call(side, verb, number, target, fails))
        assert answers[0] == answers[1], (seed, number, verb)
        assert await memory.state() == await postgres_side.state(), (seed, number, verb)


OTHERS = ("update", "suspend", "resume", "pair")


async def _call(side: Side, verb: str, number: int, target: int, fails: int) -> object:
    state = await side.state()
    names = sorted(state["standings"])
    if verb == "create" or not names:
        if state["accounts"][ACCOUNT] is not None:
            return None
        return await side.create(ACCOUNT, f"I{number:03}", paired=fails > 0)
    name = names[target % len(names)]
    side.machines.fail = fails
    try:
        return await _on(side, verb, name)
    except TomadaError as error:
        return (type(error), error.message)
    finally:
        side.machines.fail = 0


async def _on(side: Side, verb: str, name: str) -> object:
    store = side.store
    if verb == "pair":
        return await side.pair(name)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "subscribe": lambda: subscriptions.subscribe(store, TERMS, ACCOUNT, name, with_calls=name.endswith("1")),
        "cancel": lambda: subscriptions.cancel(store, TERMS, ACCOUNT, name),
        "delete": lambda: subscriptions.delete(store, TERMS, ACCOUNT, name),
        "update": lambda: subscriptions.update_subscription(store, ACCOUNT, name),
        "suspend": lambda: store.suspend(ACCOUNT, 5, "operator"),
        "resume": lambda: store.resume(ACCOUNT, "operator"),
        "sweep": lambda: end_what_is_due(store, TERMS, "sweeper", batch=2),
        "carry": lambda: carry_deletions(store, side.machines, TERMS, TestClock()),
    }
    return await calls[verb]()
