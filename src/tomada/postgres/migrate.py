"""Brings the schema up to date at start, from the plain SQL files in `migrations/`.

A migration is one file, `0002_what_it_adds.sql`: several statements, run in one transaction together with the note of
its number, so that it is there wholly or not at all. There is no way back; to undo one, write the next. A file that was
released never changes, and a database made of other files is refused: `frozen.py`.

Alembic does the bookkeeping (table `alembic_version`, the order of revisions), from revisions made of these files in
memory. Importing it takes a second, so the version is read first and Alembic is imported only if the schema is behind.
An advisory lock, held by the migrating transaction, makes two programs that start at once take turns; the second finds
nothing left to do.
"""

import asyncio
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

import asyncpg
import structlog

from tomada.postgres.errors import SchemaTooNew
from tomada.postgres.frozen import CREATE, INSERT, Migration, check_database, check_files

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext, MigrationStep
    from sqlalchemy import Connection

_log = structlog.get_logger(__name__)

_LOCK_KEY = 0x746F6D616461
"""The advisory lock's number: `tomada` in ASCII."""

_VERSION_SQL = "select version_num from alembic_version"
_SEARCHED_TABLE_SQL = "select to_regclass('alembic_version') is not null"


def load_migrations() -> list[Migration]:
    """All migrations in order. Raises MigrationChanged; ValueError if two files have the same number."""
    folder = resources.files("tomada.postgres").joinpath("migrations")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    migrations = [Migration(file.name[:4], file.name, file.read_text(encoding="utf-8")) for file in files]
    if len({migration.revision for migration in migrations}) != len(migrations):
        raise ValueError(f"two migrations have the same number: {[migration.name for migration in migrations]}")
    check_files(migrations, folder.joinpath("SHA256SUMS").read_text(encoding="utf-8"))
    return migrations


async def migrate(dsn: str, migrations: Sequence[Migration] | None = None) -> int:
    """Runs what is missing, `migrations` (default: all files) in order; returns how many were run.

    Raises SchemaTooNew if the database is at a revision that is not among them, SchemaDiffers if it was made of others.
    """
    migrations = load_migrations() if migrations is None else migrations
    connection = await asyncpg.connect(dsn, timeout=60.0)
    try:
        version = await _version(connection)
        known = [migration.revision for migration in migrations]
        if version is not None and version not in known:
            raise SchemaTooNew(f"{SchemaTooNew.__doc__} (its revision is {version})")
        if version is not None:
            await check_database(connection, migrations[: known.index(version) + 1], _LOCK_KEY)
        if not known or version == known[-1]:
            return 0
    finally:
        await connection.close(timeout=5.0)
    return await _run_alembic(dsn, migrations)


async def _version(connection: "asyncpg.Connection[asyncpg.Record]") -> str | None:
    if not await connection.fetchval(_SEARCHED_TABLE_SQL):
        return None
    version: str | None = await connection.fetchval(_VERSION_SQL)
    return version


async def _run_alembic(dsn: str, migrations: Sequence[Migration]) -> int:
    await asyncio.to_thread(__import__, "alembic.runtime.migration")
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(dsn, timeout=60.0), poolclass=NullPool
    )
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(_migrate_locked, migrations)
    finally:
        await engine.dispose()


def _migrate_locked(connection: "Connection", migrations: Sequence[Migration]) -> int:
    """Inside one transaction: wait for the lock, look again what is missing, run it."""
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import text

    connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
    done: list[Migration] = []

    def pending(heads: Any, _context: "MigrationContext") -> list["MigrationStep"]:
        head = heads[0] if heads else None
        revisions = [migration.revision for migration in migrations]
        first = revisions.index(head) + 1 if head is not None else 0
        done.extend(migrations[first:])
        return _steps(connection, migrations, first)

    context = MigrationContext.configure(connection, opts={"fn": pending})
    context.run_migrations()
    connection.execute(text(CREATE))
    for migration in done:
        row = {"revision": migration.revision, "name": migration.name, "checksum": migration.checksum}
        connection.execute(text(INSERT), row)
    _log.info("schema_migrated", revisions=[migration.revision for migration in done])
    return len(done)


def _steps(connection: "Connection", migrations: Sequence[Migration], first: int) -> list["MigrationStep"]:
    """Alembic's steps for `migrations` from index `first`: each a module made in memory whose upgrade runs the SQL."""
    from types import ModuleType

    from alembic.runtime.migration import MigrationStep
    from alembic.script.base import Script
    from alembic.script.revision import RevisionMap

    scripts = []
    for index, migration in enumerate(migrations):
        module = ModuleType(f"migration_{migration.revision}")
        parent = migrations[index - 1].revision if index else None
        module.__dict__.update(
            revision=migration.revision,
            down_revision=parent,
            upgrade=lambda sql=migration.sql, **_: _run_sql(connection, sql),
            downgrade=None,
        )
        scripts.append(Script(module, migration.revision, migration.name))
    known = RevisionMap(lambda: scripts)
    assert known.heads == (migrations[-1].revision,)  # the map is lazy: this links the revisions to each other
    return [MigrationStep.upgrade_from_script(known, script) for script in scripts[first:]]


def _run_sql(connection: "Connection", sql: str) -> None:
    """Runs several statements at once in the open transaction, which prepared statements could not."""
    driver: Any = connection.connection.dbapi_connection
    driver.run_async(lambda raw: raw.execute(sql))
