"""Group commit: callers that write at the same time share one transaction, and each gets its own row or its own error.

Making a write durable costs a wait for the disk. A program that does it once per write is bound by that wait; here all
callers that arrive while one batch is being written form the next batch, so the cost is shared by as many as are there.
Nobody waits for company: a single caller is written at once.

    committer = GroupCommit(pool)
    row = await committer.execute(INSERT_EVENT, instance_id, number, body)

Guarantees, and what each rests on:

- **Durable when it returns.** The batch's COMMIT was answered.
- **Order.** Rows of one statement are written in the order in which `execute` was called: one queue, one batch at a
  time. Statements do not wait for each other.
- **One bad row harms nobody.** A batch that PostgreSQL refuses is rolled back and tried again in halves (batches.py)
  until the bad row is alone; its caller gets the error.
- **The server's own trouble is nobody's row** (verdict.py): read-only, no space, no privilege... is told to all callers
  of the batch as `DatabaseUnavailable`, whose cause is what PostgreSQL said. A deadlock is tried again.
- **The truth about lost connections.** A connection lost before COMMIT was sent: nothing was written, and the batch is
  tried again. Lost after that: nobody can know, so the batch is tried again only if the statement is declared
  idempotent, else its callers get `OutcomeUnknown`. `DatabaseUnavailable` means for certain that nothing was written.
- **A cancelled caller harms nobody.** If its row is still queued it is left out; if it is being written it is written.
- **Bounded.** At most `rows_waiting_max` rows per statement are queued; further callers wait for room, first come first
  served.

A statement returns at most one row per call. One that now and then returns none (ON CONFLICT DO NOTHING) is correct but
slower, because only row counts tell which call a row belongs to: a batch with a gap is halved like one with a bad row.
Give it exactly one row instead: `with done as (insert ... returning id) select (select id from done) as id`.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from contextvars import Context
from typing import NamedTuple

import asyncpg
import msgspec

from tomada.errors import DatabaseUnavailable, OutcomeUnknown
from tomada.postgres.batches import write_in_halves
from tomada.postgres.pool import Connection, Pool
from tomada.postgres.verdict import CONNECTION_LOST, Verdict, judge


class Statement(msgspec.Struct, frozen=True):
    """A named SQL statement that returns at most one row.

    `idempotent`: running it twice with the same arguments leaves the same state and returns the same row.
    """

    name: str
    sql: str
    idempotent: bool = False


class _Call(NamedTuple):
    arguments: tuple[object, ...]
    answer: "asyncio.Future[asyncpg.Record | None]"


class _Lane:
    """The calls of one statement, in order of arrival, and the task that writes them while there are any."""

    def __init__(self, statement: Statement, rows_waiting_max: int) -> None:
        self.statement = statement
        self.calls: deque[_Call] = deque()
        self.room = asyncio.Semaphore(rows_waiting_max)
        self.writer: asyncio.Task[None] | None = None


class _RowsDifferError(Exception):
    """Some calls of a batch returned no row, so rows cannot be told apart by position."""


class _Attempt:
    """One try to write a batch; `maybe_committed` once PostgreSQL may have made it durable."""

    def __init__(self) -> None:
        self.maybe_committed = False

    async def write(self, connection: Connection, sql: str, calls: Sequence[_Call]) -> Sequence[asyncpg.Record | None]:
        if len(calls) == 1:  # no explicit transaction: one round trip instead of three
            self.maybe_committed = True
            rows = await connection.fetch(sql, *calls[0].arguments)
            return rows[:1] or [None]
        transaction = connection.transaction()
        await transaction.start()
        try:
            rows = await connection.fetchmany(sql, [call.arguments for call in calls])
            if rows and len(rows) != len(calls):
                raise _RowsDifferError
        except BaseException:
            with contextlib.suppress(*CONNECTION_LOST):
                await transaction.rollback()
            raise
        self.maybe_committed = True
        await transaction.commit()
        return rows or [None] * len(calls)


class GroupCommit:
    """Writes rows in shared transactions over `pool`; see the module. One per program, for all statements."""

    def __init__(
        self, pool: Pool, *, rows_per_batch_max: int = 256, rows_waiting_max: int = 4096, attempts_max: int = 8
    ) -> None:
        self._pool = pool
        self._rows_per_batch_max = rows_per_batch_max
        self._rows_waiting_max = rows_waiting_max
        self._attempts_max = attempts_max
        self._lanes: dict[str, _Lane] = {}
        self._closing = False
        self.rows_written = 0
        self.batches_written = 0

    async def execute(self, statement: Statement, *arguments: object) -> asyncpg.Record | None:
        """Runs `statement` with `arguments`, durably; returns its row, or None if it returned none.

        Raises what PostgreSQL said about this row; `DatabaseUnavailable` (nothing was written) or `OutcomeUnknown`.
        """
        lane = self._lanes.get(statement.name)
        if lane is None:
            lane = self._lanes[statement.name] = _Lane(statement, self._rows_waiting_max)
        assert lane.statement == statement, f"two statements are named {statement.name}"
        await lane.room.acquire()
        if self._closing:
            lane.room.release()
            raise DatabaseUnavailable
        call = _Call(arguments, asyncio.get_running_loop().create_future())
        lane.calls.append(call)
        if lane.writer is None:  # a context of its own: its log lines must not carry this caller's request id
            lane.writer = asyncio.create_task(self._write_all(lane), name=f"write {statement.name}", context=Context())
        return await call.answer

    async def close(self) -> None:
        """Refuses new calls, and returns when those already queued are settled."""
        self._closing = True
        while writers := [lane.writer for lane in self._lanes.values() if lane.writer is not None]:
            await asyncio.wait(writers)

    async def _write_all(self, lane: _Lane) -> None:
        """Writes the lane's calls, batch after batch, until none is left; fails all of them if it is cancelled."""
        batch: list[_Call] = []
        try:
            while lane.calls:
                batch = self._take_batch(lane)
                await self._settle(lane.statement, batch)
                _release(lane, len(batch))
        except BaseException:
            _release(lane, len(batch) + len(lane.calls))
            _fail([*batch, *lane.calls], OutcomeUnknown())
            lane.calls.clear()
            raise
        finally:
            lane.writer = None

    def _take_batch(self, lane: _Lane) -> list[_Call]:
        batch: list[_Call] = []
        while lane.calls and len(batch) < self._rows_per_batch_max:
            call = lane.calls.popleft()
            if call.answer.done():  # its caller was cancelled
                lane.room.release()
            else:
                batch.append(call)
        return batch

    async def _settle(self, statement: Statement, calls: Sequence[_Call]) -> None:
        """Gives every call its answer: all together if that works, else in halves."""

        async def write(part: Sequence[_Call]) -> Sequence[asyncpg.Record | None]:
            return await self._write_surely(statement, part)

        async for part, rows in write_in_halves(calls, write):
            if isinstance(rows, Exception):
                _fail(part, rows)
                continue
            self.rows_written += len(part)
            self.batches_written += 1
            for call, row in zip(part, rows, strict=True):
                if not call.answer.done():
                    call.answer.set_result(row)

    async def _write_surely(self, statement: Statement, calls: Sequence[_Call]) -> Sequence[asyncpg.Record | None]:
        """Writes the batch, again if it was undone, or its connection lost and nothing can be written twice by that."""
        maybe_written = False
        last: Exception | None = None
        for _ in range(self._attempts_max):
            attempt = _Attempt()
            try:
                async with self._pool.acquire() as connection:
                    return await attempt.write(connection, statement.sql, calls)
            except Exception as error:
                last, verdict = error, judge(error)
                if not verdict.is_of_the_server:
                    raise
                if verdict is Verdict.REFUSED:
                    break
                if verdict is Verdict.LOST:
                    maybe_written = maybe_written or attempt.maybe_committed
                    if isinstance(error, TimeoutError) or (attempt.maybe_committed and not statement.idempotent):
                        break
        if maybe_written:
            raise OutcomeUnknown from last
        raise DatabaseUnavailable from last


def _release(lane: _Lane, count: int) -> None:
    for _ in range(count):
        lane.room.release()


def _fail(calls: Sequence[_Call], error: Exception) -> None:
    """Each caller gets the error, as an object of its own where it is ours: tracebacks grow on shared ones."""
    for call in calls:
        if not call.answer.done():
            own = type(error)() if isinstance(error, DatabaseUnavailable | OutcomeUnknown) else error
            own.__cause__ = error.__cause__
            call.answer.set_exception(own)
