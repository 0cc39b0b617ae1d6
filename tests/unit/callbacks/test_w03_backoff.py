"""W3: retries over at least 72 h, at least 10 attempts, +-20 % jitter, Retry-After honoured within limits."""

import random  # noqa: TID251 - seeded by hypothesis
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomada.callbacks import backoff
from tomada.callbacks.backoff import HOUR_MS, Policy
from tomada.callbacks.types import Attempt

POLICY = Policy()


def simulate(seed: int, attempt_ms: int = 0) -> list[int]:
    """The times of all attempts at a callback that always fails, on a clock of numbers."""
    rng = random.Random(seed)
    times = [0]
    now_ms = attempt_ms
    while not backoff.is_dead(POLICY, len(times), now_ms):
        now_ms += backoff.pause_ms(POLICY, now_ms, rng)
        times.append(now_ms)
        now_ms += attempt_ms
    return times


@given(seed=st.integers(0, 2**32), attempt_ms=st.sampled_from([0, 5, 30_000]))
def test_the_window_is_72_hours_and_at_least_10_attempts(seed: int, attempt_ms: int) -> None:
    """Whatever the jitter, the last attempt is 72 h or more after the first, and not a whole step later."""
    times = simulate(seed, attempt_ms)
    assert len(times) >= 10
    assert 72 * HOUR_MS <= times[-1] + attempt_ms <= 72 * HOUR_MS + round(3.6 * HOUR_MS) + attempt_ms


@given(seed=st.integers(0, 2**32))
def test_pauses_double_within_their_jitter(seed: int) -> None:
    """Each pause is the age of the failure (5 s to 3 h) +-20 %, so the steps grow to 3 h and stay there."""
    times = simulate(seed)
    for before, after in pairwise(times):
        step = min(max(before, 5_000), 3 * HOUR_MS)
        assert 0.8 * step - 1 <= after - before <= 1.2 * step + 1


@given(age=st.integers(0, 100 * HOUR_MS), later=st.integers(0, 100 * HOUR_MS))
def test_steps_without_jitter_never_shrink(age: int, later: int) -> None:
    """An older failure never waits less."""
    still = Policy(jitter=0.0)
    rng = random.Random(0)
    assert backoff.pause_ms(still, age, rng) <= backoff.pause_ms(still, age + later, rng)


def test_jitter_spreads() -> None:
    """A thousand callbacks that failed together come back over the whole +-20 %."""
    pauses = [backoff.pause_ms(POLICY, HOUR_MS, random.Random(seed)) / HOUR_MS for seed in range(1000)]
    assert min(pauses) < 0.82
    assert max(pauses) > 1.18


@pytest.mark.parametrize(("asked_s", "expected_ms"), [(None, 5_000), (1, 5_000), (60, 60_000), (10**9, 3 * HOUR_MS)])
def test_retry_after_lengthens_the_pause_within_limits(asked_s: float | None, expected_ms: int) -> None:
    """It is never shortened, and never longer than the longest step."""
    assert backoff.after_retry_after(POLICY, 5_000, asked_s) == expected_ms


def test_an_outage_of_our_own_uses_up_nothing() -> None:
    """A callback that is old but was tried only a few times is not dead."""
    assert not backoff.is_dead(POLICY, 9, 1000 * HOUR_MS)
    assert backoff.is_dead(POLICY, 10, 72 * HOUR_MS)


def test_new_events_bring_a_failing_lane_forward_but_not_too_soon() -> None:
    """A quarter of the pause, at most ten minutes; all of what Retry-After asked for."""
    failed = Attempt(0, 0, 500, "status 500")
    assert backoff.early_ms(POLICY, 5_000, failed) == 5_000
    assert backoff.early_ms(POLICY, 160_000, failed) == 40_000
    assert backoff.early_ms(POLICY, 3 * HOUR_MS, failed) == 600_000
    asked = Attempt(0, 0, 503, "status 503", retry_after_s=3600)
    assert backoff.early_ms(POLICY, HOUR_MS, asked) == HOUR_MS
