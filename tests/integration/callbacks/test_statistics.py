"""What a queue's statistics say of it does not decide what its statements cost."""

from collections.abc import Awaitable, Callable, Sequence

import pytest

from tests.integration.callbacks.harness import event, make_account, make_instance, take
from tomada.callbacks.recorder import Recorder
from tomada.callbacks.store import settling
from tomada.callbacks.store.delivered import settle_delivered
from tomada.callbacks.types import Attempt, Delivered, Failed, Settlement
from tomada.postgres.pool import Connection, Pool

BACKLOG = 1000
OK = Attempt(at_ms=1, duration_ms=2, status=200, error=None)
BAD = Attempt(at_ms=1, duration_ms=2, status=500, error="status 500")
Settle = Callable[[Connection, Sequence[Settlement]], Awaitable[settling.Settled]]


async def _backlog_after_an_empty_day(pool: Pool) -> None:
    """Statistics of a queue that held a backlog and holds none; then it holds one again."""
    instance = await make_instance(pool, await make_account(pool), "http://receiver.example/")
    recorder = Recorder(pool)
    await recorder.record([event(instance, f"old {n}") for n in range(BACKLOG)])
    await pool.execute("delete from callback")
    await pool.execute("update lane set due_ms = null, done_position = last_position")
    await pool.execute("analyze callback")
    await recorder.record([event(instance, n) for n in range(BACKLOG)])


async def _rows_read(connection: Connection) -> int:
    """Rows of the queue that this connection has read of late."""
    value: int = await connection.fetchval(
        "select coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) from pg_stat_xact_user_tables"
        " where relname = 'callback'"
    )
    return value


@pytest.mark.parametrize(
    ("settle", "outcome"),
    [
        (settle_delivered, Delivered),
        (settling.settle, Delivered),
        (settling.settle, lambda callback, _: Failed(callback, BAD)),
        (settling.settle, lambda callback, _: Failed(callback, BAD, dead=True)),
    ],
)
async def test_a_settlement_reads_what_it_settles(
    pool: Pool, settle: Settle, outcome: Callable[[object, Attempt], Delivered | Failed]
) -> None:
    """Regression: with statistics of an empty queue each settlement read the whole backlog."""
    await _backlog_after_an_empty_day(pool)
    (lane,) = await take(pool, batch=4)
    settlement = Settlement(lane, tuple(outcome(callback, OK) for callback in lane.waiting), None)

    async with pool.acquire() as connection, connection.transaction():
        before = await _rows_read(connection)
        assert (await settle(connection, [settlement])).ours == {lane.id}
        assert await _rows_read(connection) - before < BACKLOG / 10
