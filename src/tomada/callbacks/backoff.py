"""When a failed callback is tried again, as pure functions of how long it has been failing.

The pause doubles with the age of the failure: as long as the callback has been failing so far, at least 5 s, at most
3 h, each with +-20 % jitter. So attempts lie at about 0, 5, 10, 20, 40, 80, 160 s ... 2 h 50 min, then every 3 h. After
72 h *and* 10 attempts the callback dies. Age counts, not the number of attempts, so that an outage of our own does not
eat up the receiver's chances, and attempts made early (because a new event came) cost nothing.

The head of a lane holds back what follows, up to `give_way_ms`. From then on each failed try of the head is followed by
one try of the next event: if that succeeds, the head was at fault and is set aside; if it fails, the receiver is down,
and order is kept.
"""

import random  # noqa: TID251 - the type only; the generator is passed in

import msgspec

from tomada.callbacks.types import Attempt

SECOND_MS = 1000
HOUR_MS = 3600 * SECOND_MS
DAY_MS = 24 * HOUR_MS


class Policy(msgspec.Struct, frozen=True):
    """The figures of the schedule; the defaults are the documented ones (docs/callbacks.md, "Retries")."""

    step_min_ms: int = 5 * SECOND_MS
    step_max_ms: int = 3 * HOUR_MS
    jitter: float = 0.2
    window_ms: int = 72 * HOUR_MS
    attempts_min: int = 10
    give_way_ms: int = 60 * SECOND_MS
    early_max_ms: int = 600 * SECOND_MS  # a new event may bring a failing lane forward, but not sooner than this
    disable_after_ms: int = 5 * DAY_MS
    disable_attempts_min: int = 5


def pause_ms(policy: Policy, failing_for_ms: int, rng: random.Random) -> int:
    """How long to wait after a failure, when the first one is `failing_for_ms` ago."""
    step = min(max(failing_for_ms, policy.step_min_ms), policy.step_max_ms)
    return round(step * rng.uniform(1 - policy.jitter, 1 + policy.jitter))


def after_retry_after(policy: Policy, pause: int, retry_after_s: float | None) -> int:
    """The pause, lengthened to what the receiver asked for, which is believed up to the longest step."""
    if retry_after_s is None:
        return pause
    return max(pause, min(round(retry_after_s * SECOND_MS), policy.step_max_ms))


def early_ms(policy: Policy, pause: int, attempt: Attempt) -> int:
    """How long at least a failing lane is left alone although new events come; all of what Retry-After asks for."""
    if attempt.retry_after_s is not None:
        return pause
    return min(pause, max(policy.step_min_ms, pause // 4), policy.early_max_ms)


def is_dead(policy: Policy, attempts: int, failing_for_ms: int) -> bool:
    """Whether a callback that failed `attempts` times, the first one `failing_for_ms` ago, is given up."""
    return attempts >= policy.attempts_min and failing_for_ms >= policy.window_ms


def is_lingering(policy: Policy, failing_for_ms: int) -> bool:
    """Whether the head of a lane has failed long enough for the next event to be tried."""
    return failing_for_ms >= policy.give_way_ms


def is_lost(policy: Policy, lane_failing_for_ms: int, attempts: int) -> bool:
    """Whether a URL is disabled: nothing but failures for days, the present event's among them."""
    return lane_failing_for_ms >= policy.disable_after_ms and attempts >= policy.disable_attempts_min
