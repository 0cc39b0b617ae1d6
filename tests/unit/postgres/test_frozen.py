"""The files of the migrations against SHA256SUMS."""

import pytest

from tomada.postgres.errors import MigrationChanged
from tomada.postgres.frozen import Migration, check_files
from tomada.postgres.migrate import load_migrations

FIRST, SECOND = Migration("0001", "0001_a.sql", "select 1;"), Migration("0002", "0002_b.sql", "select 2;")
SUMS = f"{FIRST.checksum}  0001_a.sql\n{SECOND.checksum}  0002_b.sql\n"


def test_the_files_of_this_tree_are_as_they_were_released() -> None:
    """Loading looks; a file that was changed, forgotten or added without a line does not get past here."""
    assert load_migrations()
    check_files([FIRST, SECOND], SUMS)


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ([FIRST, Migration("0002", "0002_b.sql", "select 3;")], "0002_b.sql"),
        ([FIRST], "0002_b.sql"),
        ([FIRST, SECOND, Migration("0003", "0003_c.sql", "select 3;")], "0003_c.sql"),
    ],
)
def test_a_file_that_is_not_the_released_one_is_named(files: list[Migration], name: str) -> None:
    """Changed, missing, not listed."""
    with pytest.raises(MigrationChanged, match=name):
        check_files(files, SUMS)
