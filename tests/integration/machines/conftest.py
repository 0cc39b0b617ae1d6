"""One sandbox and one machine for all tests of this folder; tests that kill take a machine of their own."""

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.machines.bench import Bench, running_bench
from tests.integration.machines.driven import Driven


@pytest.fixture(scope="session")
async def bench() -> AsyncIterator[Bench]:
    """A sandbox process."""
    with tempfile.TemporaryDirectory(prefix="tomada-machines-") as folder:
        async with running_bench(Path(folder)) as made:
            yield made


@pytest.fixture(scope="session")
async def shared(bench: Bench) -> AsyncIterator[Driven]:
    """A machine for tests that leave it well."""
    async with bench.machine("shared", "--probe-deadline-s", "2") as driven:
        yield driven
        assert await driven.end() == 0


class Pair:
    """Two instances of the shared machine, each paired with its phone."""

    def __init__(self, alice_number: str, bob_number: str) -> None:
        self.alice, self.alice_number = "alice", alice_number
        self.bob, self.bob_number = "bob", bob_number


@pytest.fixture(scope="session")
async def pair(bench: Bench, shared: Driven) -> Pair:
    """Alice and Bob, paired once."""
    return Pair(await bench.paired(shared, "alice", "Alice Sales"), await bench.paired(shared, "bob", "Bob Support"))


@pytest.fixture(autouse=True)
async def _without_faults(bench: Bench) -> AsyncIterator[None]:
    yield
    await bench.no_faults()
