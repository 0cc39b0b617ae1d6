"""Work in strict order per instance, at the same time across instances, tried until it is done.

The work is what an event demands: write the session's row, hand the event to the pipeline, which commits. Why not
simply await it where it was read: one slow commit would hold up every instance of the machine.

- *Order*: one lane (a queue and a task) per instance; a lane's next work starts when the one before is done.
- *Bound*: at most CONCURRENT_MAX works run at once. How many may wait is bounded where they come from: a machine whose
  events pile up is not read any further (machine.py), and the rest waits with WhatsApp.
- *Never skipped while the database is away*: such errors are retried for ever, with jittered backoff up to RETRY_MAX_S.
- *No lane is blocked for ever by one event*: another kind of error is a fault of ours, for this event and nothing else.
  After TRIES_MAX tries the work is put aside (its `put_aside` keeps it where a person finds it) and the lane goes on.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from random import Random  # noqa: TID251 - the type of what is passed in

import asyncpg
import msgspec
import structlog

from tomada.errors import Unavailable
from tomada.machines.backoff import half_jitter_s

log = structlog.get_logger(__name__)

CONCURRENT_MAX = 64
TRIES_MAX = 5
RETRY_BASE_S = 0.1
RETRY_MAX_S = 5.0

_TRY_LATER = (
    Unavailable,
    OSError,  # TimeoutError is one too
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.InterfaceError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)


class Work(msgspec.Struct, frozen=True):
    """One thing to do. `run` may be called again after it failed; `done` is called once, whatever became of it."""

    run: Callable[[], Awaitable[None]]
    put_aside: Callable[[Exception], Awaitable[None]]
    done: Callable[[], None]
    label: str


def is_passing(error: Exception) -> bool:
    """Whether an error says that the database is away or overloaded, rather than that this work cannot be done."""
    return isinstance(error, _TRY_LATER) and not isinstance(error, asyncpg.DataError)


class Lanes:
    """The lanes of all instances."""

    def __init__(self, rng: Random, concurrent_max: int = CONCURRENT_MAX) -> None:
        self._rng = rng
        self._running = asyncio.Semaphore(concurrent_max)
        self._queues: dict[str, deque[Work]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.put_aside_total = 0

    def add(self, instance_id: str, work: Work) -> None:
        """Queue work behind all earlier work of this instance."""
        queue = self._queues.setdefault(instance_id, deque())
        queue.append(work)
        if instance_id not in self._tasks:
            self._tasks[instance_id] = asyncio.create_task(self._drain(instance_id, queue), name=f"lane {instance_id}")

    def busy(self, instance_id: str) -> bool:
        """Whether anything is queued for this instance."""
        return instance_id in self._tasks

    async def idle(self, instance_id: str) -> None:
        """Wait until everything queued for this instance, and whatever is added meanwhile, is done."""
        while (task := self._tasks.get(instance_id)) is not None:
            await asyncio.wait({task})

    async def close(self, within_s: float = 0.0) -> None:
        """Drop what waits and is not done in time. What a machine told with a number comes again then."""
        tasks = list(self._tasks.values())
        if tasks and within_s:
            await asyncio.wait(tasks, timeout=within_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _drain(self, instance_id: str, queue: deque[Work]) -> None:
        try:
            while queue:
                await self._until_done(instance_id, queue[0])
                queue.popleft().done()
        finally:
            del self._queues[instance_id], self._tasks[instance_id]

    async def _until_done(self, instance_id: str, work: Work) -> None:
        faults = tries = 0
        while True:
            tries += 1
            try:
                async with self._running:
                    await work.run()
            except Exception as error:  # noqa: BLE001 - whatever it is, this lane must go on, and says so
                passing = is_passing(error)
                faults += not passing
                if faults >= TRIES_MAX and await self._gave_up(instance_id, work, error):
                    return
                self._complain(instance_id, work, error, tries)
                await asyncio.sleep(half_jitter_s(tries, self._rng, RETRY_BASE_S, RETRY_MAX_S))
            else:
                return

    async def _gave_up(self, instance_id: str, work: Work, error: Exception) -> bool:
        try:
            await work.put_aside(error)
        except Exception as trouble:  # noqa: BLE001 - then it stays where it is: losing it is not an option
            log.error("lane.cannot_put_aside", instance=instance_id, work=work.label, error=repr(trouble))
            return False
        self.put_aside_total += 1
        log.error("lane.put_aside", instance=instance_id, work=work.label, error=type(error).__name__)
        return True

    def _complain(self, instance_id: str, work: Work, error: Exception, tries: int) -> None:
        if tries & (tries - 1) == 0:  # 1, 2, 4, 8, ...: an outage of an hour is a dozen lines a lane
            log.warning("lane.retry", instance=instance_id, work=work.label, error=type(error).__name__, tries=tries)
