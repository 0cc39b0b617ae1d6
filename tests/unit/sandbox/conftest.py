"""Fixtures of the sandbox's unit tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.sandbox.fake_network import Town


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    """A fresh network."""
    made = Town(tmp_path)
    yield made
    await made.network.close()
