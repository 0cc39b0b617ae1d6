"""The slow work beside the dispatcher: disabled lanes emptied, replays worked off, old rows removed, gauges refreshed.

Any number may run at the same time: of a replay each part is queued once (store/replaying.py), and removing is
idempotent. Each kind has a loop of its own, so that none waits for another.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from tomada.callbacks.metrics import AccountFigures, Metrics
from tomada.callbacks.store import replaying, settling, upkeep
from tomada.postgres.pool import Pool

_log = structlog.get_logger(__name__)

TICK_S = 1.0
FIGURES_EVERY_S = 15.0
REMOVE_EVERY_S = 600.0


async def run_upkeep(pool: Pool, metrics: Metrics, wake: Callable[[], None], retention_ms: int) -> None:
    """Until cancelled: replays and disabled lanes every second, figures every 15 s, removal every 10 min."""

    async def replay() -> None:
        if await work_off_replays(pool):
            wake()

    async with asyncio.TaskGroup() as group:
        group.create_task(_every(TICK_S, "replays", replay))
        group.create_task(_every(TICK_S, "disabled lanes", lambda: bury_disabled(pool)))
        group.create_task(_every(FIGURES_EVERY_S, "figures", lambda: refresh_figures(pool, metrics)))
        group.create_task(_every(REMOVE_EVERY_S, "removal", lambda: remove_old(pool, retention_ms)))


async def _every(period_s: float, what: str, work: Callable[[], Awaitable[object]]) -> None:
    while True:
        try:
            await work()
            pause_s = period_s
        except Exception as error:  # noqa: BLE001 - tried again in a second; deliveries do not depend on it
            _log.warning("callbacks_upkeep_failed", doing=what, error=type(error).__name__)
            pause_s = TICK_S
        await asyncio.sleep(pause_s)


async def bury_disabled(pool: Pool, steps_max: int = 20) -> None:
    """What was too much to go to the dead letters when its URL was disabled."""
    for _ in range(steps_max):
        async with pool.acquire() as connection, connection.transaction():
            if not await settling.bury_next(connection):
                return


async def work_off_replays(pool: Pool, steps_max: int = 20) -> bool:
    """Up to `steps_max` steps of every unfinished replay, in turn; whether there was any.

    One that fails is logged, and holds up no other.
    """
    failed: set[str] = set()
    for done in range(steps_max):
        async with pool.acquire() as connection:
            replays = [replay_id for replay_id in await replaying.unfinished(connection) if replay_id not in failed]
        if not replays:
            return done > 0
        for replay_id in replays:
            try:
                async with pool.acquire() as connection, connection.transaction():
                    await replaying.step(connection, replay_id)
            except Exception:  # noqa: BLE001 - tried again in a second
                _log.exception("callbacks_replay_failed", replay=replay_id)
                failed.add(replay_id)
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
