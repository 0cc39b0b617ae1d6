"""Backoff and pace are arithmetic; these are their laws."""

from random import Random  # noqa: TID251 - seeded

import pytest

from tomada.machines.backoff import Pace, full_jitter_s, half_jitter_s, recovery_rate


@pytest.mark.parametrize(
    ("attempt", "window_s"),
    [(1, 2.0), (2, 4.0), (5, 32.0), (8, 256.0), (9, 300.0), (1_000_000, 300.0)],
)
def test_full_jitter_fills_its_window_and_no_more(attempt: int, window_s: float) -> None:
    """Waits lie anywhere between nothing and the window, which doubles up to five minutes and never overflows."""
    rng = Random(1)

    waits = [full_jitter_s(attempt, rng) for _ in range(2000)]

    assert 0 <= min(waits) < 0.05 * window_s
    assert 0.95 * window_s < max(waits) <= window_s


def test_half_jitter_is_never_too_soon() -> None:
    """A machine that keeps dying waits at least half of its window, and at most a minute."""
    rng = Random(1)

    assert all(4.0 <= half_jitter_s(4, rng) <= 8.0 for _ in range(500))
    assert all(30.0 <= half_jitter_s(99, rng) <= 60.0 for _ in range(500))


def test_a_pace_lets_a_burst_go_and_then_counts() -> None:
    """After a quiet time `burst` go at once, then one every 1/rate seconds; quiet time is not saved up beyond that."""
    pace = Pace(burst=3)

    waits = [pace.reserve(100.0, rate=10.0) for _ in range(6)]

    assert waits == pytest.approx([0.0, 0.0, 0.0, 0.1, 0.2, 0.3])
    assert [pace.reserve(1000.0, rate=10.0) for _ in range(4)] == pytest.approx([0.0, 0.0, 0.0, 0.1])


def test_the_recovery_rate_is_a_share_of_the_node_with_a_floor() -> None:
    """Large nodes recover at 3 % a second; a small one is not made to wait minutes for a handful."""
    assert recovery_rate(500) == 15.0
    assert recovery_rate(3) == 5.0
