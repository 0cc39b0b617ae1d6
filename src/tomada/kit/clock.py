"""Real time, passed in, so that tests and simulations can hold it in their hands.

Two kinds of time exist in Tomada. Lifecycle time (trial, subscription, deletion) is the database's and is read by SQL
alone (`lifecycle_now_ms()`), because one referee must count. Everything else (retries, logs, event times) uses a Clock.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time."""

    def now_ms(self) -> int:
        """Wall-clock time in epoch milliseconds; may jump."""

    def monotonic_s(self) -> float:
        """Seconds that only grow, for deadlines."""


class SystemClock:
    """The machine's own clock."""

    def now_ms(self) -> int:
        """Epoch milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()
