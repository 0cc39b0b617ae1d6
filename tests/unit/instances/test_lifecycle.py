"""Every call in every state, against the table in docs/lifecycle.md, and what holds of all decisions alike."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tomada.errors import TomadaError
from tomada.instances import lifecycle
from tomada.instances.billing import DAY_MS
from tomada.instances.lifecycle import ENDED, LIVE, Change, Standing, State, Terms

DOC = Path(__file__).parents[3] / "docs" / "lifecycle.md"
NOW_MS = 1_773_144_600_000  # 2026-03-10T12:10:00Z
TERMS = Terms()
CALLS: dict[str, Callable[[Standing, int], Change | None]] = {
    "subscribe": lambda s, now: lifecycle.subscribe(s, now, TERMS),
    "subscription/update": lambda s, _now: lifecycle.add_calls(s),
    "cancel": lambda s, now: lifecycle.cancel(s, now, TERMS),
    "delete": lambda s, now: lifecycle.delete(s, now, TERMS),
    "its time comes": lambda s, now: lifecycle.wake(s, now, TERMS),
}


def standing(state: State, **changed: object) -> Standing:
    """An instance in a state, due just now."""
    ended = state not in LIVE
    plain = Standing(
        id="I",
        account_id="A",
        state=state,
        created_ms=NOW_MS - 2 * DAY_MS,
        due_ms=NOW_MS,
        epoch=7,
        revision=3,
        ended_ms=NOW_MS - DAY_MS if ended else None,
        retire_ms=NOW_MS if state in ENDED else None,
    )
    return replace(plain, **changed)


def documented() -> dict[tuple[str, str], str]:
    """(state, call) -> what the documentation's table says."""
    table = DOC.read_text().split("<!-- transitions -->")[1]
    rows = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in table.strip().splitlines()]
    return {(row[0], call): cell for row in rows[2:] for call, cell in zip(rows[0][1:], row[1:], strict=True)}


def outcome(state: State, call: str) -> str:
    """What a call does, in the table's words."""
    try:
        change: Change | None = CALLS[call](standing(state), NOW_MS)
    except TomadaError as error:
        return f"refused: {error.message}"
    if change is None:
        return "nothing"
    return f"→ {change.after.state}" + (", new machine" if change.gains_machine else "")


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("call", list(CALLS))
def test_the_documented_table_is_what_happens(state: State, call: str) -> None:
    """Every cell of the table of transitions."""
    assert documented()[state.value, call] == outcome(state, call)


instants = st.integers(min_value=0, max_value=4_000_000_000_000)
standings = st.builds(
    Standing,
    id=st.just("I"),
    account_id=st.just("A"),
    state=st.sampled_from(State),
    created_ms=instants,
    due_ms=instants,
    epoch=st.integers(1, 9),
    revision=st.integers(0, 9),
    with_calls=st.booleans(),
    ended_ms=st.none() | instants,
    retire_ms=st.none() | instants,
    suspended_until_ms=st.none() | instants,
).map(lambda s: replace(s, retire_ms=(s.retire_ms or 0) if s.state in ENDED else None))


@given(standings, instants, st.sampled_from(sorted(CALLS)))
def test_every_change_keeps_the_rules(before: Standing, now_ms: int, call: str) -> None:
    """One revision more; the epoch grows exactly with the machine or the end; it holds now; identity never changes."""
    try:
        change = CALLS[call](before, now_ms)
    except TomadaError:
        return
    if change is None:
        return
    after = change.after
    assert after.revision == before.revision + 1
    assert after.epoch - before.epoch == ((before.state in LIVE) != (after.state in LIVE) or after.state == "deleted")
    assert change.from_ms <= now_ms < change.until_ms
    assert (after.id, after.account_id, after.created_ms) == (before.id, before.account_id, before.created_ms)
    assert (after.retire_ms is not None) == (after.state in ENDED)
    assert before.state is not State.DELETED


@given(standings, instants)
def test_time_ends_nothing_early_and_settles(before: Standing, now_ms: int) -> None:
    """A sweep acts exactly on what is due, and a few sweeps reach a state in which nothing is."""
    change = lifecycle.wake(before, now_ms, TERMS)
    due_ms = lifecycle.next_ms(before)
    assert (change is not None) == (due_ms is not None and due_ms <= now_ms)
    for _ in range(3):
        if change is None:
            return
        change = lifecycle.wake(change.after, now_ms, TERMS)
    assert change is None


@given(standings, instants)
def test_nothing_but_a_due_time_takes_a_machine(before: Standing, now_ms: int) -> None:
    """No call of a partner takes a live instance's machine: only time does."""
    for call in ("subscribe", "subscription/update", "cancel", "delete"):
        try:
            change = CALLS[call](before, now_ms)
        except TomadaError:
            continue
        if change is not None and before.state in LIVE:
            assert change.after.state in LIVE
