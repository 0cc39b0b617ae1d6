"""The sandbox's clock: forward only, within bounds, and only the lifecycle's."""

import pytest

from tomada.errors import BadInput
from tomada.instances.billing import cycle_end_ms
from tomada.instances.clock import ADVANCE_MAX_S, AHEAD_MAX_S, advance_clock, read_clock
from tomada.postgres.pool import Pool
from tomada.wire.replies import iso


async def test_it_moves_the_lifecycle_and_nothing_else(pool: Pool) -> None:
    """real_now_ms() stays real: leases and retries do not notice."""
    before = await read_clock(pool)
    assert before.offset_s == 0
    await advance_clock(pool, 3600)
    after = await advance_clock(pool, 172_800)
    assert after.offset_s == 176_400
    assert 0 <= after.now_ms - before.now_ms - 176_400_000 < 10_000
    real_ms = await pool.fetchval("select real_now_ms()")
    assert 0 <= real_ms - before.now_ms < 10_000


@pytest.mark.parametrize("seconds", [-1, ADVANCE_MAX_S + 1])
async def test_it_never_goes_back_nor_beyond_its_bound(pool: Pool, seconds: int) -> None:
    """What has ended stays ended."""
    with pytest.raises(BadInput):
        await advance_clock(pool, seconds)
    assert (await read_clock(pool)).offset_s == 0


async def test_many_steps_do_not_leave_the_calendar(pool: Pool) -> None:
    """Dates end with the year 9999; the clock stops long before, says so, and stays where it was."""
    left_s = AHEAD_MAX_S
    while left_s:
        step_s = min(left_s, ADVANCE_MAX_S)
        await advance_clock(pool, step_s)
        left_s -= step_s
    with pytest.raises(BadInput, match="ahead"):
        await advance_clock(pool, 1)
    reading = await read_clock(pool)
    assert reading.offset_s == AHEAD_MAX_S
    assert iso(reading.now_ms).startswith("21")
    assert cycle_end_ms(reading.now_ms, "America/Sao_Paulo") > reading.now_ms
