"""From a recorded event to the receiver's own record, through a real database and a real connection."""

from importlib.metadata import version

import pytest
from standardwebhooks.webhooks import Webhook

from tests.integration.callbacks.harness import event, eventually, keys, make_account, make_instance, running
from tests.receiver import Receiver
from tomada.callbacks import dispatcher
from tomada.callbacks.recorder import Recorder
from tomada.callbacks.types import Target
from tomada.kit import ids
from tomada.postgres.pool import Pool


async def test_an_event_arrives_with_its_headers_and_an_untouched_url(pool: Pool, receiver: Receiver) -> None:
    """One POST of the payload as recorded, with the instance's token, to exactly the URL's path and query."""
    path = "ok/a%2Fb/%e2%82%ac/..;x/?q=1%202&q=%2B+&&empty=&%7E"
    account = await make_account(pool)
    instance = await make_instance(pool, account, receiver.url(path))
    async with running(pool) as rig:
        (recorded,) = await rig.recorder.record([event(instance, "k")])
        (request,) = await receiver.wait_for(1)
        await rig.settled()
    assert recorded is not None
    assert (recorded.number, recorded.fresh) == (1, True)
    assert request["method"] == "POST"
    assert request["target"] == f"/{path}"
    assert request["body"] == event(instance, "k").payload
    headers = request["headers"]
    assert headers["content-type"] == "application/json"
    assert headers["z-api-token"] == instance.token
    assert headers["webhook-id"] == recorded.id
    assert headers["tomada-attempt"] == "1"
    assert headers["user-agent"] == f"Tomada/{version('tomada')} (+callbacks)"
    assert headers["origin"] == "http://tomada.test"
    assert "tomada-order" not in headers


async def test_w12_a_receiver_with_a_standard_library_accepts_the_request(pool: Pool, receiver: Receiver) -> None:
    """What arrives verifies with the reference library, under the old and the new secret of a rotation."""
    secrets = [ids.signing_secret(), ids.signing_secret()]
    account = await make_account(pool, secrets)
    instance = await make_instance(pool, account, receiver.url())
    async with running(pool) as rig:
        await rig.recorder.record([event(instance, "k")])
        (request,) = await receiver.wait_for(1)
    for secret in secrets:
        Webhook(secret).verify(request["body"], request["headers"])


async def test_events_of_a_lane_arrive_in_order(pool: Pool, receiver: Receiver) -> None:
    """500 events of 5 instances, recorded by concurrent calls, arrive once each and in order per instance."""
    account = await make_account(pool)
    instances = [await make_instance(pool, account, receiver.url()) for _ in range(5)]
    async with running(pool) as rig:
        for start in range(0, 100, 10):
            batch = [event(i, n) for n in range(start, start + 10) for i in instances]
            await rig.recorder.record(batch)
        requests = await receiver.wait_for(500)
        await rig.settled()
    for instance in instances:
        assert keys(requests, instance) == [str(n) for n in range(100)]


async def test_recording_twice_changes_nothing(pool: Pool, receiver: Receiver) -> None:
    """The same dedupe key, in another call or in the same one, gives the first event again and one delivery."""
    account = await make_account(pool)
    instance = await make_instance(pool, account, receiver.url())
    async with running(pool) as rig:
        first, twin = await rig.recorder.record([event(instance, "a"), event(instance, "a")])
        (again,) = await rig.recorder.record([event(instance, "a")])
        (after,) = await rig.recorder.record([event(instance, "b")])
        await rig.settled()
    assert first is not None
    assert twin is not None
    assert again is not None
    assert after is not None
    assert first.fresh
    assert not twin.fresh
    assert not again.fresh
    assert first.id == twin.id == again.id
    assert (first.number, after.number) == (1, 2)
    assert keys(receiver.requests()) == ["a", "b"]


async def test_an_event_without_a_url_is_kept_and_not_sent(pool: Pool, receiver: Receiver) -> None:
    """It is in the history; no lane is made for it."""
    account = await make_account(pool)
    instance = await make_instance(pool, account, None, delivery_callback_url=receiver.url())
    async with running(pool) as rig:
        await rig.recorder.record([event(instance, "a"), event(instance, "b", Target.DELIVERY)])
        await receiver.wait_for(1)
        await rig.settled()
    assert keys(receiver.requests()) == ["b"]
    assert await pool.fetchval("select count(*) from event") == 2
    assert await pool.fetchval("select count(*) from lane") == 1


async def test_an_unknown_instance_gives_none(pool: Pool) -> None:
    """Events of an instance that is not there are not recorded, and do not disturb others of the batch."""
    account = await make_account(pool)
    instance = await make_instance(pool, account, None)
    ghost = type(instance)("0" * 32, "")
    async with running(pool) as rig:
        results = await rig.recorder.record([event(ghost, "x"), event(instance, "y")])
    assert results[0] is None
    assert results[1] is not None


_LISTENS = """
select exists (select from pg_stat_activity where datname = current_database() and query ilike 'listen%')
"""


async def test_another_process_wakes_the_dispatcher(
    pool: Pool, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event recorded elsewhere is delivered at once, by NOTIFY: the next look is a minute away."""
    monkeypatch.setattr(dispatcher, "POLL_S", 60.0)
    account = await make_account(pool)
    instance = await make_instance(pool, account, receiver.url())
    async with running(pool):
        await eventually(lambda: pool.fetchval(_LISTENS))
        await Recorder(pool).record([event(instance, "a")])
        await receiver.wait_for(1, timeout_s=3)
