"""A receiver in a process of its own for every callback test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.receiver import Receiver


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    """A receiver; its own record is what decides."""
    receiver = Receiver(tmp_path)
    yield receiver
    receiver.close()
