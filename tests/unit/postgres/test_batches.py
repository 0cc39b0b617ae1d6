"""A batch that is refused: whose fault it was is found out, and no further than that can be known."""

from collections.abc import Sequence

import asyncpg
import pytest

from tomada.errors import OutcomeUnknown
from tomada.postgres.batches import write_in_halves


class Database:
    """Refuses a batch that holds one of these numbers; what it took and how often it was asked."""

    def __init__(self, error: Exception, bad: set[int]) -> None:
        self.taken: list[int] = []
        self.asked = 0
        self._error, self._bad = error, bad

    async def write(self, numbers: Sequence[int]) -> str:
        self.asked += 1
        if self._bad & set(numbers):
            raise self._error
        self.taken += numbers
        return "written"


async def outcomes(database: Database, count: int) -> dict[int, str | Exception]:
    """What each of so many numbers was answered."""
    return {number: result async for part, result in write_in_halves(range(count), database.write) for number in part}


@pytest.mark.parametrize("error", [asyncpg.UniqueViolationError("x"), asyncpg.RaiseError("x"), KeyError("x")])
async def test_the_one_to_blame_is_found_and_the_rest_is_written_in_order(error: Exception) -> None:
    """Whether the error is of the data, a trigger's, or ours: it may be one row's, so it is looked for."""
    database = Database(error, {5})

    answers = await outcomes(database, 100)

    assert database.taken == [number for number in range(100) if number != 5]
    assert {number for number, result in answers.items() if result is error} == {5}
    assert database.asked < 20


@pytest.mark.parametrize(
    "error", [asyncpg.ReadOnlySQLTransactionError("x"), asyncpg.DiskFullError("x"), OutcomeUnknown(), OSError()]
)
async def test_what_the_server_says_about_itself_is_said_once(error: Exception) -> None:
    """Halves would hear the same: a read-only database must not be asked 200 times for 100 rows."""
    database = Database(error, set(range(100)))

    answers = await outcomes(database, 100)

    assert database.asked == 1
    assert set(answers.values()) == {error}


async def test_nothing_to_write() -> None:
    """Nobody is asked."""
    database = Database(OSError(), set())

    assert await outcomes(database, 0) == {}
    assert database.asked == 0
