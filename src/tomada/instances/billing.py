"""When a billing cycle ends: the first instant of the next month in the operator's time zone.

All instances subscribed from the first to the last day of a month share one invoice (the partner page; see
docs/lifecycle.md), so a cycle is a calendar month and nothing is pro rata. A month is a local thing: it may be an hour
shorter or longer, and in some zones its first midnight does not exist; then the cycle ends at the first instant there
is.
"""

from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@lru_cache(maxsize=32)
def billing_zone(name: str) -> ZoneInfo:
    """The zone called `name` in the tz database; raises zoneinfo.ZoneInfoNotFoundError at start, not at month's end."""
    return ZoneInfo(name)


def cycle_end_ms(now_ms: int, zone_name: str) -> int:
    """Epoch milliseconds of the end of the month that holds `now_ms`: always later than `now_ms`."""
    zone = billing_zone(zone_name)
    local = datetime.fromtimestamp(now_ms // 1000, zone)
    year, month = (local.year + 1, 1) if local.month == 12 else (local.year, local.month + 1)
    return int(datetime(year, month, 1, tzinfo=zone).astimezone(UTC).timestamp()) * 1000
