"""W11: after five days of nothing but failures a URL is disabled, never deleted; everything can be recovered."""

import asyncio

from tests.integration.callbacks.harness import (
    OPEN_RULES,
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
from tomada.callbacks.upkeep import refresh_figures, work_off_replays
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
