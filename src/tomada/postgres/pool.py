"""Connections to PostgreSQL, the same for the embedded and for an external server: a plain `asyncpg.Pool`, set up once.

Decisions, each for a reason:

- **A server that restarts is waited for.** The embedded server is back within a second, a failover takes some more. A
  connection that must be opened meanwhile is tried again for `patience_s`; only then is it `DatabaseUnavailable`. One
  that is refused (password, privilege, no such database) is that at once: it does not pass within seconds. A statement
  that was running when its connection died is *not* repeated here: nobody knows what became of it. Repeat it if it only
  reads, or see `group_commit.py`.
- **No reset on release.** asyncpg's default asks the server to forget session state each time a connection goes back,
  which costs a third of the throughput of small statements. None of our code sets session state on pooled connections
  (no SET, LISTEN, advisory session lock or cursor outside of a transaction); a transaction left open is rolled back.
- **Prepared statements are kept** for as long as the connection lives. Behind a pooler in transaction mode (PgBouncer
  before 1.21) set `statements_cached` to 0.
- **Plans go by indexes** (`enable_seqscan` off: a whole table is read only where no index can help). A prepared
  statement keeps its plan, and one that was made while the tables were all but empty reads them whole: 64 lanes cost
  2.9 ms each then, and 0.2 ms with this, until statistics caught up a minute later.
- **jsonb stays text** in both directions; the stores encode and decode it with msgspec, straight from and to structs.
- **`idle_in_transaction_session_timeout`**: a process that is frozen inside a transaction loses it, and its row locks.
"""

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Any

import asyncpg

from tomada.errors import DatabaseUnavailable
from tomada.postgres.verdict import CONNECTION_LOST, judge

if TYPE_CHECKING:  # generic in the stubs only
    from asyncpg.pool import PoolConnectionProxy

    Pool = asyncpg.Pool[asyncpg.Record]
    Connection = PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]
else:
    Pool = asyncpg.Pool
    Connection = asyncpg.Connection

STATEMENT_TIMEOUT_S = 30.0

_AWAY: tuple[type[Exception], ...] = (*CONNECTION_LOST, asyncpg.TooManyConnectionsError)


def rows_changed(status: str) -> int:
    """How many rows an INSERT, UPDATE or DELETE changed, of what `execute` returns."""
    return int(status.rsplit(maxsplit=1)[-1])


async def connect(
    dsn: str,
    *,
    size_max: int = 10,
    patience_s: float = 15.0,
    statements_cached: int = 256,
) -> Pool:
    """A pool of at most `size_max` connections to `dsn`, one of them open when it returns.

    Raises `DatabaseUnavailable` if there is no connection within `patience_s`, now and at every later acquire.
    """

    async def open_connection(*arguments: Any, **options: Any) -> "asyncpg.Connection[asyncpg.Record]":
        return await _open_patiently(patience_s, *arguments, **options)

    pool: Pool = await asyncpg.create_pool(
        dsn,
        min_size=1,
        max_size=size_max,
        connect=open_connection,
        reset=_keep_session,
        statement_cache_size=statements_cached,
        max_cached_statement_lifetime=0,
        command_timeout=STATEMENT_TIMEOUT_S,
        timeout=10.0,
        server_settings={
            "application_name": "tomada",
            "TimeZone": "UTC",
            "idle_in_transaction_session_timeout": "60000",
            "enable_seqscan": "off",
        },
    )
    return pool


async def _open_patiently(patience_s: float, *arguments: Any, **options: Any) -> "asyncpg.Connection[asyncpg.Record]":
    """`asyncpg.connect`, again and again while the server is away, up to `patience_s`."""
    deadline = monotonic() + patience_s
    pause_s = 0.02
    while True:
        try:
            connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(*arguments, **options)
        except Exception as error:
            if not judge(error).passes:
                raise
            if not isinstance(error, _AWAY) or monotonic() + pause_s > deadline:
                raise DatabaseUnavailable from error
            await asyncio.sleep(pause_s)
            pause_s = min(1.0, pause_s * 1.5)
        else:
            return connection


async def _keep_session(_connection: object) -> None:
    """Nothing to reset; see the module. asyncpg itself rolls back a transaction that was left open."""
