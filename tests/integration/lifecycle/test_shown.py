"""What the wire reads and shows of an instance is what the lifecycle's decisions and their documentation say."""

import re
from pathlib import Path

import msgspec
import pytest

from tests.integration.lifecycle.conftest import ACCOUNT
from tests.integration.lifecycle.sides import START_MS, PostgresSide
from tomada.errors import SubscriptionNeeded, TomadaError
from tomada.instances import lifecycle
from tomada.instances.authorize import require_usable
from tomada.instances.lifecycle import State
from tomada.instances.model import Instance
from tomada.instances.store import InstanceStore
from tomada.wire.replies import payment_status

DOC = Path(__file__).parents[3] / "docs" / "lifecycle.md"
SHOWN = [state for state in State if state is not State.DELETED]


async def put(side: PostgresSide, state: State, due_ms: int, suspended_until_ms: int | None) -> Instance:
    """The instance I, as the wire reads it."""
    await side.pool.execute(
        "update instance set state = $1, due_ms = $2, suspended_until_ms = $3, retire_ms = 0 where id = 'I'",
        *(state, due_ms, suspended_until_ms),
    )
    found = await InstanceStore(side.pool).find("I")
    assert found is not None
    return found.instance


async def test_it_serves_exactly_when_the_lifecycle_says_so(postgres_side: PostgresSide) -> None:
    """Every state, before and at its due, with the account suspended and not."""
    await postgres_side.create(ACCOUNT, "I")
    for state in SHOWN:
        for due_ms in (START_MS - 1, START_MS, START_MS + 1):
            for suspended_until_ms in (None, START_MS - 1, START_MS + 1):
                instance = await put(postgres_side, state, due_ms, suspended_until_ms)
                standing = await postgres_side.standing("I")
                assert _refusal(lambda: lifecycle.check_serves(standing, START_MS)) == _refusal(  # noqa: B023
                    lambda: require_usable(instance)  # noqa: B023
                ), (state, due_ms, suspended_until_ms)


async def test_the_documentation_s_table_is_what_is_shown(postgres_side: PostgresSide) -> None:
    """paymentStatus and subscribed of every state; PENDING if suspended; after due, what a sweep will write."""
    await postgres_side.create(ACCOUNT, "I")
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (\w+) \|", DOC.read_text().split("<!-- shown -->")[1], re.MULTILINE)
    later_ms = START_MS + 1
    found = []
    for state in SHOWN:
        instance = await put(postgres_side, state, later_ms, None)
        subscribed = "absent" if state is State.TRIAL else str(instance.subscribed).lower()
        found.append((state.value, payment_status(instance), subscribed))
    assert found == rows
    statuses = {name: status for name, status, _subscribed in rows}
    for live in lifecycle.LIVE:
        assert payment_status(await put(postgres_side, live, later_ms, later_ms)) == "PENDING"
    for before, after in (("trial", "expired"), ("active", "active"), ("in_cancellation", "canceled")):
        assert payment_status(await put(postgres_side, State(before), START_MS, None)) == statuses[after]
    for ended in lifecycle.ENDED:
        assert payment_status(await put(postgres_side, ended, START_MS, later_ms)) == statuses[ended]


@pytest.mark.parametrize("state", list(State))
async def test_the_generated_column_is_the_decision_s(postgres_side: PostgresSide, state: State) -> None:
    """`instance.next_ms` and lifecycle.next_ms are one."""
    await postgres_side.create(ACCOUNT, "I")
    for due_ms, suspended_until_ms, retire_ms in ((5, None, 9), (5, 3, 9), (5, 7, 9), (5, 3, None)):
        next_ms = await postgres_side.pool.fetchval(
            "update instance set state = $1, due_ms = $2, suspended_until_ms = $3, retire_ms = $4 where id = 'I'"
            " returning next_ms",
            *(state, due_ms, suspended_until_ms, retire_ms),
        )
        standing = msgspec.structs.replace(
            await postgres_side.standing("I"),
            state=state,
            due_ms=due_ms,
            suspended_until_ms=suspended_until_ms,
            retire_ms=retire_ms,
        )
        assert next_ms == lifecycle.next_ms(standing)


def _refusal(check: object) -> type[TomadaError] | None:
    assert callable(check)
    try:
        check()
    except SubscriptionNeeded as error:
        return type(error)
    return None
