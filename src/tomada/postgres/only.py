"""One server per database, as long as the sessions have no owner by lease: two would throw each other out of WhatsApp.

An advisory lock on a connection of its own, held while the server runs. PostgreSQL drops it with the connection, so a
killed server leaves nothing behind; its successor waits PATIENCE_S for that to be noticed. If the database restarts the
lock is gone while the server runs on: this guards against a mistake at start, it is no lease.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from time import monotonic

import asyncpg

from tomada.errors import TomadaError
from tomada.postgres.verdict import CONNECTION_LOST

PATIENCE_S = 5.0
# A computer that vanished must not hold the place for the two hours that TCP waits by default. Half a minute at most.
_NOTICE_OUR_DEATH = {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"}
_LOCK = "select pg_try_advisory_lock(hashtext('tomada serve'))"


class ServerRuns(TomadaError):
    """Another `tomada serve` uses this database: stop it first, or give this one a database of its own"""


@contextlib.asynccontextmanager
async def only_server(dsn: str) -> AsyncIterator[None]:
    """Hold the database's only place for a server. Raises ServerRuns."""
    connection = await asyncpg.connect(dsn, server_settings=_NOTICE_OUR_DEATH)
    try:
        deadline_s = monotonic() + PATIENCE_S
        while not await connection.fetchval(_LOCK):
            if monotonic() > deadline_s:
                raise ServerRuns
            await asyncio.sleep(0.1)
        yield
    finally:
        with contextlib.suppress(*CONNECTION_LOST):
            await connection.close(timeout=1.0)
