"""Real connections at the same time, on a clock that runs: who wins is open, that one wins is not."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random  # noqa: TID251 - seeded

import pytest

from tests.integration.lifecycle.sides import TERMS, Neighbours, PostgresSide
from tomada.accounts import audit
from tomada.callbacks.store.recording import write_events
from tomada.callbacks.types import NewEvent, Target
from tomada.errors import NotFound, SubscriptionNeeded, TomadaError
from tomada.instances import subscriptions
from tomada.instances.clock import advance_clock, read_clock
from tomada.instances.lifecycle import State
from tomada.instances.lifecycle_store import PostgresLifecycle
from tomada.instances.sweeper import Sweeper, carry_deletions, end_what_is_due
from tomada.kit.clock import SystemClock
from tomada.messages.store import ACCEPT
from tomada.postgres.pool import Pool, connect

TWO_DAYS_S = 48 * 3600
RACES = 60
SPREAD = 300
SPREAD_ROUNDS = 20

_INSTANCES = """
insert into instance (id, account_id, token_hash, token_sealed, name, session_name, created_ms, due_ms)
select name, 'A', 'hash', 'sealed', 'Shop', 'Shop', lifecycle_now_ms(), lifecycle_now_ms() + 172800000
from unnest($1::text[]) as name
"""


async def rented(pool: Pool, count: int) -> tuple[PostgresSide, list[str]]:
    """An account with so many paired trials."""
    side = PostgresSide(pool)
    await side.account("A", count)
    names = [f"I{number:03}" for number in range(count)]
    for name in names:
        await side.create("A", name)
    return side, names


async def test_subscribe_against_expiry_two_sweepers_against_each_other(pool: Pool, database: str) -> None:
    """At the due time: every subscribe holds; whoever was swept before it has a new machine, and lost the old one."""
    side, names = await rented(pool, RACES)
    other = await connect(database, size_max=4)
    stores = [side.store, PostgresLifecycle(other, Neighbours())]
    await advance_clock(pool, TWO_DAYS_S)

    async def subscribe(name: str) -> bool:
        await asyncio.sleep(Random(name).random() * 0.3)
        await subscriptions.subscribe(side.store, TERMS, "A", name)
        return True

    async def sweep(store: PostgresLifecycle) -> int:
        await end_what_is_due(store, TERMS, "sweeper", batch=5)
        return await carry_deletions(store, side.machines, TERMS, SystemClock())

    *answers, one, two = await asyncio.gather(*(subscribe(name) for name in names), *(sweep(store) for store in stores))
    other.terminate()
    assert all(answers)
    finished = int(one) + int(two) + await carry_deletions(side.store, side.machines, TERMS, SystemClock())
    standings = [await side.standing(name) for name in names]
    lost = {standing.id for standing in standings if standing.epoch == 3}
    assert {standing.state for standing in standings} == {State.ACTIVE}
    assert finished == len(lost)
    assert side.machines.linked == {(name, 1) for name in names if name not in lost}
    told = await pool.fetch("select instance_id from event where dedupe_key = 'deletion:2'")
    assert sorted(row["instance_id"] for row in told) == sorted(lost)
    assert (await audit.verify(pool, "A")).wrong == ""


async def test_everything_at_once_never_deadlocks_and_keeps_the_count(pool: Pool) -> None:
    """Subscribe, cancel, suspend, resume, sweep and delete from ten connections; account.instances_live stays true."""
    side, names = await rented(pool, 12)
    await advance_clock(pool, TWO_DAYS_S - 1)
    rng = Random(1)
    calls: dict[str, Callable[[str], Awaitable[object]]] = {
        "subscribe": lambda name: subscriptions.subscribe(side.store, TERMS, "A", name),
        "cancel": lambda name: subscriptions.cancel(side.store, TERMS, "A", name),
        "delete": lambda name: subscriptions.delete(side.store, TERMS, "A", name),
        "suspend": lambda _name: side.store.suspend("A", 5, "operator"),
        "resume": lambda _name: side.store.resume("A", "operator"),
        "sweep": lambda _name: end_what_is_due(side.store, TERMS, "sweeper"),
        "carry": lambda _name: carry_deletions(side.store, side.machines, TERMS, SystemClock()),
        "advance": lambda _name: advance_clock(pool, 3 * 24 * 3600),
    }

    async def client() -> None:
        for _ in range(25):
            verb = rng.choice(list(calls))
            try:
                await calls[verb](rng.choice(names))
            except TomadaError as error:
                if error.status >= 500:
                    raise

    await asyncio.gather(*(client() for _ in range(10)))
    assert await pool.fetchval(
        "select instances_live = (select count(*) from instance where state in ('trial', 'active', 'in_cancellation'))"
        " from account where id = 'A'"
    )
    assert (await audit.verify(pool, "A")).wrong == ""


@pytest.mark.parametrize("ends_by", ["sweeping", "subscribing"])
async def test_a_message_accepted_while_its_instance_ended_is_cancelled_too(pool: Pool, ends_by: str) -> None:
    """Regression: its row lay in a transaction that was not committed yet, so it was neither sent nor reported."""
    side, (name,) = await rented(pool, 1)
    async with pool.acquire() as accepting:
        transaction = accepting.transaction()
        await transaction.start()
        await accepting.fetch(ACCEPT.sql, name, "Z", "M", "5511999999999", "{}", None, 1000)
        await advance_clock(pool, TWO_DAYS_S)
        await end_what_is_due(side.store, TERMS, "sweeper")
        assert (await side.standing(name)).state is State.EXPIRED
        ways: dict[str, Callable[[], Awaitable[object]]] = {
            "sweeping": lambda: carry_deletions(side.store, side.machines, TERMS, SystemClock()),
            "subscribing": lambda: subscriptions.subscribe(side.store, TERMS, "A", name),
        }
        ending = asyncio.ensure_future(ways[ends_by]())
        await asyncio.wait([ending], timeout=0.5)
        await transaction.commit()
    await ending
    assert await pool.fetchval("select count(*) from outgoing_message where state <> 'cancelled'") == 0


async def test_suspension_and_recorded_events_wait_for_each_other(pool: Pool) -> None:
    """Both lock many instances of the account; rows that lie in the table against their ids' order deadlock nobody."""
    side, _ = await rented(pool, 0)
    names = [f"I{number:03}" for number in reversed(range(SPREAD))]
    await pool.execute(_INSTANCES, names)
    done = asyncio.Event()

    async def suspend_and_resume() -> None:
        for _ in range(SPREAD_ROUNDS):
            await side.store.suspend("A", 5, "operator")
            await side.store.resume("A", "operator")
        done.set()

    async def record() -> None:
        count = 0
        while not done.is_set():
            count += 1
            events = [NewEvent(name, Target.CONNECTED, "T", "{}", f"{count}") for name in names]
            async with pool.acquire() as connection, connection.transaction():
                await write_events(connection, events)

    async with asyncio.TaskGroup() as group:
        group.create_task(record())
        group.create_task(suspend_and_resume())


async def test_the_loop_wakes_at_the_due_time_by_itself(pool: Pool) -> None:
    """With an hour between passes it still ends a trial that falls due in a second, and carries the deletion out."""
    side, (name,) = await rented(pool, 1)
    await advance_clock(pool, TWO_DAYS_S - 1)
    sweeper = Sweeper(side.store, side.machines, TERMS, SystemClock(), interval_s=3600.0)
    sweeper.start()
    try:
        await _until(pool, "select count(*) = 1 from deletion where digest is not null")
    finally:
        await sweeper.stop()
    assert (await side.standing(name)).state is State.EXPIRED
    assert side.machines.state() == ([], [], [])


async def test_the_loop_keeps_up_and_survives_what_fails(pool: Pool) -> None:
    """Upkeep is called at the start; that it fails harms no sweep."""
    side, _names = await rented(pool, 1)
    await advance_clock(pool, TWO_DAYS_S)
    calls = []

    async def upkeep() -> None:
        calls.append(1)
        raise OSError

    sweeper = Sweeper(side.store, side.machines, TERMS, SystemClock(), interval_s=0.05, upkeep=upkeep)
    sweeper.start()
    try:
        await _until(pool, "select count(*) = 1 from deletion where digest is not null")
    finally:
        await sweeper.stop()
    assert calls == [1]


async def test_a_nudge_is_felt_at_once(pool: Pool) -> None:
    """The sandbox's clock was moved: nobody waits for the next pass."""
    side, _names = await rented(pool, 3)
    sweeper = Sweeper(side.store, side.machines, TERMS, SystemClock(), interval_s=3600.0)
    sweeper.start()
    try:
        await asyncio.sleep(0)
        reading = await advance_clock(pool, TWO_DAYS_S)
        assert reading.offset_s == TWO_DAYS_S == (await read_clock(pool)).offset_s
        for _ in range(100):  # the sweeper may be on its way to its first sleep
            sweeper.nudge()
            if await pool.fetchval("select count(*) = 3 from deletion where digest is not null"):
                break
            await asyncio.sleep(0.05)
        await _until(pool, "select count(*) = 3 from deletion where digest is not null")
    finally:
        await sweeper.stop()


async def test_an_integrator_s_story_with_the_movable_clock(pool: Pool) -> None:
    """Two days in a second: expired; subscribed again; canceled; the month over; refused; forty days: not there."""
    side, (name,) = await rented(pool, 1)

    async def after(seconds: int) -> State:
        await advance_clock(pool, seconds)
        await end_what_is_due(side.store, TERMS, "sweeper")
        await carry_deletions(side.store, side.machines, TERMS, SystemClock())
        return (await side.standing(name)).state

    assert await after(TWO_DAYS_S) is State.EXPIRED
    again = await subscriptions.subscribe(side.store, TERMS, "A", name)
    assert again.due > (await read_clock(pool)).now_ms
    ends = await subscriptions.cancel(side.store, TERMS, "A", name)
    assert ends.due == again.due
    assert await after(31 * 24 * 3600) is State.CANCELED
    with pytest.raises(SubscriptionNeeded):
        await subscriptions.update_subscription(side.store, "A", name)
    assert await after(40 * 24 * 3600) is State.DELETED
    await after(8 * 24 * 3600)
    receipt = await side.store.receipt("A", name)
    assert (receipt.scope, receipt.epoch) == ("instance", 5)
    with pytest.raises(NotFound, match="Instance not found"):
        await subscriptions.subscribe(side.store, TERMS, "A", name)


async def _until(pool: Pool, question: str) -> None:
    for _ in range(200):
        if await pool.fetchval(question):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"still not: {question}")
