"""One sandbox, one session store and one machine for all tests of this folder; tests that kill take their own."""

import itertools
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tests.integration.hosting.network import running_network
from tests.integration.machines.driven import Driven
from tests.integration.machines.stage import Stage, Store, prepared_store
from tomada.postgres.launcher import EmbeddedServer

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
async def sessions(postgres: EmbeddedServer) -> Store:
    """A session store that is shared, as in the product; nothing else is in its database. One for each folder."""
    name = f"machines_{next(_numbers)}"
    connection = await asyncpg.connect(postgres.dsn)
    try:
        await connection.execute(f"create database {name}")
    finally:
        await connection.close()
    return await prepared_store(postgres.dsn_of(name))


@pytest.fixture(scope="session")
async def stage(sessions: Store) -> AsyncIterator[Stage]:
    """A sandbox process, with that store."""
    with tempfile.TemporaryDirectory(prefix="tomada-machines-") as folder:
        async with running_network(Path(folder) / "sandbox") as network:
            yield Stage(network, sessions, Path(folder))


@pytest.fixture(scope="session")
async def shared(stage: Stage) -> AsyncIterator[Driven]:
    """A machine for tests that leave it well."""
    async with stage.machine("shared") as driven:
        yield driven
        assert await driven.end() == 0


class Pair:
    """Two instances of the shared machine, each paired with its phone."""

    def __init__(self, alice_number: str, bob_number: str) -> None:
        self.alice, self.alice_number = "alice", alice_number
        self.bob, self.bob_number = "bob", bob_number


@pytest.fixture(scope="session")
async def pair(stage: Stage, shared: Driven) -> Pair:
    """Alice and Bob, paired once."""
    return Pair(await stage.paired(shared, "alice", "Alice Sales"), await stage.paired(shared, "bob", "Bob Support"))


@pytest.fixture(autouse=True)
async def _without_faults(stage: Stage) -> AsyncIterator[None]:
    yield
    await stage.network.well()
