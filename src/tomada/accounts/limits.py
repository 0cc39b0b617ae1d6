"""An account's limits per time, as decisions: instances created per day, messages sent per minute.

How many instances it may have at once is not here: the statement that creates one, or that gives an ended one a new
machine, checks `account.instances_live` itself, because only that holds in a race. These two may be off by a few.
Counting messages needs no row: each server keeps a `Bucket` per account and asks `admit`.
"""

from msgspec import Struct

from tomada.errors import LimitReached

MINUTE_MS = 60_000


class Limits(Struct, frozen=True, kw_only=True):
    """What the account's row allows."""

    created_per_day_max: int = 1000
    messages_per_minute_max: int = 600


class Bucket(Struct, frozen=True):
    """Messages that may be sent at once, as thousandths, and when that was true."""

    milli: int
    at_ms: int


def check_created_today(limits: Limits, created_today: int) -> None:
    """Raises LimitReached if one more instance would be too many; counts the last 24 hours, deleted ones included."""
    if created_today >= limits.created_per_day_max:
        raise LimitReached(f"This account may create {limits.created_per_day_max} instances a day")


def admit(bucket: Bucket | None, limits: Limits, now_ms: int) -> tuple[Bucket, int]:
    """Takes one message out of the account's bucket; returns the bucket to keep, and 0 or the milliseconds to wait.

    A bucket holds a minute's worth and fills evenly. A clock that jumps back fills nothing and takes nothing.
    """
    rate = limits.messages_per_minute_max
    full = rate * 1000
    if bucket is None:
        bucket = Bucket(full, now_ms)
    passed_ms = max(0, now_ms - bucket.at_ms)
    milli = min(full, bucket.milli + passed_ms * full // MINUTE_MS)
    if milli >= 1000:
        return Bucket(milli - 1000, now_ms), 0
    if rate == 0:
        return Bucket(0, now_ms), MINUTE_MS
    return Bucket(milli, now_ms), -(-(1000 - milli) * MINUTE_MS // full)
