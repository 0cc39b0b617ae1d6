"""The one-statement settling of delivered lanes is the general one, only cheaper."""

from typing import Any

import pytest

from tests.integration.callbacks.harness import event, make_account, make_instance, take
from tomada.callbacks.recorder import Recorder
from tomada.callbacks.store import settling
from tomada.callbacks.store.delivered import is_delivered, settle_delivered
from tomada.callbacks.types import Attempt, Delivered, Failed, Lane, Settlement
from tomada.postgres.pool import Connection, Pool

OK = Attempt(at_ms=1, duration_ms=2, status=200, error=None)
SLACK_MS = 2000


def _settlement(lane: Lane) -> Settlement:
    return Settlement(lane, tuple(Delivered(callback, OK) for callback in lane.waiting), None)


async def _state(connection: Connection) -> dict[str, Any]:
    """All that settling writes; times as whether they are now, or far from it."""
    lane = await connection.fetchrow(
        "select lease_epoch, unsettled, done_position, last_position, failing_since_ms, last_error, disabled_ms,"
        " abs(due_ms - real_now_ms()) < $1 as due_now, abs(not_before_ms - real_now_ms()) < $1 as free_now from lane",
        SLACK_MS,
    )
    return {
        "lane": lane,
        "callbacks": await connection.fetch("select * from callback order by position"),
        "attempts": await connection.fetch("select * from attempt order by event_number"),
    }


@pytest.mark.parametrize("newer", [0, 1])
async def test_both_ways_of_settling_leave_the_same_rows(pool: Pool, newer: int) -> None:
    """Of a batch that was delivered whole, with and without a newer event behind it."""
    instance = await make_instance(pool, await make_account(pool), "http://receiver.example/")
    recorder = Recorder(pool)
    await recorder.record([event(instance, n) for n in range(2)])
    (lane,) = await take(pool, batch=2)
    await recorder.record([event(instance, f"newer {n}") for n in range(newer)])
    settlement = _settlement(lane)
    assert is_delivered(settlement)

    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        general = await settling.settle(connection, [settlement]), await _state(connection)
        await transaction.rollback()
        quick = await settle_delivered(connection, [settlement]), await _state(connection)

    assert quick == general
    assert quick[0].due is bool(newer)
    assert quick[1]["lane"]["free_now"]


async def test_a_lane_that_somebody_else_has_taken_is_left_alone(pool: Pool) -> None:
    """The fence: under an older epoch nothing is written, neither the lane nor the attempts nor the callbacks."""
    instance = await make_instance(pool, await make_account(pool), "http://receiver.example/")
    await Recorder(pool).record([event(instance, n) for n in range(2)])
    (lane,) = await take(pool, batch=2)
    await pool.execute("update lane set lease_epoch = lease_epoch + 1")

    async with pool.acquire() as connection:
        before = await _state(connection)
        settled = await settle_delivered(connection, [_settlement(lane)])
        after = await _state(connection)

    assert settled.ours == set()
    assert after == before


async def test_what_needs_the_general_way(pool: Pool) -> None:
    """A failure, an end of the URL, something that had given way, and a batch of which nothing was sent."""
    instance = await make_instance(pool, await make_account(pool), "http://receiver.example/")
    await Recorder(pool).record([event(instance, 0)])
    (lane,) = await take(pool, batch=2)
    (callback,) = lane.waiting
    refused = Failed(callback, Attempt(at_ms=1, duration_ms=2, status=500, error="status 500"))

    assert not is_delivered(Settlement(lane, (refused,), 1000))
    assert not is_delivered(Settlement(lane, (Delivered(callback, OK),), None, disable="410 gone"))
    assert not is_delivered(Settlement(lane, (), 0))
