"""Events in, durably, with callers that come at the same time sharing one transaction.

    recorder = Recorder(pool, wake=dispatcher.wake)
    recorded = await recorder.record([NewEvent(...), ...])     # committed when it returns

Why not `postgres.group_commit`, which does the same for single rows: events of one batch must be written as a set, in
sorted order of instances and lanes, because dispatchers lock many lanes at a time too and the two would deadlock
otherwise; and a set costs a fifth of the same rows one by one.

Recording is idempotent (dedupe key), so a batch whose connection was lost, or that was undone for another, is simply
written again. What PostgreSQL says about itself (postgres/verdict.py) is told to all callers of the batch as
DatabaseUnavailable; any other refusal is written again in halves until the bad event is alone with its caller. At most
WAITING_MAX events wait; further callers wait for room, first come first served.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import NamedTuple

from tomada.callbacks.store.recording import write_events
from tomada.callbacks.types import NewEvent, Recorded
from tomada.errors import DatabaseUnavailable, OutcomeUnknown
from tomada.postgres.batches import write_in_halves
from tomada.postgres.pool import Pool
from tomada.postgres.verdict import Verdict, judge

BATCH_MAX = 500
WAITING_MAX = 5000
TRIES_MAX = 8


class _Call(NamedTuple):
    events: Sequence[NewEvent]
    answer: "asyncio.Future[list[Recorded | None]]"


class Recorder:
    """Records events; one per program. `wake` is called after every commit that may have made a lane due.

    Without it, the dispatchers of other processes are notified.
    """

    def __init__(self, pool: Pool, wake: Callable[[], None] | None = None) -> None:
        self._pool = pool
        self._wake = wake
        self._calls: deque[_Call] = deque()
        self._room = asyncio.Semaphore(WAITING_MAX)
        self._turn = (
            asyncio.Lock()
        )  # one caller at a time takes room, so that no two wait for each other with half of it
        self._writer: asyncio.Task[None] | None = None
        self.events_written = 0
        self.transactions = 0

    async def record(self, events: Sequence[NewEvent]) -> list[Recorded | None]:
        """Record events in this order; one result each, None where there is no such instance.

        Raises DatabaseUnavailable (nothing was written) or OutcomeUnknown (record them again, it is harmless).
        """
        if not events:
            return []
        taken = 0
        try:
            async with self._turn:
                while taken < min(len(events), BATCH_MAX):
                    await self._room.acquire()
                    taken += 1
            call = _Call(events, asyncio.get_running_loop().create_future())
            self._calls.append(call)
            if self._writer is None:  # a context of its own: its log lines must not carry this caller's request id
                self._writer = asyncio.create_task(self._write_all(), name="record events", context=Context())
            return await call.answer
        finally:
            for _ in range(taken):
                self._room.release()

    def recorded_elsewhere(self) -> None:
        """Somebody has committed events in a transaction of their own, without a notification."""
        if self._wake:
            self._wake()

    async def close(self) -> None:
        """Returns when all that was handed in is settled."""
        while self._writer is not None:
            await asyncio.wait([self._writer])

    async def _write_all(self) -> None:
        batch: list[_Call] = []
        try:
            while self._calls:
                batch = self._next_batch()
                await self._settle(batch)
                if self._wake:
                    self._wake()
        except BaseException:
            for call in (*batch, *self._calls):
                _fail(call, OutcomeUnknown())
            self._calls.clear()
            raise
        finally:
            self._writer = None

    def _next_batch(self) -> list[_Call]:
        batch: list[_Call] = []
        size = 0
        while self._calls and (not batch or size + len(self._calls[0].events) <= BATCH_MAX):
            call = self._calls.popleft()
            size += len(call.events)
            batch.append(call)
        return batch

    async def _settle(self, calls: list[_Call]) -> None:
        """Answer every call: all together if that works, else in halves."""
        async for part, results in write_in_halves(calls, self._write):
            start = 0
            for call in part:
                if isinstance(results, Exception):
                    _fail(call, results)
                elif not call.answer.done():
                    call.answer.set_result(results[start : start + len(call.events)])
                start += len(call.events)

    async def _write(self, calls: Sequence[_Call]) -> list[Recorded | None]:
        events = [event for call in calls for event in call.events]
        maybe_written = False
        last: Exception | None = None
        for _ in range(TRIES_MAX):
            try:
                async with self._pool.acquire() as connection, connection.transaction():
                    results = await write_events(connection, events, notify=self._wake is None)
            except Exception as error:
                last, verdict = error, judge(error)
                if not verdict.is_of_the_server:
                    raise
                if verdict is Verdict.REFUSED:
                    break
                maybe_written = maybe_written or verdict is Verdict.LOST
            else:
                self.events_written += len(events)
                self.transactions += 1
                return results
        if maybe_written:
            raise OutcomeUnknown from last
        raise DatabaseUnavailable from last


def _fail(call: _Call, error: Exception) -> None:
    """An object of its own for each caller where it is ours: tracebacks grow on shared ones."""
    if not call.answer.done():
        own = type(error)() if isinstance(error, DatabaseUnavailable | OutcomeUnknown) else error
        own.__cause__ = error.__cause__
        call.answer.set_exception(own)
