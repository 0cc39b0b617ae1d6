"""Both stores, for the conformance suite."""

import pytest

from tests.integration.lifecycle.sides import MemorySide, PostgresSide, Side
from tests.simulation.memory import Account
from tomada.postgres.pool import Pool

ACCOUNT = "ACCOUNT"


@pytest.fixture
async def postgres_side(pool: Pool) -> PostgresSide:
    """PostgreSQL with a clock that stands still, and one account."""
    side = PostgresSide(pool)
    await side.freeze()
    await side.account(ACCOUNT)
    return side


@pytest.fixture(params=["memory", "postgres"])
def side(request: pytest.FixtureRequest) -> Side:
    """One store after the other."""
    if request.param == "postgres":
        found: Side = request.getfixturevalue("postgres_side")
        return found
    memory = MemorySide()
    memory.store.accounts[ACCOUNT] = Account()
    return memory
