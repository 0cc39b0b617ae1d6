"""W7: a dead receiver harms nobody else; nor does an account with a flood of events. bench/callbacks.py: ratios."""

import asyncio
from pathlib import Path

from tests.integration.callbacks.harness import event, eventually, keys, make_account, make_instance, running, take
from tests.receiver import Receiver
from tomada.callbacks.limits import Limits
from tomada.callbacks.recorder import Recorder
from tomada.callbacks.store import settling, taking
from tomada.callbacks.types import Attempt, Delivered, Settlement
from tomada.postgres.pool import Pool


async def test_w07_a_hanging_receiver_holds_few_places(pool: Pool, tmp_path: Path, receiver: Receiver) -> None:
    """60 lanes hang at one destination; 40 others get everything within seconds.

    Once the destination is known to hang it has two places, however many lanes are due.
    """
    hanging = Receiver(tmp_path, "hanging")
    try:
        account, other = await make_account(pool), await make_account(pool)
        dead = [await make_instance(pool, account, hanging.url("hang")) for _ in range(60)]
        live = [await make_instance(pool, other, receiver.url()) for _ in range(40)]
        limits = Limits(lanes_max=32, destination_max=16, account_max=24)
        async with running(pool, limits=limits, total_s=1.0, lease_s=3.0) as rig:
            await rig.recorder.record([event(i, n) for n in range(2) for i in dead])
            await hanging.wait_for(16)
            await rig.recorder.record([event(i, n) for n in range(10) for i in live])
            requests = await receiver.wait_for(400, timeout_s=15)
            hung = len(hanging.requests())
            await asyncio.sleep(1.5)
            assert len(hanging.requests()) - hung <= 8  # about two places, one second each
        for instance in live:
            assert keys(requests, instance) == [str(n) for n in range(10)]
    finally:
        hanging.close()


async def test_w07_a_flood_of_one_account_leaves_room_for_others(pool: Pool, receiver: Receiver) -> None:
    """1,000 slow lanes of one account are due first; an event of another account goes out at once."""
    flood, quiet = await make_account(pool), await make_account(pool)
    many = [await make_instance(pool, flood, receiver.url("slow-0.5")) for _ in range(1000)]
    one = await make_instance(pool, quiet, receiver.url("ok"))
    async with running(pool, limits=Limits(lanes_max=16, destination_max=64, account_max=8)) as rig:
        await rig.recorder.record([event(i, n) for n in range(3) for i in many])
        await receiver.wait_for(8)
        await rig.recorder.record([event(one, "x")])
        await eventually(lambda: len(keys(receiver.requests(), one)) == 1, 3)


async def test_places_that_fall_free_at_a_full_destination_are_taken_at_once(pool: Pool, receiver: Receiver) -> None:
    """Regression: 480 instances with one receiver got some dozens of callbacks a second, those of each timed look."""
    account = await make_account(pool)
    instances = [await make_instance(pool, account, receiver.url()) for _ in range(60)]
    await Recorder(pool).record([event(i, "x") for i in instances])
    async with running(pool, limits=Limits(destination_max=2)) as rig:
        await receiver.wait_for(60, timeout_s=20)  # thirty looks
        await rig.settled()


async def test_what_the_database_refuses_of_one_lane_harms_no_other(pool: Pool, receiver: Receiver) -> None:
    """Regression: the whole batch was written again for ever, its leases renewed, and nothing else was settled."""
    account = await make_account(pool)
    bad, good = [await make_instance(pool, account, receiver.url()) for _ in range(2)]
    await pool.execute(f"alter table attempt add check (instance_id <> '{bad.id}')")
    async with running(pool, lease_s=2.0) as rig:
        await rig.recorder.record([event(i, n) for n in range(3) for i in (bad, good)])
        for number in range(3, 8):
            await eventually(lambda number=number: len(keys(receiver.requests(), good)) >= number)  # type: ignore[misc]
            await rig.recorder.record([event(good, number)])
        await eventually(lambda: pool.fetchval("select count(*) = 8 from attempt where instance_id = $1", good.id))
        await pool.execute("alter table attempt drop constraint attempt_instance_id_check")
        await rig.settled()
    assert keys(receiver.requests(), good) == [str(n) for n in range(8)]
    assert sorted(set(keys(receiver.requests(), bad))) == ["0", "1", "2"]


async def test_several_dispatchers_share_without_duplicates(pool: Pool, receiver: Receiver) -> None:
    """Three dispatchers, 30 lanes, 1,500 events: each event once, in order."""
    account = await make_account(pool)
    instances = [await make_instance(pool, account, receiver.url()) for _ in range(30)]
    async with running(pool) as one, running(pool) as two, running(pool) as three:
        for start in range(0, 50, 5):
            batch = [event(i, n) for n in range(start, start + 5) for i in instances]
            await one.recorder.record(batch)
        await receiver.wait_for(1500)
        await one.settled()
        worked = [rig.dispatcher.transactions for rig in (one, two, three)]
    assert len(receiver.requests()) == 1500
    for instance in instances:
        assert keys(receiver.requests(), instance) == [str(n) for n in range(50)]
    assert min(worked) > 0


async def test_a_frozen_dispatcher_is_fenced_off(pool: Pool, receiver: Receiver) -> None:
    """A lane taken over by another changes nothing when the first holder settles it."""
    account = await make_account(pool)
    instance = await make_instance(pool, account, receiver.url())
    await Recorder(pool).record([event(instance, "a")])

    (frozen,) = await take(pool, lease_ms=100)  # a tenth of a second
    await asyncio.sleep(0.15)
    (heir,) = await take(pool, lease_ms=100)  # a tenth of a second
    assert heir.epoch == frozen.epoch + 1
    outcome = Delivered(frozen.waiting[0], Attempt(0, 0, 200, None))
    async with pool.acquire() as connection, connection.transaction():
        assert (await settling.settle(connection, [Settlement(frozen, (outcome,), None)])).ours == set()
        assert await taking.renew(connection, [(frozen.id, frozen.epoch)], 1000) == set()
    assert await pool.fetchval("select count(*) from callback") == 1
    assert await pool.fetchval("select count(*) from attempt") == 0
    async with pool.acquire() as connection, connection.transaction():
        assert (await settling.settle(connection, [Settlement(heir, (outcome,), None)])).ours == {heir.id}
    async with pool.acquire() as connection:  # a renewal that comes late lengthens nothing
        assert await taking.renew(connection, [(heir.id, heir.epoch)], 60_000) == set()
    assert await pool.fetchval("select count(*) from callback") == 0
