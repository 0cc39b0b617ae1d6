"""The sandbox's clock: forward only, within bounds, and only the lifecycle's."""

import pytest

from tomada.errors import BadInput
from tomada.instances.clock import ADVANCE_MAX_S, advance_clock, read_clock
from tomada.postgres.pool import Pool


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
