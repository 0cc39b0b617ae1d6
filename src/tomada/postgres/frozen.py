"""Migrations are frozen: a released file never changes, and a database remembers from which files it was made.

Two programs that call different schemas by one number would work on each other's tables, and fail where nobody looks:
statements err, what should be deleted stays. So both sides are compared at every start:

| side | what is kept | compared with |
| --- | --- | --- |
| this program | `migrations/SHA256SUMS`, a line for each file | the files |
| the database | table `migration`, a row for each file that ran, written in the transaction that ran it | the files |

A database that has no such table was made before there was one. It is taken over if its tables and functions are those
of revision 0004 as released, which the catalogs tell; any other is of an edit that was never released.

To add a migration: write the file, then `sha256sum *.sql > SHA256SUMS` in its folder.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import PurePath

import asyncpg
import msgspec

from tomada.postgres.errors import MigrationChanged, SchemaDiffers

LAST_UNRECORDED = "0004"
"""The newest revision of the time when databases did not remember."""

FINGERPRINT_0004 = "5ddb6b440cfa4061379df30e53b5cea456b99954711ee771e7e649a969ce03c6"
"""`fingerprint` of what the first four files make, the same on PostgreSQL 15 and 18."""

CREATE = "create table if not exists migration (revision text primary key, name text not null, checksum text not null)"
INSERT = "insert into migration (revision, name, checksum) values (:revision, :name, :checksum)"

_TAKE = "insert into migration (revision, name, checksum) values ($1, $2, $3) on conflict do nothing"
_EXISTS = "select to_regclass('migration') is not null"
_RECORDED = "select revision, checksum from migration"

# Constraints that say "not null" are listed with the columns: only some versions of PostgreSQL list them by themselves.
_CATALOGS = """
select line from (
    select format('column %s.%s %s %s %s %s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
        a.attnotnull, a.attidentity, a.attgenerated, pg_get_expr(d.adbin, d.adrelid))
    from pg_attribute a join pg_class c on c.oid = a.attrelid
    left join pg_attrdef d on (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
    where a.attnum > 0 and not a.attisdropped and c.oid = any($1::regclass[])
    union all
    select format('constraint %s %s', conrelid::regclass, pg_get_constraintdef(oid, true)) from pg_constraint
    where contype in ('c', 'f', 'p', 'u') and conrelid = any($1::regclass[])
    union all
    select format('index %s', pg_get_indexdef(indexrelid, 0, true)) from pg_index where indrelid = any($1::regclass[])
    union all
    select format('trigger %s', pg_get_triggerdef(oid, true)) from pg_trigger
    where not tgisinternal and tgrelid = any($1::regclass[])
    union all
    select format('function %s %s', proname, prosrc) from pg_proc
    where proname = any($2::text[]) and pronamespace = current_schema()::regnamespace
) lines (line)
order by line collate "C"
"""


class Migration(msgspec.Struct, frozen=True):
    """One file: `revision` is its number (four digits), `name` the file's name, `sql` its text."""

    revision: str
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def check_files(migrations: Sequence[Migration], sums: str) -> None:
    """Raise MigrationChanged unless each file is as SHA256SUMS says, and each line has its file."""
    released = {PurePath(name).name: checksum for checksum, name in (line.split() for line in sums.splitlines())}
    found = {migration.name: migration.checksum for migration in migrations}
    for name in sorted(released.keys() | found.keys()):
        if released.get(name) != found.get(name):
            raise MigrationChanged(
                f"the migration {name} is not the one that was released (migrations/SHA256SUMS). Take a whole copy of "
                "this version of Tomada; who develops writes a new migration instead of changing an old one"
            )


async def check_database(
    connection: "asyncpg.Connection[asyncpg.Record]", applied: Sequence[Migration], lock_key: int
) -> None:
    """Raise SchemaDiffers unless the database was made of these very files, which it is said to be at."""
    if not await connection.fetchval(_EXISTS):
        async with connection.transaction():
            await connection.execute("select pg_advisory_xact_lock($1)", lock_key)
            await _take_over(connection, applied)
    recorded = {row["revision"]: row["checksum"] for row in await connection.fetch(_RECORDED)}
    for migration in applied:
        if recorded.get(migration.revision) != migration.checksum:
            raise SchemaDiffers(
                f"this database was made with another text of the migration {migration.name}, so its tables are not "
                "the ones that this Tomada knows. Run the version that made it, or restore a backup that it fits"
            )


async def _take_over(connection: "asyncpg.Connection[asyncpg.Record]", applied: Sequence[Migration]) -> None:
    at = applied[-1].revision
    if at != LAST_UNRECORDED or await fingerprint(connection, applied) != FINGERPRINT_0004:
        raise SchemaDiffers(
            f"this database (at revision {at}) was made by a Tomada from before the first release whose tables were "
            "others than those released under that number. There is no way from it to this version; start with a new "
            "data directory or database"
        )
    await connection.execute(CREATE)
    await connection.executemany(_TAKE, [(it.revision, it.name, it.checksum) for it in applied])


async def fingerprint(connection: "asyncpg.Connection[asyncpg.Record]", migrations: Sequence[Migration]) -> str:
    """Of the tables and functions that these files make, as they are in this database; "" if one is not there."""
    text = "\n".join(migration.sql for migration in migrations)
    tables, functions = (sorted(set(re.findall(rf"(?m)^create {kind} (\w+)", text))) for kind in ("table", "function"))
    try:
        lines = await connection.fetch(_CATALOGS, tables, functions)
    except asyncpg.UndefinedTableError:
        return ""
    return hashlib.sha256("\n".join(row["line"] for row in lines).encode()).hexdigest()
