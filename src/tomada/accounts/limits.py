"""Limits per minute: the decision, and the buckets that it is taken on.

Counting messages or failed log-ins needs no row: each server keeps a number per key in memory, so that a limit costs
nothing, is lost by a restart and holds per server. What an account may have and create is not here: the statement that
creates an instance checks that itself (instances/store.py).

The number is the time at which the bucket will be full again, so that filling it needs no work and no rounding: taking
one moves that time on by a minute divided by the limit, and it may lie a minute ahead at most.
"""

from tomada.kit.clock import Clock

MINUTE_MS = 60_000.0
KEYS_MAX = 10_000


def admit(full_ms: float, per_minute: int, now_ms: float) -> tuple[float, float]:
    """Takes one out of a bucket that is full again at `full_ms`; returns the same for the bucket to keep, and the wait.

    The wait is 0 if one was taken, else the milliseconds until one can be. A bucket holds a minute's worth. A clock
    that jumps back fills nothing.
    """
    full_ms = max(full_ms, now_ms)
    if per_minute == 0:
        return full_ms, MINUTE_MS
    taken_ms = full_ms + MINUTE_MS / per_minute
    wait_ms = taken_ms - now_ms - MINUTE_MS
    return (full_ms, wait_ms) if wait_ms > 1e-3 else (taken_ms, 0.0)


class Buckets:
    """Buckets by key, at most KEYS_MAX; beyond that the oldest one is forgotten, and is full again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._full_ms: dict[str, float] = {}

    def take(self, key: str, per_minute: int) -> float:
        """Takes one; returns 0, or the seconds to wait if there is none."""
        full_ms, wait_ms = self._admit(key, per_minute)
        self._full_ms.pop(key, None)
        self._full_ms[key] = full_ms
        if len(self._full_ms) > KEYS_MAX:
            del self._full_ms[next(iter(self._full_ms))]
        return wait_ms / 1000

    def wait_s(self, key: str, per_minute: int) -> float:
        """As `take`, taking nothing."""
        return self._admit(key, per_minute)[1] / 1000

    def _admit(self, key: str, per_minute: int) -> tuple[float, float]:
        return admit(self._full_ms.get(key, 0.0), per_minute, self._clock.monotonic_s() * 1000)
