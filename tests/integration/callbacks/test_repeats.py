"""W2: what may have been sent before says so, whoever sent it and however that one ended."""

import pytest

from tests.integration.callbacks.harness import event, eventually, make_account, make_instance, running, take
from tests.receiver import Receiver
from tomada.callbacks.recorder import Recorder
from tomada.callbacks.store import settling
from tomada.callbacks.types import Attempt, Delivered, Settlement
from tomada.postgres.pool import Pool

OK = Attempt(at_ms=1, duration_ms=2, status=200, error=None)


async def test_a_lease_that_was_never_settled_counts_as_an_attempt(pool: Pool) -> None:
    """Its holder died after our POST, perhaps: what it may have sent is attempt 2, then 3."""
    instance = await make_instance(pool, await make_account(pool), "http://receiver.example/")
    recorder = Recorder(pool)
    await recorder.record([event(instance, "old")])
    (first,) = await take(pool, lease_ms=0)
    await recorder.record([event(instance, "new")])
    (second,) = await take(pool, lease_ms=0)
    (third,) = await take(pool, lease_ms=60_000)

    assert [waiting.attempts for waiting in first.waiting] == [0]
    assert [waiting.attempts for waiting in second.waiting] == [1, 0]
    assert third.waiting[0].attempts == 2
    assert third.waiting[1].attempts >= 1


@pytest.mark.parametrize("interrupted", [False, True])
async def test_a_lease_that_was_settled_counts_only_what_was_under_way(pool: Pool, interrupted: bool) -> None:
    """After a stop in order the event whose answer nobody waited for may have arrived; else all begins at 1."""
    instance = await make_instance(pool, await make_account(pool), "http://receiver.example/")
    await Recorder(pool).record([event(instance, n) for n in range(3)])
    (lane,) = await take(pool)
    settlement = Settlement(lane, (Delivered(lane.waiting[0], OK),), 0, interrupted=interrupted)
    async with pool.acquire() as connection, connection.transaction():
        await settling.settle(connection, [settlement])
    (again,) = await take(pool)

    assert [waiting.attempts for waiting in again.waiting] == [int(interrupted)] * 2


async def test_the_header_of_a_repeat_tells_its_number(pool: Pool, receiver: Receiver) -> None:
    """A dispatcher takes over from one that died with the lane in its hands; the receiver sees a second attempt."""
    instance = await make_instance(pool, await make_account(pool), receiver.url("ok/hook"))
    await Recorder(pool).record([event(instance, "x")])
    await take(pool, lease_ms=0)  # and dies

    async with running(pool) as rig:
        await rig.settled()
        await eventually(lambda: len(receiver.requests()) == 1)

    (request,) = receiver.requests()
    assert request["headers"]["tomada-attempt"] == "2"
    assert await pool.fetchval("select n from attempt") == 2
