"""One sandbox for all tests of this folder; each test takes the machine that it may break."""

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.machines.bench import Bench, running_bench
from tests.integration.machines.driven import Driven


@pytest.fixture(scope="session")
async def bench() -> AsyncIterator[Bench]:
    """A sandbox process."""
    with tempfile.TemporaryDirectory(prefix="tomada-engine-") as folder:
        async with running_bench(Path(folder)) as made:
            yield made


@pytest.fixture(scope="session")
async def well(bench: Bench) -> AsyncIterator[Driven]:
    """A machine for the faults that must not harm it."""
    async with bench.machine("well") as driven:
        yield driven
        assert await driven.end() == 0


@pytest.fixture(autouse=True)
async def _without_faults(bench: Bench) -> AsyncIterator[None]:
    yield
    await bench.no_faults()
