"""A host with scripted machines for every test, its processes looked for afterwards."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.children import children_of
from tests.integration.hosting.hosting import Hosting
from tomada.postgres.pool import Pool


@pytest.fixture
async def hosting(pool: Pool, tmp_path: Path) -> AsyncIterator[Hosting]:
    """Not started yet; stopped in any case. No machine may be left."""
    hosting = Hosting(pool, tmp_path)
    yield hosting
    await hosting.host.stop()
    assert children_of(tmp_path) == []
