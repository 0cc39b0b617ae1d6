"""A host with scripted machines for every test, its processes looked for afterwards."""

from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from tests.integration.hosting.hosting import Hosting
from tomada.postgres.pool import Pool


@pytest.fixture
async def hosting(pool: Pool, tmp_path: Path) -> AsyncIterator[Hosting]:
    """Not started yet; stopped in any case. No machine may be left."""
    hosting = Hosting(pool, tmp_path)
    yield hosting
    await hosting.host.stop()
    left = [child.cmdline() for child in psutil.Process().children() if str(tmp_path) in " ".join(child.cmdline())]
    assert left == []
