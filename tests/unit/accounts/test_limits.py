"""An account's limits per minute."""

from hypothesis import given
from hypothesis import strategies as st

from tomada.accounts import limits
from tomada.accounts.limits import Buckets, admit


class HeldClock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.s = 1000.0

    def now_ms(self) -> int:
        return int(self.s * 1000)

    def monotonic_s(self) -> float:
        return self.s


def test_a_minute_s_worth_at_once_then_evenly() -> None:
    """60 a minute: sixty now, the next after a second."""
    full_ms = 0.0
    for _ in range(60):
        full_ms, wait_ms = admit(full_ms, 60, 1000)
        assert wait_ms == 0
    full_ms, wait_ms = admit(full_ms, 60, 1000)
    assert wait_ms == 1000
    assert admit(full_ms, 60, 1999)[1] == 1
    assert admit(full_ms, 60, 2000)[1] == 0


def test_zero_means_none() -> None:
    """An account that may send nothing is told to wait, never divided by."""
    assert admit(0.0, 0, 0)[1] > 0


def test_asking_often_costs_nothing() -> None:
    """One a minute, asked every millisecond: the second is taken after exactly a minute."""
    full_ms, _ = admit(0.0, 1, 0)
    for now_ms in range(1, 60_000, 7):
        full_ms, wait_ms = admit(full_ms, 1, now_ms)
        assert wait_ms > 0
    assert admit(full_ms, 1, 60_000)[1] == 0


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=300), st.integers(1, 120))
def test_never_more_than_two_minutes_worth_in_a_minute(steps_ms: list[int], rate: int) -> None:
    """A full bucket plus a minute's filling bounds any window of a minute."""
    full_ms, now_ms = 0.0, 0
    sent: list[int] = []
    for step_ms in steps_ms:
        now_ms += step_ms
        full_ms, wait_ms = admit(full_ms, rate, now_ms)
        if wait_ms == 0:
            sent.append(now_ms)
    for first in sent:
        assert sum(first <= when < first + 60_000 for when in sent) <= 2 * rate


def test_each_key_has_its_own_bucket_and_all_are_bounded() -> None:
    """One key's use is not another's; beyond the bound the oldest key is forgotten."""
    clock = HeldClock()
    buckets = Buckets(clock)
    assert buckets.take("a", 1) == 0
    assert buckets.take("a", 1) == 60
    assert buckets.take("b", 1) == 0
    assert buckets.wait_s("c", 1) == 0
    assert buckets.take("c", 1) == 0
    clock.s += 60
    assert buckets.take("a", 1) == 0
    for number in range(limits.KEYS_MAX):
        buckets.take(str(number), 1)
    assert buckets.wait_s("a", 1) == 0
    assert len(buckets._full_ms) == limits.KEYS_MAX
