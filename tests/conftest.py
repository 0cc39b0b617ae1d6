"""What holds for every test, and in which order the files begin.

`make test` gives files to several workers (pytest-xdist, `--dist loadfile`): tests of one file share its fixtures, and
nothing is shared between workers; each has a PostgreSQL and a product of its own.
"""

from collections.abc import Iterator

import pytest

from tests.children import ended_children, until_none

# Files that take longest, the longest first: one of them begun last would be waited for alone. Others as they come.
LONGEST = (
    "acceptance/test_command_line.py",
    "acceptance/test_kill.py",
    "acceptance/test_accounts.py",
    "acceptance/test_lifecycle_stories.py",
    "acceptance/test_bad_input.py",
    "acceptance/test_contract.py",
    "acceptance/authorization/test_routes.py",
    "integration/hosting/test_with_engine.py",
    "acceptance/test_idempotency.py",
    "integration/lifecycle/test_crash_sweep.py",
    "acceptance/test_lifecycle_crash.py",
    "acceptance/test_lifecycle_anew.py",
    "integration/lifecycle/test_conformance.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; the sort is stable, so within a file nothing moves."""
    begun = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: begun.get(item.path.as_posix().rpartition("/tests/")[2], len(begun)))


@pytest.fixture(scope="module", autouse=True)
def _every_process_is_waited_for() -> Iterator[None]:
    """A file of tests that leaves an ended process behind is named here, not by whichever test meets it later."""
    yield
    assert until_none(ended_children) == []
