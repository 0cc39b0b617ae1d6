"""What holds for every test."""

from collections.abc import Iterator

import pytest

from tests.children import ended_children, until_none


@pytest.fixture(scope="module", autouse=True)
def _every_process_is_waited_for() -> Iterator[None]:
    """A file of tests that leaves an ended process behind is named here, not by whichever test meets it later."""
    yield
    assert until_none(ended_children) == []
