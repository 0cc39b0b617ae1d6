"""Nothing lands on an instance that was erased: what comes late is refused, as for an instance that never was."""

import asyncio

import pytest

from tests.integration.callbacks.harness import (
    OPEN_RULES,
    SEALER,
    Account,
    Instance,
    event,
    eventually,
    make_account,
    make_instance,
    running,
)
from tomada.callbacks import replay
from tomada.callbacks.recorder import Recorder
from tomada.callbacks.replay import Selection
from tomada.errors import NotFound
from tomada.instances.deletion import PLANS, Step
from tomada.instances.erasure import erase
from tomada.instances.lifecycle import Scope
from tomada.postgres.pool import Pool

_URL = "http://receiver.example/"
_LEFT = """
select (select count(*) from event) + (select count(*) from lane) + (select count(*) from callback)
    + (select count(*) from replay)
"""
_IS_WAITED_FOR = "select exists (select from pg_stat_activity where $1 = any(pg_blocking_pids(pid)))"


async def _deleted(pool: Pool) -> tuple[Account, Instance]:
    """An instance that was deleted and not yet erased."""
    account = await make_account(pool)
    return account, await make_instance(pool, account, _URL, state="deleted")


async def _erase(pool: Pool, instance: Instance, *steps: Step) -> None:
    async with pool.acquire() as connection, connection.transaction():
        for step in steps:
            await erase(connection, instance.id, step)


async def test_a_deletion_tells_until_the_instance_is_erased(pool: Pool) -> None:
    """Its own notices, and what its machine told last, are recorded; after the token nothing is."""
    account, instance = await _deleted(pool)
    recorder = Recorder(pool)
    (told,) = await recorder.record([event(instance, "disconnected")])
    assert told is not None
    await _erase(pool, instance, Step.EVENTS, Step.TOKENS)
    other = await make_instance(pool, account, _URL)
    late, theirs = await recorder.record([event(instance, "late"), event(other, "theirs")])
    assert late is None
    assert theirs is not None
    assert await pool.fetchval("select count(*) from event") == 1


async def test_what_waits_for_the_erasure_is_refused(pool: Pool) -> None:
    """The recorder stands at the instance's row while the token goes."""
    _, instance = await _deleted(pool)
    async with pool.acquire() as eraser:
        transaction = eraser.transaction()
        await transaction.start()
        await erase(eraser, instance.id, Step.EVENTS)
        await erase(eraser, instance.id, Step.TOKENS)
        recording = asyncio.create_task(Recorder(pool).record([event(instance, "late")]))
        await eventually(lambda: pool.fetchval(_IS_WAITED_FOR, eraser.get_server_pid()))
        await transaction.commit()
    assert await recording == [None]
    assert await pool.fetchval(_LEFT) == 0


@pytest.mark.parametrize("late_after", PLANS[Scope.INSTANCE])
async def test_an_event_that_comes_between_two_steps_is_erased_too(pool: Pool, late_after: Step) -> None:
    """Whenever it comes, nothing of it is left behind the tombstone."""
    account, instance = await _deleted(pool)
    for step in PLANS[Scope.INSTANCE]:
        await _erase(pool, instance, step)
        if step is late_after:
            await Recorder(pool).record([event(instance, "late")])
    assert await pool.fetchval(_LEFT) == 0
    with pytest.raises(NotFound):
        await replay.replay(pool, account.id, Selection(instance_id=instance.id), rules=OPEN_RULES, url=_URL)
    async with running(pool) as rig:
        with pytest.raises(NotFound):
            await replay.send_test_event(pool, rig.sender, SEALER, account.id, instance.id, _URL)
    assert await pool.fetchval(_LEFT) == 0
