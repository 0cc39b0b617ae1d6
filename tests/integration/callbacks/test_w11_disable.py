"""W11: after five days of nothing but failures a URL is disabled, never deleted; everything can be recovered."""

import asyncio

import pytest

from tests.integration.callbacks.harness import (
    OPEN_RULES,
    Account,
    Instance,
    event,
    eventually,
    keys,
    make_account,
    make_instance,
    pass_time,
    running,
)
from tests.receiver import Receiver
from tomada.callbacks import history, replay
from tomada.callbacks.recorder import Recorder
from tomada.callbacks.store import replaying, settling
from tomada.callbacks.upkeep import bury_disabled, refresh_figures, work_off_replays
from tomada.errors import Unavailable
from tomada.postgres.pool import Pool

DAY_MS = 24 * 3_600_000


async def test_w11_disabled_after_five_days_and_recovered(pool: Pool, receiver: Receiver) -> None:
    """Told by an event in the history and a metric; switched on again, everything arrives in order."""
    account = await make_account(pool)
    instance = await make_instance(pool, account, receiver.url("named-z"))
    sent = 0
    async with running(pool) as rig:
        for day in range(7):
            for _ in range(6):
                await rig.recorder.record([event(instance, sent)])
                sent += 1
                rig.dispatcher.wake()
                await asyncio.sleep(0.05)
                await pass_time(pool, DAY_MS // 6)
            (lane,) = await history.lanes(pool, account.id, instance.id)
            if day < 4:
                assert lane.disabled_ms is None, f"disabled on day {day}"
        async with asyncio.timeout(10):
            while (await history.lanes(pool, account.id, instance.id))[0].disabled_ms is None:
                rig.dispatcher.wake()
                await asyncio.sleep(0.05)
        (lane,) = await history.lanes(pool, account.id, instance.id)
        assert lane.disabled_reason == "failed for days"
        assert lane.waiting == 0
        assert lane.dead_letters == sent
        notices = (await history.history(pool, account.id, instance.id, type_="CallbackUrlDisabled")).content
        assert len(notices) == 1
        await refresh_figures(pool, rig.metrics)
        assert rig.registry.get_sample_value("tomada_callback_lanes_disabled", {"account": account.id}) == 1
        assert rig.registry.get_sample_value("tomada_callback_urls_disabled_total") == 1

        await receiver.set("z", "ok")
        await replay.reenable(
            pool, account.id, instance.id, receiver.url("named-z"), rules=OPEN_RULES, recover_since_ms=0
        )
        await work_off_replays(pool)
        rig.dispatcher.wake()
        await rig.settled()
    delivered = [r for r in receiver.requests() if r["status"] == 200]
    assert keys(delivered) == [str(n) for n in range(sent)]


async def test_w11_a_large_queue_goes_to_the_dead_letters_in_steps(
    pool: Pool, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million rows in one statement outlast every limit; and who switches the URL on again finds the lane empty."""
    monkeypatch.setattr(settling, "BURIED_AT_ONCE", 10)
    account = await make_account(pool)
    first, second = [await make_instance(pool, account, receiver.url("gone")) for _ in range(2)]
    await Recorder(pool).record([event(i, n) for n in range(35) for i in (first, second)])
    async with running(pool):
        await eventually(lambda: pool.fetchval("select count(*) = 2 from lane where disabled_ms is not null"))
    assert await pool.fetchval("select count(*) from dead_letter") == 20

    await replay.reenable(pool, account.id, second.id, receiver.url("gone"), rules=OPEN_RULES)
    await bury_disabled(pool, steps_max=2)

    left = "select count(*) from callback where instance_id = $1"
    assert [await pool.fetchval(left, i.id) for i in (first, second)] == [5, 0]
    await bury_disabled(pool)
    assert await pool.fetchval(left, first.id) == 0
    assert await pool.fetchval("select count(*) from dead_letter") == 70


async def _disabled_with(pool: Pool, receiver: Receiver, count: int) -> tuple[Account, Instance]:
    """An instance whose URL was disabled with so many events for it, of which BURIED_AT_ONCE are buried."""
    account = await make_account(pool)
    instance = await make_instance(pool, account, receiver.url("gone"))
    await Recorder(pool).record([event(instance, n) for n in range(count)])
    async with running(pool):
        await eventually(lambda: pool.fetchval("select count(*) = 1 from lane where disabled_ms is not null"))
    return account, instance


@pytest.mark.parametrize("by_setting_it", [True, False])
async def test_w11_switching_on_buries_in_steps(
    pool: Pool, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, by_setting_it: bool
) -> None:
    """No transaction holds the lane for longer than some rows take, however many wait: others record meanwhile."""
    monkeypatch.setattr(settling, "BURIED_AT_ONCE", 10)
    account, instance = await _disabled_with(pool, receiver, 55)
    url = receiver.url("gone")
    if by_setting_it:
        assert await replay.switch_on(pool, account.id, instance.id, url)
    else:
        await replay.reenable(pool, account.id, instance.id, url, rules=OPEN_RULES)
    steps = await pool.fetch("select count(*) as n from dead_letter group by xmin::text")
    assert sorted(row["n"] for row in steps) == [5, 10, 10, 10, 10, 10]
    assert await pool.fetchval("select disabled_ms is null and done_position = last_position from lane")


async def test_w11_switching_on_is_refused_while_too_much_waits(
    pool: Pool, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever fills the lane faster than it is emptied is told to try again, and finds nothing changed."""
    monkeypatch.setattr(settling, "BURIED_AT_ONCE", 10)
    account, instance = await _disabled_with(pool, receiver, 55)
    with pytest.raises(Unavailable):
        async with pool.acquire() as connection, connection.transaction():
            await replaying.reenable(connection, account.id, instance.id, receiver.url("gone"))
    assert await pool.fetchval("select disabled_ms is not null from lane")
    assert await pool.fetchval("select count(*) from dead_letter") == 10
    assert await replay.switch_on(pool, account.id, instance.id, receiver.url("gone"))


async def test_w11_a_success_starts_the_count_anew(pool: Pool, receiver: Receiver) -> None:
    """Failing for four days, one success, failing again: not disabled."""
    account = await make_account(pool)
    instance = await make_instance(pool, account, receiver.url("poison-bad"))
    async with running(pool) as rig:
        await rig.recorder.record([event(instance, "bad")])
        await asyncio.sleep(0.1)
        await pass_time(pool, 4 * DAY_MS)
        await rig.recorder.record([event(instance, "good")])
        await eventually(lambda: "good" in keys(receiver.requests()))
        await eventually(lambda: pool.fetchval("select failing_since_ms is null from lane"))
    assert await pool.fetchval("select disabled_ms from lane") is None
