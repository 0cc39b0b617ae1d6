"""The sweeper: lets due instances end and deletions go on. Any number may run at once, on any number of computers.

A pass over what is due needs no claim: two sweepers may decide on the same row, and the second one's swap finds it
changed. Deletions touch the world outside of the database, so each is claimed for a lease (SKIP LOCKED).

The loop sleeps until the next instance is due, at most `interval_s`; `nudge()` ends the sleep (the sandbox's clock was
moved, an instance was deleted by call). Whatever fails is logged and met again by the next pass: a sweep is level-
triggered, everything it needs is in the rows.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from tomada.instances import lifecycle
from tomada.instances.deletion import LEASE_MS, Machines, carry_out
from tomada.instances.lifecycle import Terms
from tomada.instances.lifecycle_port import LifecycleStore
from tomada.kit.clock import Clock

_log = structlog.get_logger(__name__)

BATCH = 200
INTERVAL_S = 5.0
UPKEEP_S = 600.0
WORKERS = 4  # deletions carried out at once: a log-out may take seconds


async def end_what_is_due(store: LifecycleStore, terms: Terms, actor: str, batch: int = BATCH) -> int:
    """One pass over everything that is due; returns how many instances changed. A bad row stops none of the others."""
    changed = 0
    after = (-1, "")
    while snapshots := await store.due(batch, after):
        for snapshot in snapshots:
            after = (lifecycle.next_ms(snapshot.standing) or 0, snapshot.standing.id)
            try:
                change = lifecycle.wake(snapshot.standing, snapshot.now_ms, terms)
                if change is not None and await store.swap(change, actor):
                    changed += 1
            except Exception:  # noqa: BLE001 - met again by the next pass
                _log.exception("sweep failed", instance=snapshot.standing.id)
        if len(snapshots) < batch:
            break
    return changed


async def carry_deletions(store: LifecycleStore, machines: Machines, terms: Terms, clock: Clock) -> int:
    """Carries on every deletion that may go on now; returns how many were finished here."""
    finished = 0
    while (claimed := await store.claim(LEASE_MS)) is not None:
        deletion, now_ms = claimed
        finished += await carry_out(deletion, store, machines, terms, clock, now_ms)
    return finished


async def pause_until_due(store: LifecycleStore, interval_s: float) -> float:
    """How many seconds to sleep: until the next instance is due, at most the interval.

    One that is due already was left over by a pass that could not change it, so it waits for the next regular one.
    """
    next_ms = await store.ms_to_next_due()
    return interval_s if next_ms is None or next_ms <= 0 else min(interval_s, next_ms / 1000)


class Sweeper:
    """The loops of one replica."""

    def __init__(
        self,
        store: LifecycleStore,
        machines: Machines,
        terms: Terms,
        clock: Clock,
        name: str = "sweeper",
        *,
        interval_s: float = INTERVAL_S,
        workers: int = WORKERS,
        upkeep: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """`upkeep` is called once in UPKEEP_S: what other domains throw away by age (accounts.idempotency.purge)."""
        self._store = store
        self._machines = machines
        self._terms = terms
        self._clock = clock
        self._name = name
        self._interval_s = interval_s
        self._upkeep = upkeep
        self._upkeep_due_s = clock.monotonic_s()
        self._nudges = [asyncio.Event() for _ in range(1 + workers)]
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Starts the loops on the running event loop."""
        first, *others = self._nudges
        self._tasks = [asyncio.create_task(self._end_for_ever(first), name="lifecycle-sweep")]
        self._tasks += [asyncio.create_task(self._carry_for_ever(nudge), name="lifecycle-delete") for nudge in others]

    async def stop(self) -> None:
        """Ends the loops wherever they are; what they were at is taken up after the lease, here or elsewhere."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def nudge(self) -> None:
        """Look now: time was moved, or a deletion was asked for."""
        for nudge in self._nudges:
            nudge.set()

    async def _end_for_ever(self, nudged: asyncio.Event) -> None:
        while True:
            pause_s = self._interval_s
            try:
                if await end_what_is_due(self._store, self._terms, self._name):
                    self.nudge()
                await self._keep_up()
                pause_s = await pause_until_due(self._store, self._interval_s)
            except Exception:  # noqa: BLE001 - met again by the next pass
                _log.exception("sweep failed")
            await _sleep(nudged, pause_s)

    async def _keep_up(self) -> None:
        if self._upkeep is not None and self._clock.monotonic_s() >= self._upkeep_due_s:
            self._upkeep_due_s = self._clock.monotonic_s() + UPKEEP_S
            await self._upkeep()

    async def _carry_for_ever(self, nudged: asyncio.Event) -> None:
        while True:
            try:
                await carry_deletions(self._store, self._machines, self._terms, self._clock)
            except Exception:  # noqa: BLE001 - met again by the next pass
                _log.exception("deletion failed")
            await _sleep(nudged, self._interval_s)


async def _sleep(nudged: asyncio.Event, pause_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(nudged.wait(), pause_s)
    nudged.clear()
