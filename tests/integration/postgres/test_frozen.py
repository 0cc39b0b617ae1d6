"""Frozen migrations: a database that was made of other files than these is refused, one that was not is taken over."""

import asyncio

import asyncpg
import msgspec
import pytest

from tomada.postgres.errors import SchemaDiffers
from tomada.postgres.frozen import FINGERPRINT_0004, LAST_UNRECORDED, Migration, fingerprint
from tomada.postgres.launcher import EmbeddedServer
from tomada.postgres.migrate import load_migrations, migrate

RELEASED = [migration for migration in load_migrations() if migration.revision <= LAST_UNRECORDED]
NEXT = Migration("0005", "0005_next.sql", "create table next (x int);")


@pytest.fixture
async def old(postgres: EmbeddedServer) -> str:
    """The DSN of a database at revision 0004, as it was before databases remembered their files."""
    connection = await asyncpg.connect(postgres.dsn)
    await connection.execute("drop database if exists old with (force)")
    await connection.execute("create database old")
    await connection.close()
    dsn = postgres.dsn_of("old")
    await migrate(dsn, RELEASED)
    await run(dsn, "drop table migration")
    return dsn


async def run(dsn: str, statement: str) -> None:
    """A statement of somebody else."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(statement)
    await connection.close()


async def recorded(dsn: str) -> dict[str, str] | None:
    """Which files the database remembers."""
    connection = await asyncpg.connect(dsn)
    try:
        return {row["name"]: row["checksum"] for row in await connection.fetch("select name, checksum from migration")}
    except asyncpg.UndefinedTableError:
        return None
    finally:
        await connection.close()


async def test_the_released_schema_is_the_one_that_is_taken_over(old: str) -> None:
    """Whoever changes what the first four files make meets this, even if SHA256SUMS was changed along."""
    connection = await asyncpg.connect(old)
    assert await fingerprint(connection, RELEASED) == FINGERPRINT_0004
    await connection.close()


async def test_a_database_from_before_is_taken_over(old: str) -> None:
    """It gets the checksums of the files that it was made of, and later ones run on it."""
    assert await migrate(old, RELEASED) == 0
    assert await recorded(old) == {it.name: it.checksum for it in RELEASED}
    assert await migrate(old, [*RELEASED, NEXT]) == 1
    assert await recorded(old) == {it.name: it.checksum for it in (*RELEASED, NEXT)}


async def test_programs_that_start_at_once_take_over_once(old: str) -> None:
    """They take turns, and all of them may work."""
    assert await asyncio.gather(*(migrate(old, RELEASED) for _ in range(5))) == [0] * 5
    assert len(await recorded(old) or {}) == len(RELEASED)


@pytest.mark.parametrize(
    "edit",
    [
        "alter table outgoing_message drop column error",
        "alter table session add column extra text",
        "alter table outgoing_message alter column attempts drop not null",
        "alter table lane alter column not_before_ms set default 1",
        "alter table session drop constraint session_condition_check",
        "drop index outgoing_message_by_wa_id",
        "drop trigger audit_append_only on audit",
        "create or replace function lifecycle_now_ms() returns bigint language sql volatile as 'select 1::bigint'",
        "drop table replay",
        "update alembic_version set version_num = '0003'",
    ],
)
async def test_a_database_of_an_older_edit_is_refused(old: str, edit: str) -> None:
    """One number, another schema: columns, constraints, indexes, triggers, functions, a table too few; untouched."""
    await run(old, edit)

    with pytest.raises(SchemaDiffers, match="before the first release"):
        await migrate(old, [*RELEASED, NEXT])

    assert await recorded(old) is None


async def test_a_changed_file_under_an_old_number_is_refused(old: str) -> None:
    """By the database that was made with the file as it was, at the newest revision and behind it alike."""
    await migrate(old, RELEASED)
    changed = [msgspec.structs.replace(RELEASED[1], sql=RELEASED[1].sql + "-- one word more")]
    for files in ([RELEASED[0], *changed, *RELEASED[2:]], [RELEASED[0], *changed, *RELEASED[2:], NEXT]):
        with pytest.raises(SchemaDiffers, match=r"another text of the migration 0002_callbacks\.sql"):
            await migrate(old, files)
    assert len(await recorded(old) or {}) == len(RELEASED)
