"""Retention removes no event that is being queued again, whichever of the two comes first."""

import asyncio
from typing import Any

from tests.integration.callbacks.harness import (
    OPEN_RULES,
    Account,
    Instance,
    event,
    eventually,
    keys,
    make_account,
    make_instance,
    running,
)
from tests.receiver import Receiver
from tomada.callbacks import replay
from tomada.callbacks.replay import Selection
from tomada.callbacks.store import replaying, upkeep
from tomada.callbacks.upkeep import remove_old, work_off_replays
from tomada.postgres.pool import Pool

MONTH_MS = 30 * 24 * 3_600_000
_IS_WAITED_FOR = "select exists (select from pg_stat_activity where $1 = any(pg_blocking_pids(pid)))"


async def _old(pool: Pool, receiver: Receiver) -> tuple[Account, Instance]:
    """An instance with three events, delivered long ago."""
    account = await make_account(pool)
    instance = await make_instance(pool, account, receiver.url())
    async with running(pool) as rig:
        await rig.recorder.record([event(instance, n) for n in range(3)])
        await rig.settled()
    await pool.execute("update event set created_ms = 1")
    return account, instance


async def _ask(pool: Pool, account: Account, instance: Instance) -> None:
    await replay.replay(pool, account.id, Selection(instance_id=instance.id), rules=OPEN_RULES)


async def test_what_is_being_queued_again_is_not_removed(pool: Pool, receiver: Receiver) -> None:
    """A replay is about to commit, and retention passes it by: the events are delivered, and so is what comes behind.

    A callback whose event is gone would hold up its lane for ever.
    """
    account, instance = await _old(pool, receiver)
    await _ask(pool, account, instance)
    before = len(receiver.requests())
    async with pool.acquire() as connection, connection.transaction():
        (replay_id,) = await replaying.unfinished(connection)
        await replaying.step(connection, replay_id)
        removing = asyncio.create_task(remove_old(pool, MONTH_MS))
        await asyncio.wait([removing], timeout=5.0)
    await removing
    async with running(pool) as rig:
        await rig.recorder.record([event(instance, "new")])
        await rig.settled()
    assert keys(receiver.requests()[before:]) == ["0", "1", "2", "new"]


async def test_what_is_being_removed_is_not_queued_again(pool: Pool, receiver: Receiver) -> None:
    """Retention is about to commit, and a replay waits for it: what is gone is gone, and nothing waits for it."""
    account, instance = await _old(pool, receiver)
    await _ask(pool, account, instance)
    async with pool.acquire() as remover:
        transaction = remover.transaction()
        await transaction.start()
        await upkeep.remove_old(remover, MONTH_MS)
        queueing = asyncio.create_task(work_off_replays(pool))
        await eventually(lambda: pool.fetchval(_IS_WAITED_FOR, remover.get_server_pid()))
        await transaction.commit()
    await queueing
    assert await _left(pool) == {"event": 0, "callback": 0, "unfinished": 0}


async def test_both_at_once_leave_no_callback_without_its_event(pool: Pool, receiver: Receiver) -> None:
    """Side by side, over and over: whatever the interleaving, what waits has its event."""
    account, instance = await _old(pool, receiver)
    for _ in range(30):
        await _ask(pool, account, instance)
        await asyncio.gather(work_off_replays(pool), remove_old(pool, MONTH_MS))
        orphans = await pool.fetchval(
            "select count(*) from callback c left join event e"
            " on e.instance_id = c.instance_id and e.number = c.event_number where e.id is null"
        )
        assert orphans == 0
        await pool.execute(
            "insert into event (instance_id, number, id, account_id, type, target, payload, created_ms, dedupe_key)"
            " select $1, g, 'old' || g, $2, 'ReceivedCallback', 'received', '{}', 1, 'old' || g"
            " from generate_series(1, 3) g on conflict do nothing",
            instance.id,
            account.id,
        )
        await pool.execute("delete from callback")


async def _left(pool: Pool) -> dict[str, Any]:
    row = await pool.fetchrow(
        "select (select count(*) from event) as event, (select count(*) from callback) as callback,"
        " (select count(*) from replay where finished_ms is null) as unfinished"
    )
    assert row is not None
    return dict(row)
