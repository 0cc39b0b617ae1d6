"""The slow work beside the dispatcher: disabled lanes emptied, replays worked off, old rows removed, gauges refreshed.

Any number may run at the same time: a replay is one transaction's at a time (row lock), and removing is idempotent.
"""

import asyncio
from collections.abc import Callable

import structlog

from tomada.callbacks.metrics import AccountFigures, Metrics
from tomada.callbacks.store import lanes, replaying, upkeep
from tomada.kit.clock import Clock
from tomada.postgres.pool import Pool

_log = structlog.get_logger(__name__)

TICK_S = 1.0
FIGURES_EVERY_S = 15.0
REMOVE_EVERY_S = 600.0


async def run_upkeep(pool: Pool, clock: Clock, metrics: Metrics, wake: Callable[[], None], retention_ms: int) -> None:
    """Until cancelled: replays every second, figures every 15 s, removal every 10 min."""
    figures_due_s = remove_due_s = clock.monotonic_s()
    while True:
        try:
            await bury_disabled(pool)
            if await work_off_replays(pool):
                wake()
            now_s = clock.monotonic_s()
            if now_s >= figures_due_s:
                await refresh_figures(pool, metrics)
                figures_due_s = now_s + FIGURES_EVERY_S
            if now_s >= remove_due_s:
                await remove_old(pool, retention_ms)
                remove_due_s = now_s + REMOVE_EVERY_S
        except Exception as error:  # noqa: BLE001 - tried again in a second; deliveries do not depend on it
            _log.warning("callbacks_upkeep_failed", error=type(error).__name__)
        await asyncio.sleep(TICK_S)


async def bury_disabled(pool: Pool, steps_max: int = 20) -> None:
    """What was too much to go to the dead letters when its URL was disabled."""
    for _ in range(steps_max):
        async with pool.acquire() as connection, connection.transaction():
            if not await lanes.bury_next(connection):
                return


async def work_off_replays(pool: Pool, steps_max: int = 20) -> bool:
    """Some steps of unfinished replays; whether there was anything to do."""
    for done in range(steps_max):
        async with pool.acquire() as connection, connection.transaction():
            if not await replaying.step(connection):
                return done > 0
    return True


async def refresh_figures(pool: Pool, metrics: Metrics) -> None:
    """Read what waits, per account, into the gauges."""
    async with pool.acquire() as connection:
        rows = await upkeep.figures(connection)
    metrics.set_accounts(
        [
            AccountFigures(
                row["account_id"],
                row["waiting"],
                row["oldest_age_ms"] / 1000,
                row["failing"],
                row["disabled"],
                row["dead"],
            )
            for row in rows
        ]
    )


async def remove_old(pool: Pool, retention_ms: int) -> int:
    """Remove all that is past retention, some thousand rows at a time; how many."""
    total = 0
    while True:
        async with pool.acquire() as connection:
            removed = await upkeep.remove_old(connection, retention_ms)
        total += removed
        if removed == 0:
            return total
