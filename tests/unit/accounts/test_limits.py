"""An account's limits per time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomada.accounts.limits import Bucket, Limits, admit, check_created_today
from tomada.errors import LimitReached


def test_the_limit_of_a_day_is_the_last_one_allowed() -> None:
    """With 10 a day, the tenth is made and the eleventh refused."""
    limits = Limits(created_per_day_max=10)
    check_created_today(limits, 9)
    with pytest.raises(LimitReached):
        check_created_today(limits, 10)


def test_a_minute_s_worth_at_once_then_evenly() -> None:
    """60 a minute: sixty now, the next after a second."""
    limits, bucket = Limits(messages_per_minute_max=60), None
    for _ in range(60):
        bucket, wait_ms = admit(bucket, limits, 1000)
        assert wait_ms == 0
    bucket, wait_ms = admit(bucket, limits, 1000)
    assert wait_ms == 1000
    assert admit(bucket, limits, 1999)[1] == 1
    assert admit(bucket, limits, 2000)[1] == 0


def test_zero_means_none() -> None:
    """An account that may send nothing is told to wait, never divided by."""
    assert admit(None, Limits(messages_per_minute_max=0), 0)[1] > 0


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=300), st.integers(1, 120))
def test_never_more_than_two_minutes_worth_in_a_minute(steps_ms: list[int], rate: int) -> None:
    """Full bucket plus a minute's filling bounds any window of a minute; polling often loses nothing by rounding."""
    limits, bucket, now_ms = Limits(messages_per_minute_max=rate), None, 0
    sent: list[int] = []
    for step_ms in steps_ms:
        now_ms += step_ms
        bucket, wait_ms = admit(bucket, limits, now_ms)
        assert isinstance(bucket, Bucket)
        if wait_ms == 0:
            sent.append(now_ms)
    for first in sent:
        assert sum(first <= when < first + 60_000 for when in sent) <= 2 * rate
