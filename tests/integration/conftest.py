"""A real PostgreSQL for every integration test: one embedded server per run, one fresh database per test.

`database` gives a test its own migrated database, cloned from a template (some 30 ms), dropped afterwards whatever
connections the test left open; the machines' session store is in it, made by the machine program itself. `pool` is a
pool on it. The server itself runs without fsync: tests kill processes, not
the computer; what fsync is for is not testable here anyway.
"""

import itertools
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tomada.kit import machine_program
from tomada.machines.program import STORE_VARIABLE, prepared
from tomada.postgres.launcher import EmbeddedServer, embedded_server
from tomada.postgres.machine_role import machine_dsn
from tomada.postgres.migrate import migrate
from tomada.postgres.pool import Pool, connect

_TEMPLATE = "template_migrated"
# No autovacuum: its workers are the superuser's, and the owner may not drop a database in which one is at work.
_FAST = {"fsync": "off", "full_page_writes": "off", "max_connections": "100", "autovacuum": "off"}
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
async def postgres() -> AsyncIterator[EmbeddedServer]:
    """The embedded server of this test run, in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="tomada-tests-") as folder:
        async with embedded_server(Path(folder) / "postgres", settings=_FAST) as server:
            yield server


@pytest.fixture(scope="session")
async def migrated_template(postgres: EmbeddedServer) -> str:
    """The name of a migrated, empty database to clone from."""
    await _run(postgres, f"create database {_TEMPLATE}")
    dsn = postgres.dsn_of(_TEMPLATE)
    await migrate(dsn)
    await prepared(machine_program.locate(os.environ), {STORE_VARIABLE: await machine_dsn(dsn, None)})
    return _TEMPLATE


@pytest.fixture
async def database(postgres: EmbeddedServer, migrated_template: str) -> AsyncIterator[str]:
    """The DSN of a fresh, migrated database for one test."""
    name = f"test_{next(_numbers)}"
    await _run(postgres, f"create database {name} template {migrated_template} strategy wal_log")
    yield postgres.dsn_of(name)
    await _run(postgres, f"drop database {name} with (force)")


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    """A pool on `database`."""
    pool = await connect(database)
    yield pool
    pool.terminate()


async def _run(server: EmbeddedServer, sql: str) -> None:
    connection = await asyncpg.connect(server.dsn)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()
