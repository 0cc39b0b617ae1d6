"""Every step of a deletion is made to fail, to run twice, and to be killed before and after its record.

Real: PostgreSQL, store, runner, callbacks, audit log. Doubled: machines. The end is always the same: one receipt, one
disconnected callback, and a scan of every table for the instance's id finds only what is meant to stay.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from tests.integration.lifecycle.conftest import ACCOUNT
from tests.integration.lifecycle.sides import START_MS, TERMS, FakeMachines, PostgresSide, TestClock
from tomada.accounts import audit
from tomada.callbacks.store.recording import write_events
from tomada.callbacks.types import NewEvent, Target
from tomada.instances import erasure, lifecycle, subscriptions
from tomada.instances.billing import DAY_MS, HOUR_MS
from tomada.instances.deletion import LEASE_MS, OUTSIDE, PLANS, Deletion, Receipt, Step, digest
from tomada.instances.lifecycle import Scope, State
from tomada.instances.sweeper import carry_deletions, end_what_is_due
from tomada.postgres.pool import Connection

T = TypeVar("T")
DUE_MS = START_MS + 48 * HOUR_MS
CASES = [(scope, step) for scope in Scope for step in PLANS[scope]]
# How many events each statement removes.
_COUNT_REMOVED = """
create table removed (id bigint generated always as identity, n bigint);
create function note_removed() returns trigger language plpgsql as
$$ begin insert into removed (n) select count(*) from gone having count(*) > 0; return null; end $$;
create trigger noted after delete on event referencing old table as gone
for each statement execute function note_removed();
"""
STAYS = {"instance", "deletion", "audit"}


class Killed(BaseException):
    """The process is gone."""


class BreakingStore:
    """The store, until the chosen moment."""

    def __init__(self, side: PostgresSide, step: Step, when: str) -> None:
        self._side = side
        self._step = step
        self._when = when

    def __getattr__(self, name: str) -> Any:
        return getattr(self._side.store, name)

    async def settle(self, deletion: Deletion, step: Step, removed: dict[str, int], note: str) -> Deletion | None:
        """Killed before or after the step and its record, or told twice."""
        if step is self._step and self._when == "before":
            raise Killed
        settled = await self._side.store.settle(deletion, step, removed, note)
        if step is self._step and self._when == "after":
            raise Killed
        if step is self._step and self._when == "twice":
            assert await self._side.store.settle(deletion, step, removed, note) == settled
        return settled

    async def finish(self, deletion: Deletion, receipt: Receipt) -> bool:
        """As it is; and a second time it closes nothing."""
        closed = await self._side.store.finish(deletion, receipt)
        assert not await self._side.store.finish(deletion, receipt)
        return closed


class BreakingMachines(FakeMachines):
    """Machines of which one step fails, or runs twice."""

    def __init__(self, like: FakeMachines, step: Step, when: str) -> None:
        super().__init__()
        self.linked, self.keys, self.files, self.hosted = like.linked, like.keys, like.files, like.hosted
        self._step = step
        self._when = when

    async def remove(self, instance_id: str, epoch: int, *, force: bool) -> str:
        """See Machines."""
        effect = super().remove
        return await self._broken(Step.MACHINE, lambda: effect(instance_id, epoch, force=force), "")

    async def erase_files(self, instance_id: str, epoch: int) -> int:
        """See Machines."""
        effect = super().erase_files
        return await self._broken(Step.FILES, lambda: effect(instance_id, epoch), 0)

    async def _broken(self, step: Step, effect: Callable[[], Awaitable[T]], nothing: T) -> T:
        if step is not self._step:
            return await effect()
        if self._when == "fail":
            self._when = ""
            raise ConnectionError
        first = await effect()
        if self._when == "fail after":
            self._when = ""
            raise ConnectionError
        if self._when == "twice":
            assert await effect() == nothing
        return first


async def prepare(side: PostgresSide, scope: Scope) -> int:
    """Instance I is about to be deleted, J beside it lives; the lifecycle time at which everything may go."""
    await side.create(ACCOUNT, "INSTANCE-I")
    await side.create(ACCOUNT, "INSTANCE-J")
    await side.set_time(DUE_MS - 1, DUE_MS - 1)
    await subscriptions.subscribe(side.store, TERMS, ACCOUNT, "INSTANCE-J")
    await side.set_time(DUE_MS, DUE_MS)
    assert await end_what_is_due(side.store, TERMS, "sweeper") == 1
    if scope is Scope.MACHINE:
        return DUE_MS
    assert await carry_deletions(side.store, side.machines, TERMS, TestClock()) == 1
    change = lifecycle.delete(await side.standing("INSTANCE-I"), DUE_MS, TERMS)
    assert change is not None
    assert await side.store.swap(change, "partner")
    return DUE_MS + int(TERMS.events_retention_days) * DAY_MS


async def heal(side: PostgresSide, lifecycle_ms: int) -> None:
    """A new sweeper comes after the lease, and once more, and finds nothing left to do."""
    await side.set_time(lifecycle_ms, DUE_MS + LEASE_MS + HOUR_MS)
    await carry_deletions(side.store, side.machines, TERMS, TestClock())
    await side.set_time(lifecycle_ms, DUE_MS + 2 * (LEASE_MS + HOUR_MS))
    assert await carry_deletions(side.store, side.machines, TERMS, TestClock()) == 0


async def scan(side: PostgresSide, text: str) -> set[str]:
    """The tables in which some row holds a text anywhere."""
    tables = await side.pool.fetch("select tablename from pg_tables where schemaname = 'public'")
    found = set()
    for (table,) in tables:
        if await side.pool.fetchval(
            f"select exists (select 1 from {table} t where t::text like '%' || $1 || '%')", text
        ):
            found.add(table)
    return found


async def judge(side: PostgresSide, scope: Scope) -> None:
    """The one right end."""
    state = await side.state()
    epoch = 2 if scope is Scope.MACHINE else 3
    assert state["deletions"]["INSTANCE-I", epoch]["receipt"]
    steps = [step for step, _at, _note in state["deletions"]["INSTANCE-I", epoch]["steps"]]
    assert steps == [step.value for step in PLANS[scope]]
    assert [row[3] for row in state["audit"] if row[2] == "erased"] == ["INSTANCE-I"] * (epoch - 1)
    assert (await audit.verify(side.pool, ACCOUNT)).wrong == ""
    receipt = await side.store.receipt(ACCOUNT, "INSTANCE-I")
    assert receipt.digest == digest(receipt.removed)
    assert side.machines.state() == ([("INSTANCE-J", 1)],) * 3
    assert state["papers"]["INSTANCE-J"] == (True, 1, ["first"], True, True)
    told = ["deletion:2", "first"]
    if scope is Scope.MACHINE:
        assert state["papers"]["INSTANCE-I"] == (False, 0, told, True, True)
    else:
        assert state["papers"]["INSTANCE-I"] == (False, 0, [], False, False)
        assert await scan(side, "INSTANCE-I") == STAYS
        assert "Shop" not in str(await side.pool.fetchrow("select * from instance where id = 'INSTANCE-I'"))


@pytest.mark.parametrize(("scope", "step"), CASES)
@pytest.mark.parametrize("when", ["before", "after", "twice"])
async def test_killed_or_repeated_at_any_record(
    postgres_side: PostgresSide, scope: Scope, step: Step, when: str
) -> None:
    """A sweeper that dies around a step's record, or records it twice: another finishes the same."""
    side = postgres_side
    ready_ms = await prepare(side, scope)
    store = BreakingStore(side, step, when)
    for moment_ms in {DUE_MS: 0, ready_ms: 0}:
        await side.set_time(moment_ms, DUE_MS)
        try:
            await carry_deletions(store, side.machines, TERMS, TestClock())
        except Killed:
            assert when != "twice"
    await heal(side, ready_ms)
    await judge(side, scope)


@pytest.mark.parametrize("scope", list(Scope))
@pytest.mark.parametrize("step", sorted(OUTSIDE))
@pytest.mark.parametrize("when", ["fail", "fail after", "twice"])
async def test_failing_or_repeated_outside(postgres_side: PostgresSide, scope: Scope, step: Step, when: str) -> None:
    """A step outside that fails before or after its effect, or runs twice, ends the same."""
    side = postgres_side
    ready_ms = await prepare(side, scope)
    side.machines = BreakingMachines(side.machines, step, when)
    for moment_ms in {DUE_MS: 0, ready_ms: 0}:
        await side.set_time(moment_ms, DUE_MS)
        await carry_deletions(side.store, side.machines, TERMS, TestClock())
    await heal(side, ready_ms)
    await judge(side, scope)


async def test_events_are_erased_in_parts_and_counted_across_a_crash(
    postgres_side: PostgresSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are, no statement removes more than a part; the receipt tells all, whoever removed it."""
    side = postgres_side
    ready_ms = await prepare(side, Scope.INSTANCE)
    await side.pool.execute(_COUNT_REMOVED)
    events = [NewEvent("INSTANCE-I", Target.DISCONNECTED, "T", "{}", str(n)) for n in range(10)]
    async with side.pool.acquire() as connection, connection.transaction():
        await write_events(connection, events)
    monkeypatch.setattr(erasure, "PART", 5)
    parts: list[dict[str, int]] = []

    async def part(connection: Connection, instance_id: str) -> dict[str, int]:
        if len(parts) == 1:
            raise Killed
        parts.append(await erase_part(connection, instance_id))
        return parts[-1]

    erase_part = erasure.erase_part
    await side.set_time(ready_ms, DUE_MS)
    with monkeypatch.context() as patch:
        patch.setattr(erasure, "erase_part", part)
        with pytest.raises(Killed):
            await carry_deletions(side.store, side.machines, TERMS, TestClock())
    assert await side.pool.fetchval("select bool_and(due_ms is null) from lane where instance_id = 'INSTANCE-I'")
    await heal(side, ready_ms)
    await judge(side, Scope.INSTANCE)
    assert [row["n"] for row in await side.pool.fetch("select n from removed order by id")] == [5, 5, 2]
    (done,) = (d for d in (await side.store.receipt(ACCOUNT, "INSTANCE-I")).removed if d.step is Step.EVENTS)
    assert (done.removed["event"], done.removed["callback"], done.removed["outgoing_message"]) == (12, 12, 1)
    assert set(done.removed) >= set(erasure.TABLES[Step.EVENTS])


async def test_every_table_and_column_is_accounted_for(postgres_side: PostgresSide) -> None:
    """Whoever adds a table or column that belongs to an instance must say in erasure.py what becomes of it."""
    columns = await postgres_side.pool.fetch(
        "select table_name, column_name from information_schema.columns where table_schema = 'public'"
    )
    tables = {row["table_name"] for row in columns if row["column_name"] == "instance_id"}
    erased = {table for names in erasure.TABLES.values() for table in names}
    assert tables - erased == erasure.KEPT
    own = {row["column_name"] for row in columns if row["table_name"] == "instance"}
    overwritten = {column for names in erasure.COLUMNS.values() for column in names}
    assert own - overwritten == erasure.TOMBSTONE


async def test_a_subscribe_in_the_middle_of_a_deletion_wins(postgres_side: PostgresSide) -> None:
    """For every step: killed there, subscribed again, paired again: the old machine goes, the new one stays."""
    side = postgres_side
    for number, step in enumerate(PLANS[Scope.MACHINE]):
        name = f"INSTANCE-{number}"
        await side.set_time(START_MS, START_MS)
        await side.create(ACCOUNT, name)
        await side.set_time(DUE_MS, DUE_MS)
        assert await end_what_is_due(side.store, TERMS, "sweeper") == 1
        with pytest.raises(Killed):
            await carry_deletions(BreakingStore(side, step, "after"), side.machines, TERMS, TestClock())
        await subscriptions.subscribe(side.store, TERMS, ACCOUNT, name)
        if await side.leaving(name):
            assert not await side.pair(name)
            await heal(side, DUE_MS)
        assert await side.pair(name)
        await side.pool.execute("insert into session (instance_id, wanted) values ($1, true)", name)
        await heal(side, DUE_MS)
        for kept in side.machines.state():
            assert {key for key in kept if key[0] == name} == {(name, 3)}
        assert (await side.standing(name)).state is State.ACTIVE
        assert (await side.state())["papers"][name][0], "the new session's row must stay"
