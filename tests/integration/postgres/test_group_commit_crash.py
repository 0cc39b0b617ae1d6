"""Group commit tells the truth when connections and servers die: what it confirmed is there, and once."""

import asyncio
import os
import signal
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tests.integration.postgres.waiting import until
from tomada.errors import DatabaseUnavailable, OutcomeUnknown
from tomada.postgres.group_commit import GroupCommit, Statement
from tomada.postgres.launcher import EmbeddedServer, embedded_server
from tomada.postgres.pool import Pool, connect

_INSERT = Statement("crash", "insert into crash (id) values ($1) returning number")
_INSERT_ONCE = Statement(
    "crash once",
    "insert into crash (id) values ($1) on conflict (id) do update set id = excluded.id returning number",
    idempotent=True,
)
_CALLERS = 48


@pytest.fixture
async def own_server() -> AsyncIterator[EmbeddedServer]:
    """A server of this test alone, with fsync, that may be killed."""
    with tempfile.TemporaryDirectory(prefix="tomada-tests-") as folder:
        async with embedded_server(Path(folder) / "postgres") as server:
            yield server


async def _write_until(
    stop: asyncio.Event, committer: GroupCommit, statement: Statement
) -> tuple[dict[str, list[str]], Counter[str]]:
    """Callers that write unique ids until `stop`; returns the ids by outcome, in order, and outcomes by count."""
    outcomes: dict[str, list[str]] = {"written": [], "not written": [], "unknown": []}

    async def caller(name: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            row_id = f"{name}-{number}"
            try:
                await committer.execute(statement, row_id)
                outcomes["written"].append(row_id)
            except OutcomeUnknown:
                outcomes["unknown"].append(row_id)
            except DatabaseUnavailable:
                outcomes["not written"].append(row_id)

    await asyncio.gather(*(caller(name) for name in range(_CALLERS)))
    return outcomes, Counter({outcome: len(ids) for outcome, ids in outcomes.items()})


async def _written(committer: GroupCommit, rows: int) -> None:
    """Waits until that many more rows are written."""
    goal = committer.rows_written + rows
    await until(lambda: committer.rows_written >= goal, timeout_s=60.0)


async def _check(pool: Pool, outcomes: dict[str, list[str]]) -> None:
    stored = [record["id"] for record in await pool.fetch("select id from crash order by number")]
    assert len(stored) == len(set(stored))
    assert set(outcomes["written"]) <= set(stored)
    assert not set(outcomes["not written"]) & set(stored)
    assert set(stored) <= set(outcomes["written"]) | set(outcomes["unknown"])
    for name in range(_CALLERS):
        numbers = [int(row_id.split("-")[1]) for row_id in stored if row_id.startswith(f"{name}-")]
        assert numbers == sorted(numbers)


@pytest.mark.parametrize("statement", [_INSERT, _INSERT_ONCE], ids=lambda statement: statement.name)
async def test_kill_9_of_the_server(own_server: EmbeddedServer, statement: Statement) -> None:
    """Five kills of the whole server under load: no confirmed row is missing or doubled, nobody hangs, it goes on."""
    pool = await connect(own_server.dsn)
    await pool.execute("create table crash (id text primary key, number bigint generated always as identity)")
    committer, stop = GroupCommit(pool, rows_per_batch_max=16), asyncio.Event()
    writing = asyncio.create_task(_write_until(stop, committer, statement))
    for round_number in range(1, 6):
        await _written(committer, 100)
        os.kill(own_server.pid, signal.SIGKILL)
        await until(lambda: own_server.restarts >= round_number)  # noqa: B023 - awaited right here
    await _written(committer, 100)
    stop.set()
    outcomes, counts = await asyncio.wait_for(writing, 60)

    await _check(pool, outcomes)
    assert counts["not written"] == 0, "a restart is shorter than the pool's patience"
    assert statement.idempotent <= (counts["unknown"] == 0)
    pool.terminate()


@pytest.mark.parametrize("statement", [_INSERT, _INSERT_ONCE], ids=lambda statement: statement.name)
async def test_terminated_connections(pool: Pool, database: str, statement: Statement) -> None:
    """Twenty rounds of pg_terminate_backend on every connection: the same truth, and no round stops it."""
    await pool.execute("create table crash (id text primary key, number bigint generated always as identity)")
    committer, stop = GroupCommit(pool, rows_per_batch_max=8), asyncio.Event()
    writing = asyncio.create_task(_write_until(stop, committer, statement))
    killer = await asyncpg.connect(database)
    for _ in range(20):
        await _written(committer, 20)
        await killer.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )
    stop.set()
    outcomes, counts = await asyncio.wait_for(writing, 60)
    await killer.close()

    await _check(pool, outcomes)
    assert statement.idempotent <= (counts["unknown"] == 0)


_DIE_ONCE = """
create table crash (id text primary key, number bigint generated always as identity);
create sequence deaths;
create function die_once() returns trigger language plpgsql as $$
begin
    if nextval('deaths') = 1 then perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(1); end if;
    return null;
end $$;
"""
_WHILE_WRITING = "create trigger die after insert on crash for each row execute function die_once()"
_AT_COMMIT = (
    "create constraint trigger die after insert on crash deferrable initially deferred"
    " for each row execute function die_once()"
)


@pytest.mark.parametrize(
    ("moment", "statement", "callers", "unknown"),
    [
        (_WHILE_WRITING, _INSERT, 9, 0),  # before COMMIT: certainly not written, tried again
        (_AT_COMMIT, _INSERT, 9, 9),  # nobody knows
        (_AT_COMMIT, _INSERT_ONCE, 9, 0),  # nobody knows, and it does not matter
        (_WHILE_WRITING, _INSERT, 1, 1),  # a lone row commits with its statement, so nobody knows
        (_AT_COMMIT, _INSERT_ONCE, 1, 0),
    ],
    ids=["batch, writing", "batch, commit", "idempotent batch", "lone row", "idempotent lone row"],
)
async def test_the_moment_of_death_decides(
    pool: Pool, moment: str, statement: Statement, callers: int, unknown: int
) -> None:
    """A connection that dies before COMMIT is made good unseen; at COMMIT only idempotent statements are repeated."""
    await pool.execute(_DIE_ONCE)
    await pool.execute(moment)
    committer = GroupCommit(pool)
    answers = await asyncio.gather(
        *(committer.execute(statement, str(number)) for number in range(callers)), return_exceptions=True
    )
    assert sum(isinstance(answer, OutcomeUnknown) for answer in answers) == unknown
    assert sum(isinstance(answer, asyncpg.Record) for answer in answers) == callers - unknown
    assert await pool.fetchval("select count(*) from crash") == callers - unknown


async def test_no_server_at_all(own_server: EmbeddedServer) -> None:
    """Without a server callers get DatabaseUnavailable after the pool's patience, and the queue empties."""
    pool = await connect(own_server.dsn, patience_s=0.3)
    committer = GroupCommit(pool)
    await own_server.stop()
    answers = await asyncio.wait_for(
        asyncio.gather(*(committer.execute(_INSERT, str(i)) for i in range(20)), return_exceptions=True), 20
    )
    assert {type(answer) for answer in answers} <= {DatabaseUnavailable, OutcomeUnknown}
    with pytest.raises(DatabaseUnavailable):
        await committer.execute(_INSERT, "again")
    pool.terminate()
