"""W8, the rules alone: what becomes of a batch for every pattern of answers."""

import random  # noqa: TID251 - seeded

from hypothesis import given
from hypothesis import strategies as st

from tomada.callbacks.backoff import Policy
from tomada.callbacks.sending import Batch
from tomada.callbacks.types import Attempt, Delivered, Failed, Lane, Settlement, Waiting

MINUTE_MS = 60_000


def waiting(position: int, failing_for_ms: int = 0, attempts: int = 0, aside: bool = False) -> Waiting:
    """A callback in a lane."""
    return Waiting(position, f"evt_{position}", position, "{}", 0, attempts, failing_for_ms, aside, False)


def run(callbacks: list[Waiting], statuses: list[int | None], lane_failing_for_ms: int = 0) -> Settlement:
    """Send a batch whose answers are given."""
    lane = Lane(
        1, 1, "i", "a", "https://x.example", "x:443", 99, False, lane_failing_for_ms, None, b"", b"", tuple(callbacks)
    )
    batch = Batch(Policy(), lane, random.Random(1))
    for callback, status in zip(callbacks, statuses, strict=True):
        if not batch.goes_on:
            break
        ok = status is not None and 200 <= status < 300
        batch.add(callback, Attempt(0, 0, status, None if ok else "status"))
    return batch.settlement()


def told(settlement: Settlement) -> list[tuple[int, str]]:
    """Position and fate of every outcome."""

    def fate(outcome: Delivered | Failed) -> str:
        if isinstance(outcome, Delivered):
            return "delivered"
        return "dead" if outcome.dead else "aside" if outcome.aside_for_ms is not None else "held"

    return [(o.callback.position, fate(o)) for o in settlement.outcomes]


def test_all_well() -> None:
    """Everything is delivered and nothing is due."""
    settlement = run([waiting(1), waiting(2)], [200, 204])
    assert told(settlement) == [(1, "delivered"), (2, "delivered")]
    assert settlement.again_in_ms is None


def test_a_young_failing_head_holds_back_the_rest() -> None:
    """The batch stops at once; the lane is due after the pause."""
    settlement = run([waiting(1), waiting(2)], [500, 200])
    assert told(settlement) == [(1, "held")]
    assert settlement.again_in_ms is not None
    assert 4_000 <= settlement.again_in_ms <= 6_000


def test_a_lingering_head_gives_way_if_the_next_succeeds() -> None:
    """After the stated time the next is tried; it succeeds, so the head is set aside and the lane goes on."""
    settlement = run([waiting(1, MINUTE_MS, 5), waiting(2), waiting(3)], [500, 200, 200])
    assert told(settlement) == [(1, "aside"), (2, "delivered"), (3, "delivered")]
    assert settlement.again_in_ms is None


def test_order_is_kept_if_the_receiver_is_down() -> None:
    """The next event fails too: nobody gives way, and the head will be tried first again."""
    settlement = run([waiting(1, MINUTE_MS, 5), waiting(2), waiting(3)], [500, None, 200])
    assert told(settlement) == [(1, "held"), (2, "held")]
    assert settlement.again_in_ms is not None


def test_an_event_set_aside_holds_back_nobody() -> None:
    """Failing again, it gets another due time; the lane goes on."""
    settlement = run([waiting(1, 10 * MINUTE_MS, 7, aside=True), waiting(2)], [500, 200])
    assert told(settlement) == [(1, "aside"), (2, "delivered")]


def test_a_dead_head_makes_room() -> None:
    """Its attempts used up, it goes to the dead letters, and the next is tried."""
    settlement = run([waiting(1, 72 * 60 * MINUTE_MS, 36), waiting(2)], [500, 200])
    assert told(settlement) == [(1, "dead"), (2, "delivered")]


def test_410_disables_at_once() -> None:
    """Gone means gone."""
    settlement = run([waiting(1), waiting(2)], [410, 200])
    assert settlement.disable == "410 gone"


def test_days_of_failures_disable() -> None:
    """Five days of nothing but failures, the present event's among them."""
    days = 5 * 24 * 60 * MINUTE_MS
    assert run([waiting(1, MINUTE_MS, 5)], [500], lane_failing_for_ms=days).disable == "failed for days"
    assert run([waiting(1, 0, 0)], [500], lane_failing_for_ms=days).disable is None
    assert run([waiting(1, MINUTE_MS, 5)], [500], lane_failing_for_ms=days - 1).disable is None


@given(
    statuses=st.lists(st.sampled_from([200, 500, None]), min_size=1, max_size=8),
    ages=st.lists(st.sampled_from([0, 30_000, 90_000, 10_000_000, 300_000_000]), min_size=8, max_size=8),
    asides=st.integers(0, 3),
)
def test_nothing_overtakes_unless_the_overtaken_is_set_aside(
    statuses: list[int | None], ages: list[int], asides: int
) -> None:
    """Whatever the answers: what was delivered after a failure in the same batch means the failed one is out of line.

    And the lane is always due again if something in it is still held or unsent.
    """
    callbacks = [
        waiting(n, ages[n], 12 if ages[n] else 0, aside=n < asides and ages[n] > 0) for n in range(len(statuses))
    ]
    settlement = run(callbacks, statuses)
    fates = told(settlement)
    for index, (_, fate) in enumerate(fates):
        if fate == "held":
            assert all(later != "delivered" for _, later in fates[index + 1 :])
    held = any(fate == "held" for _, fate in fates)
    assert (settlement.again_in_ms is not None) == (held or len(fates) < len(callbacks))
    assert [position for position, _ in fates] == list(range(len(fates)))
