"""Whether the database takes writes just now: a probe writes one row a second, and whoever asks reads its last result.

A question costs no statement, so probes and balancers may ask as often as they like, and a database that hangs makes no
question hang. A *write*, because a database that is read-only, full or without our privileges answers every `select`.
The row is an ordinary logged one, committed like everything else: an unlogged one would not notice that the log cannot
be written or that a synchronous replica is gone. It is one row, updated in place: nothing grows.

The probe has a connection of its own, since the pool's may all be waiting, and a new one every few seconds, since a
changed password or a limit on connections shows only there. A result older than AGE_MAX_S is none: the probe hangs, or
this process does not get to run it.
"""

import asyncio
import contextlib
from collections.abc import Callable

import asyncpg
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from tomada.kit.clock import Clock
from tomada.postgres.verdict import CONNECTION_LOST, words

log = structlog.get_logger(__name__)

PERIOD_S = 1.0
TIMEOUT_S = 3.0  # for connecting, and for the write
AGE_MAX_S = 5.0
PROBES_PER_CONNECTION = 5
_NOT_LOOKED = "the database has not been asked yet"
_TOO_OLD = "the database does not answer"

_WRITE = """
insert into database_probe (written_ms) values (real_now_ms())
on conflict (only_row) do update set written_ms = excluded.written_ms
"""


class Health:
    """The probe of one process. `refusal` tells what others were refused just now, None if nothing."""

    def __init__(
        self, dsn: str, clock: Clock, registry: CollectorRegistry, refusal: Callable[[], str | None] = lambda: None
    ) -> None:
        self.refusal = refusal
        self._dsn = dsn
        self._clock = clock
        self._trouble: str | None = _NOT_LOOKED
        self._at_s = clock.monotonic_s()
        self._looked = asyncio.Event()
        self._failures = Counter("tomada_database_probe_failures", "Writes the database refused", registry=registry)
        gauge = Gauge("tomada_database_writable", "1 while the database takes writes", registry=registry)
        gauge.set_function(lambda: float(self.trouble() is None))

    def trouble(self) -> str | None:
        """Why the database takes no writes now, in words for operators; None if it does. Asks nobody."""
        if self._clock.monotonic_s() - self._at_s > AGE_MAX_S:
            return _TOO_OLD
        return self._trouble or self.refusal()

    async def looked(self) -> None:
        """Wait for the first result."""
        await self._looked.wait()

    async def run(self) -> None:
        """Probe until cancelled."""
        while True:
            try:
                await self._probe()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the result
                self._heard(words(error))
                await asyncio.sleep(PERIOD_S)

    async def _probe(self) -> None:
        connection = await asyncpg.connect(self._dsn, timeout=TIMEOUT_S, command_timeout=TIMEOUT_S)
        try:
            for _ in range(PROBES_PER_CONNECTION):
                await connection.execute(_WRITE)
                self._heard(None)
                await asyncio.sleep(PERIOD_S)
        finally:
            with contextlib.suppress(*CONNECTION_LOST):
                await connection.close(timeout=TIMEOUT_S)

    def _heard(self, trouble: str | None) -> None:
        if trouble is not None:
            self._failures.inc()
        if trouble != self._trouble and self._trouble is not _NOT_LOOKED:
            (log.error if trouble else log.info)("database.health", trouble=trouble, before=self._trouble)
        self._trouble, self._at_s = trouble, self._clock.monotonic_s()
        self._looked.set()
