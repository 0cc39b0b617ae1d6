"""Group commit: everyone gets their own row or their own error, in order and bounded."""

import asyncio

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tomada.errors import DatabaseUnavailable
from tomada.postgres.group_commit import GroupCommit, Statement
from tomada.postgres.pool import Pool

_TABLE = """
create table note (
    id text primary key,
    size int not null check (size >= 0),
    number bigint generated always as identity
)"""
_INSERT = Statement("note", "insert into note (id, size) values ($1, $2) returning id, number, size")
_INSERT_NEW = Statement(
    "new note", "insert into note (id, size) values ($1, $2) on conflict do nothing returning id, number, size"
)

_Arguments = tuple[object, ...]


@pytest.fixture
async def notes(pool: Pool) -> Pool:
    """A pool on a database with the table `note`."""
    await pool.execute(_TABLE)
    return pool


async def _submit(
    committer: GroupCommit, statement: Statement, rows: list[_Arguments]
) -> list[asyncpg.Record | BaseException | None]:
    """Calls `execute` for each row in order, all at the same time, and returns what each caller got."""
    return await asyncio.gather(*(committer.execute(statement, *row) for row in rows), return_exceptions=True)


def _expected(rows: list[_Arguments], *, skip_known: bool) -> list[object]:
    """What one row after the other would give: its id, None, or the class of its error."""
    known: set[object] = set()
    answers: list[object] = []
    for row in rows:
        if len(row) != 2:
            answers.append(asyncpg.InterfaceError)
        elif not isinstance(row[1], int) or "\ud800" in str(row[0]):
            answers.append(asyncpg.DataError)
        elif row[1] < 0:
            answers.append(asyncpg.CheckViolationError)
        elif row[0] in known:
            answers.append(None if skip_known else asyncpg.UniqueViolationError)
        else:
            known.add(row[0])
            answers.append(row[0])
    return answers


def _short(answer: asyncpg.Record | BaseException | None) -> object:
    if isinstance(answer, BaseException):
        return type(answer)
    return answer["id"] if answer is not None else None


_good = st.tuples(st.sampled_from("abcdefghijkl"), st.integers(0, 9))
_bad = st.sampled_from([("x", -1), ("y", "not a number"), ("z",), ("\ud800", 1)])
_rows = st.lists(st.one_of(_good, _good, _good, _bad), max_size=40)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=_rows, batch_max=st.integers(1, 9), waiting_max=st.integers(1, 50), skip_known=st.booleans())
async def test_same_as_one_after_the_other(
    notes: Pool, rows: list[_Arguments], batch_max: int, waiting_max: int, skip_known: bool
) -> None:
    """For any mix of good, double and impossible rows, any batch and queue size, callers get what a loop would give."""
    await notes.execute("truncate note")
    committer = GroupCommit(notes, rows_per_batch_max=batch_max, rows_waiting_max=waiting_max)
    answers = await _submit(committer, _INSERT_NEW if skip_known else _INSERT, rows)

    assert [_short(answer) for answer in answers] == _expected(rows, skip_known=skip_known)
    written = [answer for answer in answers if isinstance(answer, asyncpg.Record)]
    assert [record["number"] for record in written] == sorted(record["number"] for record in written)
    stored = await notes.fetch("select id, number, size from note order by number")
    assert [tuple(record) for record in stored] == [tuple(record) for record in written]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cancelled=st.sets(st.integers(0, 29)),
    bad=st.integers(0, 29),
    ticks=st.integers(0, 12),
    batch_max=st.integers(1, 12),
)
async def test_cancelled_callers_harm_nobody(
    notes: Pool, cancelled: set[int], bad: int, ticks: int, batch_max: int
) -> None:
    """Callers cancelled at any moment leave the others' answers right, and no row half done or in a wrong place."""
    await notes.execute("truncate note")
    committer = GroupCommit(notes, rows_per_batch_max=batch_max, rows_waiting_max=10)
    tasks = [asyncio.create_task(committer.execute(_INSERT, str(i), -1 if i == bad else i)) for i in range(30)]
    for _ in range(ticks):
        await asyncio.sleep(0)
    for i in cancelled:
        tasks[i].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.wait_for(committer.close(), 10)

    stored = [int(record["id"]) for record in await notes.fetch("select id from note order by number")]
    survivors = set(range(30)) - cancelled - {bad}
    assert survivors <= set(stored)
    assert stored == sorted(stored)
    assert bad not in stored
    for i in survivors:
        answer = answers[i]
        assert isinstance(answer, asyncpg.Record)
        assert answer["id"] == str(i)
    assert bad in cancelled or isinstance(answers[bad], asyncpg.CheckViolationError)


async def test_callers_share_transactions(notes: Pool) -> None:
    """A hundred concurrent callers need few transactions, as PostgreSQL's transaction ids show."""
    committer = GroupCommit(notes)
    await _submit(committer, _INSERT, [(str(i), i) for i in range(100)])
    transactions = await notes.fetchval("select count(distinct xmin::text) from note")
    assert transactions <= 2
    assert committer.rows_written == 100


async def test_one_bad_row_costs_few_transactions(notes: Pool) -> None:
    """Halving finds one bad row of 256 in at most 2 * log2(256) transactions, and writes the other 255."""
    committer = GroupCommit(notes)
    answers = await _submit(committer, _INSERT, [(str(i), -1 if i == 77 else i) for i in range(256)])
    assert [i for i, answer in enumerate(answers) if isinstance(answer, Exception)] == [77]
    assert await notes.fetchval("select count(*) from note") == 255
    assert await notes.fetchval("select count(distinct xmin::text) from note") <= 16


async def test_back_pressure(notes: Pool) -> None:
    """While the database is stuck no more than the bound is queued; the others wait and are served in order."""
    committer = GroupCommit(notes, rows_per_batch_max=4, rows_waiting_max=10)
    async with notes.acquire() as blocker, blocker.transaction():
        await blocker.execute("lock table note")
        callers = [asyncio.create_task(committer.execute(_INSERT, str(i), i)) for i in range(50)]
        await asyncio.sleep(0.1)
        lane = committer._lanes["note"]
        assert len(lane.calls) <= 10
        assert not any(caller.done() for caller in callers)
    answers = await asyncio.gather(*callers)
    numbers = [answer["number"] for answer in answers if answer is not None]
    assert len(numbers) == 50
    assert numbers == sorted(numbers)


async def test_a_cancelled_caller_that_still_waits_writes_nothing(notes: Pool) -> None:
    """A row is left out if its caller is gone before its batch is formed."""
    committer = GroupCommit(notes, rows_per_batch_max=1)
    async with notes.acquire() as blocker, blocker.transaction():
        await blocker.execute("lock table note")
        callers = [asyncio.create_task(committer.execute(_INSERT, str(i), i)) for i in range(3)]
        await asyncio.sleep(0.05)
        callers[1].cancel()
        await asyncio.sleep(0)
    await asyncio.gather(*callers, return_exceptions=True)
    assert [record["id"] for record in await notes.fetch("select id from note order by number")] == ["0", "2"]


async def test_a_stuck_statement_does_not_hold_up_another(notes: Pool) -> None:
    """Statements have queues and connections of their own."""
    await notes.execute("create table other (x int)")
    committer = GroupCommit(notes)
    other = Statement("other", "insert into other values ($1) returning x")
    async with notes.acquire() as blocker, blocker.transaction():
        await blocker.execute("lock table note")
        stuck = asyncio.create_task(committer.execute(_INSERT, "a", 1))
        answer = await asyncio.wait_for(committer.execute(other, 5), 5)
        assert answer is not None
        assert answer["x"] == 5
        assert not stuck.done()
    await stuck


async def test_calls_without_a_row(notes: Pool) -> None:
    """In one batch some calls return a row and some do not: each caller gets its own, or None."""
    committer = GroupCommit(notes)
    answers = await _submit(committer, _INSERT_NEW, [("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5)])
    assert [_short(answer) for answer in answers] == ["a", "b", None, "c", None]
    assert committer.rows_written == 5


async def test_close_settles_what_is_queued_and_refuses_the_rest(notes: Pool) -> None:
    """A stop loses no accepted row and takes no new one."""
    committer = GroupCommit(notes, rows_per_batch_max=7)
    callers = [asyncio.create_task(committer.execute(_INSERT, str(i), i)) for i in range(50)]
    await asyncio.sleep(0)
    await committer.close()
    answers = await asyncio.gather(*callers, return_exceptions=True)
    assert all(isinstance(answer, asyncpg.Record) for answer in answers)
    with pytest.raises(DatabaseUnavailable):
        await committer.execute(_INSERT, "late", 1)


async def test_a_statement_without_rows(notes: Pool) -> None:
    """A statement that returns nothing gives None to everyone."""
    committer = GroupCommit(notes)
    silent = Statement("silent", "insert into note (id, size) values ($1, 1)")
    assert await _submit(committer, silent, [(str(i),) for i in range(9)]) == [None] * 9


async def test_deferred_errors_reach_their_caller(notes: Pool) -> None:
    """An error that PostgreSQL finds only at COMMIT is known not to be written, and reaches the one that caused it."""
    await notes.execute("alter table note add constraint one_size unique (size) deferrable initially deferred")
    committer = GroupCommit(notes)
    answers = await _submit(committer, _INSERT, [("a", 1), ("b", 2), ("c", 1), ("d", 3)])
    assert [_short(answer) for answer in answers] == ["a", "b", asyncpg.UniqueViolationError, "d"]
