"""The slow work beside the dispatcher: nothing of it holds up recording, or another part of it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry

from tests.integration.callbacks.harness import (
    OPEN_RULES,
    Account,
    Instance,
    event,
    eventually,
    make_account,
    make_instance,
    running,
)
from tests.receiver import Receiver
from tomada.callbacks import replay
from tomada.callbacks.metrics import Metrics
from tomada.callbacks.recorder import Recorder
from tomada.callbacks.replay import Selection
from tomada.callbacks.store import replaying
from tomada.callbacks.upkeep import run_upkeep, work_off_replays
from tomada.postgres.pool import Connection, Pool

MONTH_MS = 30 * 24 * 3_600_000
_LOCK_INSTANCE = "select from instance where id = $1 for no key update"
_IS_WAITED_FOR = "select exists (select from pg_stat_activity where $1 = any(pg_blocking_pids(pid)))"


@contextlib.asynccontextmanager
async def _locked(pool: Pool, instance: Instance) -> AsyncIterator[Connection]:
    """Somebody holds the instance's row, as whoever records does; all is committed at the end."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(_LOCK_INSTANCE, instance.id)
        yield connection


async def _kept(pool: Pool, url: str, events: int) -> tuple[Account, Instance]:
    """An instance whose events nobody wanted; now they would go to `url`."""
    account = await make_account(pool)
    instance = await make_instance(pool, account, None)
    await Recorder(pool).record([event(instance, n) for n in range(events)])
    await pool.execute("update instance set received_callback_url = $2 where id = $1", instance.id, url)
    return account, instance


async def _ask(pool: Pool, account: Account, instance: Instance, only: str = "all") -> str:
    return await replay.replay(pool, account.id, Selection(instance_id=instance.id, only=only), rules=OPEN_RULES)


async def test_a_step_looks_at_a_bounded_number_of_events(
    pool: Pool, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is missing is looked for in stretches, each of which is a step: 25 were delivered before the first one."""
    monkeypatch.setattr(replaying, "LOOK_MAX", 10)
    account = await make_account(pool)
    instance = await make_instance(pool, account, receiver.url())
    async with running(pool) as rig:
        await rig.recorder.record([event(instance, n) for n in range(25)])
        await rig.settled()
    await pool.execute("update instance set received_callback_url = null")
    await Recorder(pool).record([event(instance, "missing")])
    await pool.execute("update instance set received_callback_url = $1", receiver.url())
    replay_id = await _ask(pool, account, instance, "missing")
    places = []
    while await work_off_replays(pool, steps_max=1):
        places.append(await pool.fetchval("select after_number from replay"))
    assert places == [10, 20, 26]
    progress = await replay.progress(pool, account.id, replay_id)
    assert progress is not None
    assert (progress.queued, progress.finished) == (1, True)


async def test_looking_for_what_is_missing_needs_no_lock(pool: Pool, receiver: Receiver) -> None:
    """Whoever records holds the instance; a replay that finds nothing to queue ends all the same."""
    account = await make_account(pool)
    instance = await make_instance(pool, account, receiver.url())
    async with running(pool) as rig:
        await rig.recorder.record([event(instance, 0)])
        await rig.settled()
    await _ask(pool, account, instance, "missing")
    async with _locked(pool, instance):
        assert await asyncio.wait_for(work_off_replays(pool), 10)
    assert await pool.fetchval("select finished_ms is not null from replay")


async def test_a_replay_and_an_erasure_take_their_locks_in_one_order(pool: Pool) -> None:
    """The instance, then the request: the replay waits, the erasure does not, and what it erased is not queued."""
    account, instance = await _kept(pool, "http://receiver.example/", 3)
    await _ask(pool, account, instance)
    async with _locked(pool, instance) as eraser:
        queueing = asyncio.create_task(work_off_replays(pool))
        await eventually(lambda: pool.fetchval(_IS_WAITED_FOR, eraser.get_server_pid()))
        await eraser.execute("delete from replay where instance_id = $1", instance.id)
    await queueing
    assert await pool.fetchval("select count(*) from callback") == 0


async def test_two_that_ask_for_what_is_missing_queue_it_once(pool: Pool) -> None:
    """Both have looked before either has queued: whoever comes second looks again, with the locks in hand."""
    account, instance = await _kept(pool, "http://receiver.example/", 3)
    ids = [await _ask(pool, account, instance, "missing") for _ in range(2)]

    async def step(replay_id: str) -> None:
        async with pool.acquire() as connection, connection.transaction():
            await replaying.step(connection, replay_id)

    async with _locked(pool, instance):
        both = [asyncio.create_task(step(replay_id)) for replay_id in ids]
        waiting = "select count(*) = 2 from pg_stat_activity where cardinality(pg_blocking_pids(pid)) > 0"
        await eventually(lambda: pool.fetchval(waiting))
    await asyncio.gather(*both)
    assert await pool.fetchval("select count(*) from callback") == 3


async def test_a_replay_that_fails_holds_up_no_other(pool: Pool) -> None:
    """The oldest cannot be worked off, whatever the reason: those that came later are."""
    account, instance = await _kept(pool, "http://receiver.example/", 3)
    oldest = await _ask(pool, account, instance)
    await pool.execute("update replay set url = 'http://[', created_ms = 1")
    other = await _ask(pool, account, instance)
    assert await work_off_replays(pool)
    found = [await replay.progress(pool, account.id, replay_id) for replay_id in (oldest, other)]
    assert [(p.queued, p.finished) for p in found if p is not None] == [(0, False), (3, True)]


async def test_figures_and_retention_do_not_wait_for_replays(pool: Pool) -> None:
    """A replay waits for its instance, for as long as it likes; the other loops go on."""
    account, instance = await _kept(pool, "http://receiver.example/", 3)
    other = await make_instance(pool, account, "http://receiver.example/")
    await Recorder(pool).record([event(other, 0)])
    await pool.execute("update event set created_ms = 1 where instance_id = $1 and number = 1", instance.id)
    await _ask(pool, account, instance)
    await pool.execute("update replay set after_number = 1")
    registry = CollectorRegistry()
    async with _locked(pool, instance):
        upkeep = asyncio.create_task(run_upkeep(pool, Metrics(registry), lambda: None, MONTH_MS))
        labels = {"account": account.id}
        await eventually(lambda: registry.get_sample_value("tomada_callback_waiting", labels) == 1)
        await eventually(lambda: pool.fetchval("select count(*) = 3 from event"))
        assert await pool.fetchval("select count(*) from callback") == 1
    await eventually(lambda: pool.fetchval("select count(*) = 3 from callback"))
    upkeep.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await upkeep
