"""W3 and W8 over a real connection: a failing head, its retries, and who may overtake it."""

import asyncio
from typing import Any

import pytest

from tests.integration.callbacks.harness import (
    Account,
    Rig,
    event,
    eventually,
    keys,
    make_account,
    make_instance,
    pass_time,
    running,
)
from tests.receiver import Receiver
from tomada.callbacks import sending
from tomada.callbacks.backoff import Policy
from tomada.callbacks.dispatcher import BATCH
from tomada.callbacks.recorder import Recorder
from tomada.callbacks.upkeep import refresh_figures
from tomada.postgres.pool import Pool

HOUR_MS = 3_600_000
QUICK = Policy(step_min_ms=20, give_way_ms=100)


async def attempts_until(pool: Pool, count: int) -> None:
    """Wait until that many attempts are in the history."""
    await eventually(lambda: pool.fetchval("select count(*) >= $1 from attempt", count))


async def test_w03_retries_carry_the_same_id_and_count_up(pool: Pool, receiver: Receiver) -> None:
    """Three refusals, then 200: four requests with one webhook-id, numbered, freshly signed, and all in the history."""
    account = await make_account(pool)
    instance = await make_instance(pool, account, receiver.url("fail-3"))
    async with running(pool, policy=QUICK) as rig:
        (recorded,) = await rig.recorder.record([event(instance, "a")])
        requests = await receiver.wait_for(4)
        await rig.settled()
    assert recorded is not None
    assert [r["headers"]["webhook-id"] for r in requests] == [recorded.id] * 4
    assert [r["headers"]["tomada-attempt"] for r in requests] == ["1", "2", "3", "4"]
    rows = await pool.fetch("select n, status, error from attempt order by n")
    assert [tuple(row) for row in rows] == [
        (1, 500, "status 500"),
        (2, 500, "status 500"),
        (3, 500, "status 500"),
        (4, 200, None),
    ]
    assert await pool.fetchval("select failing_since_ms from lane") is None


async def test_w03_over_72_hours_and_into_the_dead_letters(pool: Pool, receiver: Receiver) -> None:
    """A receiver that is down for good: at least 10 attempts over at least 72 h, then the dead letters.

    Time passes by moving every time of the lane into the past by as much as it has to wait.
    """
    account = await make_account(pool)
    instance = await make_instance(pool, account, receiver.url("status-503"))
    passed_ms, attempts = 0, 0
    async with running(pool) as rig:
        await rig.recorder.record([event(instance, "a")])
        while not await pool.fetchval("select count(*) from dead_letter"):
            attempts += 1
            await attempts_until(pool, attempts)
            await eventually(lambda: _is_free(pool))
            due_ms = await pool.fetchval("select due_ms - real_now_ms() from lane where due_ms is not null")
            if due_ms is not None:
                await pass_time(pool, max(0, due_ms))
                passed_ms += max(0, due_ms)
                rig.dispatcher.wake()
        await eventually(lambda: _is_counted(rig, account, given_up=1, kept=1))
    assert attempts >= 10
    assert 72 * HOUR_MS <= passed_ms <= 76 * HOUR_MS
    assert len(receiver.requests()) == attempts
    reason = await pool.fetchval("select reason from dead_letter")
    assert reason == "attempts used up: status 503"


async def _is_counted(rig: Rig, account: Account, *, given_up: int, kept: int) -> bool:
    """Whether the metrics say so: `given_up` is of attempts used up only, `kept` of disabled URLs as well."""
    await refresh_figures(rig.pool, rig.metrics)
    labels = {"account": account.id}
    return (
        rig.registry.get_sample_value("tomada_callback_given_up_total") == given_up
        and rig.registry.get_sample_value("tomada_callback_dead_letters_kept", labels) == kept
    )


async def _is_free(pool: Pool) -> bool:
    """Whether the last attempt has been settled: the lane waits longer than any lease, or for nothing."""
    return bool(
        await pool.fetchval(
            "select lease_epoch = 2 * (select count(*) from attempt)"
            " and not exists (select from callback where 2 * attempts < lane.lease_epoch) from lane"
        )
    )


async def test_w03_retry_after_is_honoured(pool: Pool, receiver: Receiver) -> None:
    """The lane is left alone for as long as the receiver asks, even when new events come."""
    account = await make_account(pool)
    instance = await make_instance(pool, account, receiver.url("retry-100"))
    async with running(pool) as rig:
        await rig.recorder.record([event(instance, "a")])
        await attempts_until(pool, 1)
        await rig.recorder.record([event(instance, "b")])
        due_ms = await pool.fetchval("select due_ms - real_now_ms() from lane")
        assert 95_000 <= due_ms <= 100_000
        assert await pool.fetchval("select failing_since_ms from lane") is not None
    assert len(receiver.requests()) == 1


async def test_w03_410_disables_the_url(pool: Pool, receiver: Receiver) -> None:
    """One request, no more; what waits and what comes later lies in the dead letters; the history says so."""
    account = await make_account(pool)
    instance = await make_instance(pool, account, receiver.url("gone"))
    async with running(pool) as rig:
        await rig.recorder.record([event(instance, "a"), event(instance, "b")])
        await rig.settled()
        await rig.recorder.record([event(instance, "c")])
        await rig.settled()
        await eventually(lambda: _is_counted(rig, account, given_up=0, kept=3))
    assert keys(receiver.requests()) == ["a"]
    lane = await pool.fetchrow("select disabled_ms, disabled_reason, due_ms from lane")
    assert lane is not None
    assert lane["disabled_ms"] is not None
    assert lane["disabled_reason"] == "410 gone"
    dead = await pool.fetch("select event_number, reason from dead_letter order by position")
    assert [row["event_number"] for row in dead] == [1, 2, 4]  # 3 is the notice of the disabling
    assert await pool.fetchval("select type from event where number = 3") == "CallbackUrlDisabled"


@pytest.mark.parametrize("events", [5, 80])
async def test_w08_a_poisonous_head_gives_way_and_both_say_so(pool: Pool, receiver: Receiver, events: int) -> None:
    """After the stated time the others go on in order and name whom they overtake; the head says that it gave way."""
    account = await make_account(pool)
    instance = await make_instance(pool, account, receiver.url("poison-bad"))
    async with running(pool, policy=QUICK) as rig:
        (head, *_) = await rig.recorder.record([event(instance, "bad"), *(event(instance, n) for n in range(events))])
        await receiver.wait_for(events)
        await eventually(lambda: len([k for k in keys(receiver.requests()) if k != "bad"]) >= events)
    assert head is not None
    requests = receiver.requests()
    others = [r for r in requests if "bad" not in r["body"]]
    assert keys(others) == [str(n) for n in range(events)]
    assert all(r["headers"]["tomada-order"] == f"overtakes {head.id}" for r in others)
    bad = [r for r in requests if "bad" in r["body"]]
    before = [r for r in bad if r["at_s"] < others[0]["at_s"]]
    assert before[-1]["at_s"] - before[0]["at_s"] >= 0.08
    assert all("tomada-order" not in r["headers"] for r in before)
    assert all(r["headers"]["tomada-order"] == "gave-way" for r in bad if r["at_s"] > others[0]["at_s"])


async def test_w08_a_head_that_fails_slowly_gives_way_too(pool: Pool, receiver: Receiver) -> None:
    """Regression: the next event was tried only if the failure took less than a batch may (0.25 s), so never."""
    account = await make_account(pool)
    instance = await make_instance(pool, account, receiver.url("slowpoison-bad"))
    async with running(pool, policy=QUICK) as rig:
        await rig.recorder.record([event(instance, "bad"), *(event(instance, n) for n in range(5))])
        await eventually(lambda: len([k for k in keys(receiver.requests()) if k != "bad"]) >= 5)


async def test_w03_a_long_queue_is_no_reason_to_try_more_often(pool: Pool, receiver: Receiver) -> None:
    """Regression: what lay beyond the batch counted as new, and the lane was tried after a quarter of its pause."""
    account = await make_account(pool)
    instance = await make_instance(pool, account, receiver.url("status-500"))
    await Recorder(pool).record([event(instance, n) for n in range(2 * BATCH)])
    await pool.execute(
        "update callback set failing_since_ms = real_now_ms() - 7200000, attempts = 12 where position = 1"
    )
    async with running(pool):
        await attempts_until(pool, 1)
        await eventually(lambda: pool.fetchval("select lease_epoch = 2 from lane"))
    pause_ms = await pool.fetchval("select due_ms - real_now_ms() from lane")
    assert pause_ms > 7_200_000 * 0.7


async def test_a_fault_of_ours_with_one_event_is_a_failed_attempt(
    pool: Pool, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: its lane was let go without a trace, tried anew at the end of each lease, and held the rest back."""
    account = await make_account(pool)
    instance = await make_instance(pool, account, receiver.url())
    attempt_one = sending.attempt_one

    async def faulty(*arguments: Any) -> Any:
        if '"bad"' in arguments[3].payload:
            raise KeyError("secret")
        return await attempt_one(*arguments)

    monkeypatch.setattr(sending, "attempt_one", faulty)
    async with running(pool, policy=QUICK) as rig:
        await rig.recorder.record([event(instance, "bad"), event(instance, "good")])
        await receiver.wait_for(1)
    assert keys(receiver.requests()) == ["good"]
    assert await pool.fetchval("select error from attempt where error is not null limit 1") == "internal error"


async def test_w08_order_is_kept_over_an_outage(pool: Pool, receiver: Receiver) -> None:
    """A receiver that is down far longer than the head's patience gets everything in order when it is back."""
    account = await make_account(pool)
    instance = await make_instance(pool, account, receiver.url("named-a"))
    async with running(pool, policy=QUICK) as rig:
        for n in range(5):
            await rig.recorder.record([event(instance, n)])
            await asyncio.sleep(0.1)
        await receiver.set("a", "ok")
        await rig.recorder.record([event(instance, n) for n in range(5, 50)])
        await rig.settled()
    delivered = [r for r in receiver.requests() if r["status"] == 200]
    assert keys(delivered) == [str(n) for n in range(50)]
    assert all("tomada-order" not in r["headers"] for r in delivered)


async def test_w08_a_new_event_brings_a_lonely_failing_head_forward(pool: Pool, receiver: Receiver) -> None:
    """A poisonous event that waits for hours does not hold back a new one for hours."""
    account = await make_account(pool)
    instance = await make_instance(pool, account, receiver.url("poison-bad"))
    async with running(pool) as rig:
        await rig.recorder.record([event(instance, "bad")])
        await attempts_until(pool, 1)
        await asyncio.sleep(0.2)
        # two hours of failing later, eleven minutes after the last try
        await pool.execute("update callback set failing_since_ms = failing_since_ms - 7200000, attempts = 12")
        await pool.execute("update lane set due_ms = real_now_ms() + 6000000, not_before_ms = real_now_ms() - 60000")
        await rig.recorder.record([event(instance, "good")])
        await eventually(lambda: "good" in keys(receiver.requests()), 5)


async def test_retries_survive_a_restart(pool: Pool, receiver: Receiver) -> None:
    """What one dispatcher could not deliver, the next one does, under the same id and the next number."""
    account = await make_account(pool)
    instance = await make_instance(pool, account, receiver.url("fail-1"))
    async with running(pool) as rig:
        await rig.recorder.record([event(instance, "a"), event(instance, "b")])
        await attempts_until(pool, 1)
    await pass_time(pool, 10_000)
    async with running(pool) as rig:
        await receiver.wait_for(2)
    requests = receiver.requests()
    assert keys(requests)[:2] == ["a", "a"]
    assert [r["headers"]["tomada-attempt"] for r in requests[:2]] == ["1", "2"]
