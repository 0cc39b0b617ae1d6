"""Turns what other processes notify into wake-ups of the dispatcher; only a hint, so nothing is lost with it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import asyncpg

from tomada.callbacks.store.recording import WAKE_CHANNEL
from tomada.postgres.pool import Connection, Pool

AGAIN_S = 1.0


async def listen(pool: Pool, wake: Callable[[], None], trouble: Callable[[str, Exception], Awaitable[None]]) -> None:
    """Until cancelled; what the database says against it is told to `trouble`, and listening begins again."""
    while True:
        try:
            async with pool.acquire() as connection:
                await _listen(connection, wake)
        except Exception as error:  # noqa: BLE001 - only a hint is lost
            await trouble("listen", error)
        await asyncio.sleep(AGAIN_S)


async def _listen(connection: Connection, wake: Callable[[], None]) -> None:
    """Until the connection ends, which never goes back into the pool while it listens."""
    ended = asyncio.Event()
    connection.add_termination_listener(lambda *_: ended.set())
    try:
        await connection.add_listener(WAKE_CHANNEL, lambda *_: wake())
        await ended.wait()
    finally:
        with contextlib.suppress(asyncpg.InterfaceError):  # a connection that died has left our hands
            connection.terminate()
