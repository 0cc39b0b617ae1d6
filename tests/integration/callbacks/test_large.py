"""Large events are taken of their lane, and shown, a few at a time; nothing else is different for them."""

import pytest

from tests.integration.callbacks.harness import (
    Instance,
    event,
    eventually,
    keys,
    make_account,
    make_instance,
    running,
    take,
)
from tests.receiver import Receiver
from tomada.callbacks import dispatcher, history
from tomada.callbacks.backoff import Policy
from tomada.callbacks.recorder import Recorder
from tomada.callbacks.store import reading
from tomada.callbacks.types import NewEvent, Target
from tomada.postgres.pool import Pool


def _sized(instance: Instance, number: int, size: int) -> NewEvent:
    return NewEvent(instance.id, Target.RECEIVED, "ReceivedCallback", "x" * size, str(number))


@pytest.mark.parametrize(
    ("sizes", "taken"),
    [
        ([10] * 8, 8),
        ([100, 10, 10], 2),
        ([99, 10, 10], 3),
        ([10, 200, 10, 10], 3),
        ([10, 10, 10, 200], 4),
        ([200], 1),
        ([50] * 8, 3),
        ([1_500_000] * 8, 2),
    ],
)
async def test_payloads_are_taken_up_to_a_bound(pool: Pool, sizes: list[int], taken: int) -> None:
    """Until 100 bytes are reached, and one more; the lane knows that it has more. Each lane has room of its own."""
    account = await make_account(pool)
    for url in ("https://a.example/", "https://b.example/"):
        instance = await make_instance(pool, account, url)
        await Recorder(pool).record([_sized(instance, number, size) for number, size in enumerate(sizes)])
    lanes = await take(pool, batch_bytes=100, lease_ms=0)
    assert [len(lane.waiting) for lane in lanes] == [taken, taken]
    assert [lane.more for lane in lanes] == [taken < len(sizes)] * 2
    assert [len(waiting.payload) for waiting in lanes[0].waiting] == sizes[:taken]


async def test_what_gave_way_and_is_due_again_counts_too(pool: Pool) -> None:
    """It comes first; what it leaves no room for is taken next."""
    instance = await make_instance(pool, await make_account(pool), "https://a.example/")
    await Recorder(pool).record([_sized(instance, number, 60) for number in range(6)])
    await pool.execute("update callback set aside_due_ms = 1 where position <= 4")
    await pool.execute("update lane set done_position = 4")
    (lane,) = await take(pool, batch_bytes=100, lease_ms=0)
    assert [(waiting.position, waiting.aside) for waiting in lane.waiting] == [(1, True), (2, True), (3, True)]
    assert lane.more


async def test_large_events_arrive_in_order_and_without_a_pause(
    pool: Pool, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lane that has more than was taken goes on at once."""
    monkeypatch.setattr(dispatcher, "BATCH_BYTES", 1)
    monkeypatch.setattr(dispatcher, "POLL_S", 60.0)
    instance = await make_instance(pool, await make_account(pool), receiver.url())
    async with running(pool) as rig:
        await rig.recorder.record([event(instance, number) for number in range(40)])
        await rig.settled()
    assert keys(receiver.requests()) == [str(number) for number in range(40)]


async def test_a_large_poisonous_head_gives_way(
    pool: Pool, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hold the lane back until it is dead, if it were taken alone."""
    monkeypatch.setattr(dispatcher, "BATCH_BYTES", 1)
    instance = await make_instance(pool, await make_account(pool), receiver.url("poison-bad"))
    async with running(pool, policy=Policy(step_min_ms=20, give_way_ms=100)) as rig:
        await rig.recorder.record([event(instance, "bad"), *(event(instance, number) for number in range(9))])
        await eventually(lambda: len([k for k in keys(receiver.requests()) if k != "bad"]) >= 9)
    assert [k for k in keys(receiver.requests()) if k != "bad"] == [str(number) for number in range(9)]


@pytest.mark.parametrize(("bytes_max", "page"), [(1, 1), (120, 2), (121, 3), (1 << 20, 4)])
async def test_a_page_is_bounded_in_bytes_and_the_next_goes_on(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, bytes_max: int, page: int
) -> None:
    """Of events and of dead letters: nothing is left out, and nothing comes twice."""
    monkeypatch.setattr(reading, "PAGE_BYTES", bytes_max)
    account = await make_account(pool)
    instance = await make_instance(pool, account, "https://a.example/")
    await Recorder(pool).record([_sized(instance, number, 60) for number in range(1, 8)])
    await pool.execute(
        "insert into dead_letter (lane_id, position, instance_id, event_number, account_id, attempts, reason)"
        " select lane_id, position, instance_id, event_number, $1, 0, 'told so' from callback",
        account.id,
    )
    seen: list[list[int]] = []
    cursor = None
    while not seen or cursor:
        events = await history.history(pool, account.id, instance.id, cursor=cursor, limit=4)
        seen.append([shown.number for shown in events.content])
        cursor = events.next
    assert seen == [list(range(7, 0, -1))[at : at + page] for at in range(0, 7, page)]
    seen = []
    while not seen or cursor:
        letters = await history.dead_letters(pool, account.id, cursor=cursor, limit=4)
        seen.append([letter.event_number for letter in letters.content])
        cursor = letters.next
    assert seen == [list(range(1, 8))[at : at + page] for at in range(0, 7, page)]
