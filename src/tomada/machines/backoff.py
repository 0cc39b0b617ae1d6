"""When a session may connect: two paces, because a restart of ours and an outage of WhatsApp are different things.

An orderly start (boot, a machine that died) happens on our side alone: WhatsApp is well, and every second a session
waits is a second in which its owner is offline. So openings are only paced, by a bucket: 50 a second bring 200
sessions back in 4 s and never load the machines' serial start.

A failure (refused, cut off, no answer) may be an outage that has thrown out every session at the same instant. If all
tried again together, they would return as a wave, fail together and come again: a storm that we make ourselves and
that keeps a weak service down. Two things prevent it, and each is needed:

- *Full jitter*: before attempt n a session waits a random time between 0 and min(cap, base * 2**n). That spreads a
  long outage's sessions evenly over the cap (5 minutes). It does not spread a short one: the first windows are small.
- *The recovery pace*: the node as a whole lets at most 3 % of its sessions (but at least five) try in any second,
  evenly spaced. This bounds every second, whatever the dice say, and adds up over nodes because it is a share.

Nobody gives up: attempts are counted only to widen the window.

All here is arithmetic over a time that is passed in; tests/unit/machines/test_storm.py runs it in virtual time.
"""

from random import Random  # noqa: TID251 - the type of what is passed in

BASE_S = 2.0
CAP_S = 300.0
RECOVERY_SHARE_PER_S = 0.03  # well below the promised 5 %: on a busy computer, timers that were apart fire together
RECOVERY_RATE_MIN = 5.0  # a second; on a small node a share would mean minutes for a handful of sessions


def full_jitter_s(attempt: int, rng: Random, base_s: float = BASE_S, cap_s: float = CAP_S) -> float:
    """Seconds to wait before attempt `attempt` (1 = the first after a failure)."""
    doublings = min(max(attempt, 1), 32)  # 2**32 is past every cap; keeps the power small for ever
    return rng.uniform(0.0, min(cap_s, base_s * 2.0 ** (doublings - 1)))


def half_jitter_s(attempt: int, rng: Random, base_s: float = 1.0, cap_s: float = 60.0) -> float:
    """For a single thing that must not be tried too soon (a machine that keeps dying): between half and all of it."""
    window_s = min(cap_s, base_s * 2.0 ** (min(max(attempt, 1), 32) - 1))
    return rng.uniform(window_s / 2, window_s)


def recovery_rate(sessions: int) -> float:
    """Openings a second that a node with so many sessions allows itself after failures."""
    return max(RECOVERY_RATE_MIN, RECOVERY_SHARE_PER_S * sessions)


class Pace:
    """A bucket of openings, kept as the time at which the next one is due (the generic cell rate algorithm).

    `reserve` never refuses: it says how long to wait, and the place in the line is taken. So the line is as long as
    the number of callers, and no queue exists that could overflow.
    """

    def __init__(self, burst: int = 1) -> None:
        """`burst`: how many may go at once after a quiet time."""
        self._burst = burst
        self._due_s = float("-inf")

    def reserve(self, now_s: float, rate: float) -> float:
        """Take the next place at `rate` a second; returns the seconds to wait for it."""
        step_s = 1.0 / rate
        self._due_s = max(self._due_s, now_s - (self._burst - 1) * step_s) + step_s
        return max(0.0, self._due_s - step_s - now_s)
