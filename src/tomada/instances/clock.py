"""The lifecycle's clock in the database: read it, and (in the sandbox only) move it forward.

Trials, billing cycles, retention and deletions follow this clock; leases, pauses between attempts and log times follow
real time and never move. So an integrator can let two days pass in a second and watch a trial end, while nothing else
of the system notices. It cannot be moved back: what has ended stays ended. And it is a hundred years ahead at most,
since dates end with the year 9999, and whoever reckons with one beyond that fails.
"""

from msgspec import Struct

from tomada.errors import BadInput
from tomada.postgres.pool import Pool

ADVANCE_MAX_S = 10 * 366 * 24 * 3600
AHEAD_MAX_S = 10 * ADVANCE_MAX_S

_READ = "select lifecycle_now_ms() as now_ms, offset_ms from lifecycle_clock"

_ADVANCE = """
update lifecycle_clock set offset_ms = offset_ms + $1 where offset_ms + $1 <= $2
returning real_now_ms() + offset_ms as now_ms, offset_ms
"""


class Reading(Struct, frozen=True, rename={"now_ms": "now", "offset_s": "offsetSeconds"}):
    """The lifecycle's time in epoch milliseconds, and by how many seconds it is ahead of real time."""

    now_ms: int
    offset_s: int


async def read_clock(pool: Pool) -> Reading:
    """What time the lifecycle has."""
    row = await pool.fetchrow(_READ)
    assert row is not None
    return Reading(row["now_ms"], row["offset_ms"] // 1000)


async def advance_clock(pool: Pool, seconds: int) -> Reading:
    """Moves the lifecycle's clock forward; nudge the sweepers after it.

    Raises BadInput outside 0..ADVANCE_MAX_S, and beyond AHEAD_MAX_S in all.
    """
    if not 0 <= seconds <= ADVANCE_MAX_S:
        raise BadInput(f"advanceSeconds must lie between 0 and {ADVANCE_MAX_S}: the clock never goes back")
    row = await pool.fetchrow(_ADVANCE, seconds * 1000, AHEAD_MAX_S * 1000)
    if row is None:
        raise BadInput(f"the clock may be ahead of real time by {AHEAD_MAX_S} seconds at most")
    return Reading(row["now_ms"], row["offset_ms"] // 1000)
