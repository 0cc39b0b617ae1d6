"""Migrations: run once, in order, wholly or not at all, also when two programs start at once."""

import asyncio
import subprocess
import sys

import asyncpg
import pytest

from tomada.postgres.errors import SchemaTooNew
from tomada.postgres.frozen import Migration
from tomada.postgres.launcher import EmbeddedServer
from tomada.postgres.migrate import load_migrations, migrate

_FIRST = Migration("0001", "0001_first.sql", "create table a (x int); insert into a values (1); -- two statements")
_SECOND = Migration("0002", "0002_second.sql", "create function f() returns int language sql as $$ select 7; $$;")
_BROKEN = Migration("0003", "0003_broken.sql", "create table half (x int); select nonsense;")


@pytest.fixture
async def empty(postgres: EmbeddedServer) -> str:
    """The DSN of a database without any table."""
    connection = await asyncpg.connect(postgres.dsn)
    await connection.execute("drop database if exists empty with (force)")
    await connection.execute("create database empty")
    await connection.close()
    return postgres.dsn_of("empty")


async def _value(dsn: str, sql: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def test_every_file_runs_on_an_empty_database(empty: str) -> None:
    """All real migrations run, and a second run finds nothing to do."""
    assert await migrate(empty) == len(load_migrations())
    assert await migrate(empty) == 0


async def test_only_what_is_missing_runs(empty: str) -> None:
    """A database at revision 1 gets revision 2 and nothing twice."""
    assert await migrate(empty, [_FIRST]) == 1
    assert await migrate(empty, [_FIRST, _SECOND]) == 1
    assert await _value(empty, "select count(*) * 10 + f() from a") == 17
    assert await _value(empty, "select version_num from alembic_version") == "0002"


async def test_a_broken_migration_leaves_nothing(empty: str) -> None:
    """The transaction takes back everything of this run, the revisions before the broken one included."""
    await migrate(empty, [_FIRST])
    with pytest.raises(Exception, match="nonsense"):
        await migrate(empty, [_FIRST, _SECOND, _BROKEN])
    assert await _value(empty, "select to_regclass('half') is null") is True
    assert await _value(empty, "select version_num from alembic_version") == "0001"


async def test_programs_that_start_at_once_take_turns(empty: str) -> None:
    """Of eight concurrent runs exactly one does the work and the others wait for it."""
    counts = await asyncio.gather(*(migrate(empty, [_FIRST, _SECOND]) for _ in range(8)))
    assert sorted(counts) == [0] * 7 + [2]


async def test_a_newer_database_is_refused(empty: str) -> None:
    """A program that does not know the database's revision says so instead of working on it."""
    await migrate(empty, [_FIRST, _SECOND])
    with pytest.raises(SchemaTooNew, match="0002"):
        await migrate(empty, [_FIRST])


async def test_nothing_goes_to_standard_output(empty: str) -> None:
    """What a program prints stays the program's: Alembic logs through `logging`, we through structlog."""
    code = (
        "import asyncio, structlog, sys\n"
        "structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))\n"
        "from tomada.postgres.migrate import migrate\n"
        f"assert asyncio.run(migrate({empty!r})) > 0\n"
    )
    run = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], check=True, timeout=60, capture_output=True
    )
    assert run.stdout == b""


async def test_alembic_is_not_imported_when_nothing_is_behind(database: str) -> None:
    """A start on an up-to-date database does not pay for Alembic."""
    code = (
        "import asyncio, sys\n"
        "from tomada.postgres.migrate import migrate\n"
        f"assert asyncio.run(migrate({database!r})) == 0\n"
        "assert 'alembic' not in sys.modules and 'sqlalchemy' not in sys.modules\n"
    )
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], check=True, timeout=60)
