"""W10: replay of one event, a range, all since, all missing, the dead letters; without a cap, and resumable."""

from typing import Any

import pytest

from tests.integration.callbacks import child
from tests.integration.callbacks.harness import (
    OPEN_RULES,
    SEALER,
    Account,
    Instance,
    event,
    eventually,
    keys,
    make_account,
    make_instance,
    running,
)
from tests.receiver import Receiver
from tomada.callbacks import history, replay
from tomada.callbacks.history import EventPage
from tomada.callbacks.replay import Selection
from tomada.callbacks.store import reading
from tomada.callbacks.upkeep import remove_old, work_off_replays
from tomada.errors import BadAddress, BadInput, NotFound
from tomada.kit.addresses import AddressRules
from tomada.postgres.pool import Pool


async def _delivered(pool: Pool, receiver: Receiver, events: int = 10) -> tuple[Account, Instance]:
    """An instance whose events 1 to `events` (keys 0 upwards) have been delivered."""
    account = await make_account(pool)
    instance = await make_instance(pool, account, receiver.url())
    async with running(pool) as rig:
        await rig.recorder.record([event(instance, n) for n in range(events)])
        await rig.settled()
    return account, instance


async def _again(pool: Pool, receiver: Receiver) -> list[str]:
    """Work off all replays and deliver; the keys that arrived in this run."""
    before = len(receiver.requests())
    await work_off_replays(pool)
    async with running(pool) as rig:
        await rig.settled()
    return keys(receiver.requests()[before:])


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"from_number": 4, "until_number": 4}, ["3"]),
        ({"from_number": 3, "until_number": 6}, ["2", "3", "4", "5"]),
        ({"from_number": 9}, ["8", "9"]),
        ({"only": "missing"}, []),
        ({"only": "dead"}, []),
    ],
)
async def test_w10_one_and_a_range(
    pool: Pool, receiver: Receiver, selection: dict[str, Any], expected: list[str]
) -> None:
    """The chosen events go out again, in order, under their first id, and say that they are a replay."""
    account, instance = await _delivered(pool, receiver)
    first_ids = {r["body"]: r["headers"]["webhook-id"] for r in receiver.requests()}
    replay_id = await replay.replay(
        pool,
        account.id,
        Selection(instance_id=instance.id, **selection),
        rules=OPEN_RULES,
    )
    assert await _again(pool, receiver) == expected
    for request in receiver.requests()[10:]:
        assert request["headers"]["webhook-id"] == first_ids[request["body"]]
        assert request["headers"]["tomada-order"] == "replayed"
    progress = await replay.progress(pool, account.id, replay_id)
    assert progress is not None
    assert (progress.queued, progress.finished) == (len(expected), True)


async def test_w10_since_a_time(pool: Pool, receiver: Receiver) -> None:
    """Everything recorded at or after T."""
    account, instance = await _delivered(pool, receiver)
    await pool.execute("update event set created_ms = number * 1000")
    await replay.replay(pool, account.id, Selection(instance_id=instance.id, since_ms=8000), rules=OPEN_RULES)
    assert await _again(pool, receiver) == ["7", "8", "9"]


async def test_w10_to_another_url(pool: Pool, receiver: Receiver) -> None:
    """A replay may go elsewhere; the address is checked; the first URL gets nothing."""
    account, instance = await _delivered(pool, receiver)
    selection = Selection(instance_id=instance.id, until_number=2)
    with pytest.raises(BadAddress):
        await replay.replay(pool, account.id, selection, rules=AddressRules(), url=receiver.url("ok/other"))
    await replay.replay(pool, account.id, selection, rules=OPEN_RULES, url=receiver.url("ok/other"))
    assert await _again(pool, receiver) == ["0", "1"]
    assert [r["target"] for r in receiver.requests()[10:]] == ["/ok/other", "/ok/other"]


@pytest.mark.parametrize("only", ["all", "missing"])
async def test_w10_the_notice_of_a_disabled_url_is_sent_nowhere(pool: Pool, receiver: Receiver, only: str) -> None:
    """It is an entry of the history, also for a replay of everything, or of what is missing, to a URL of its own."""
    account = await make_account(pool)
    instance = await make_instance(pool, account, receiver.url("gone"))
    async with running(pool) as rig:
        await rig.recorder.record([event(instance, "told")])
        await rig.settled()
    types = [e.type for e in (await history.history(pool, account.id, instance.id)).content]
    assert types == ["CallbackUrlDisabled", "ReceivedCallback"]
    selection = Selection(instance_id=instance.id, only=only)
    await replay.replay(pool, account.id, selection, rules=OPEN_RULES, url=receiver.url("ok/other"))
    assert await _again(pool, receiver) == ["told"]
    assert receiver.requests()[-1]["target"] == "/ok/other"


async def test_w10_everything_missing(pool: Pool, receiver: Receiver) -> None:
    """What was never delivered: recorded without a URL before one was set, or dead. Not what was delivered."""
    account = await make_account(pool)
    instance = await make_instance(pool, account, None)
    async with running(pool) as rig:
        await rig.recorder.record([event(instance, n) for n in range(3)])
        await pool.execute("update instance set received_callback_url = $1", receiver.url("gone"))
        await rig.recorder.record([event(instance, n) for n in range(3, 5)])
        await rig.settled()
        await pool.execute("update instance set received_callback_url = $1", receiver.url())
        await rig.recorder.record([event(instance, 5)])
        await rig.settled()
    await replay.replay(pool, account.id, Selection(instance_id=instance.id, only="missing"), rules=OPEN_RULES)
    assert await _again(pool, receiver) == ["0", "1", "2", "3", "4"]


# Whoever moves a replay on beyond event 6000 waits, with that step's callbacks written and nothing committed.
_WAIT_BEHIND_6000 = """
create function wait_behind_6000() returns trigger language plpgsql as
$$ begin if new.after_number > 6000 then perform pg_advisory_xact_lock(1); end if; return new; end $$;
create trigger wait_behind_6000 before update on replay for each row execute function wait_behind_6000();
"""


async def test_w10_a_replay_of_any_size_goes_on_after_a_kill(pool: Pool, database: str, receiver: Receiver) -> None:
    """12,000 events; half way, in the middle of a step, the process is killed and two others go on: none twice."""
    account = await make_account(pool)
    instance = await make_instance(pool, account, None)
    async with running(pool) as rig:
        for start in range(0, 12_000, 500):
            await rig.recorder.record([event(instance, n) for n in range(start, start + 500)])
    await pool.execute("update instance set received_callback_url = $1", receiver.url())
    replay_id = await replay.replay(pool, account.id, Selection(instance_id=instance.id), rules=OPEN_RULES)
    await pool.execute(_WAIT_BEHIND_6000)
    async with pool.acquire() as holder, holder.transaction():
        await holder.execute("select pg_advisory_xact_lock(1)")
        killed = child.start("replay", database)
        waits = "select exists (select from pg_stat_activity where $1 = any(pg_blocking_pids(pid)))"
        try:
            await eventually(lambda: pool.fetchval(waits, holder.get_server_pid()), 60)
        finally:
            killed.kill()
            killed.wait()
    progress = await replay.progress(pool, account.id, replay_id)
    assert progress is not None
    assert (progress.queued, progress.finished) == (6000, False)
    others = [child.start("replay", database) for _ in range(2)]
    try:
        await eventually(lambda: all(other.poll() is not None for other in others), 120)
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert [other.returncode for other in others] == [0, 0]
    progress = await replay.progress(pool, account.id, replay_id)
    assert progress is not None
    assert (progress.queued, progress.finished) == (12_000, True)
    rows = await pool.fetch("select event_number from callback order by position")
    assert [row["event_number"] for row in rows] == list(range(1, 12_001))


async def test_w10_dead_letters_listed_replayed_purged(pool: Pool, receiver: Receiver) -> None:
    """Listed in pages; replayed ones leave the list and arrive in order; purged ones stay in the history only."""
    account = await make_account(pool)
    instance = await make_instance(pool, account, receiver.url("named-x"))
    await receiver.set("x", "gone")
    async with running(pool) as rig:
        await rig.recorder.record([event(instance, n) for n in range(5)])
        await rig.settled()
        page = await history.dead_letters(pool, account.id, limit=3)
        rest = await history.dead_letters(pool, account.id, cursor=page.next, limit=3)
        assert [letter.event_number for letter in page.content + rest.content] == [1, 2, 3, 4, 5]
        assert rest.next is None
        assert page.content[0].reason == "url disabled: 410 gone"
        assert await replay.purge_dead_letters(pool, account.id, instance.id, event_numbers=[2]) == 1

        await receiver.set("x", "ok")
        url = receiver.url("named-x")
        with pytest.raises(NotFound):
            await replay.reenable(pool, account.id, instance.id, url + "?", rules=OPEN_RULES)
        await replay.reenable(pool, account.id, instance.id, url, rules=OPEN_RULES, recover_since_ms=0)
    assert await _again(pool, receiver) == ["0", "2", "3", "4"]
    assert (await history.dead_letters(pool, account.id)).content == []
    events = (await history.history(pool, account.id, instance.id)).content
    assert {e.number: e.state for e in events if e.number <= 5} == {
        1: "delivered",
        2: "kept",
        3: "delivered",
        4: "delivered",
        5: "delivered",
    }


async def test_history_in_pages_with_filters(pool: Pool, receiver: Receiver) -> None:
    """Newest first, by cursor; by type, state and time; with the attempts of one event."""
    account, instance = await _delivered(pool, receiver, 25)
    seen: list[int] = []
    cursor: str | None = None
    while True:
        page = await history.history(pool, account.id, instance.id, cursor=cursor, limit=10)
        seen += [e.number for e in page.content]
        cursor = page.next
        if cursor is None:
            break
    assert seen == list(range(25, 0, -1))
    newest = (await history.history(pool, account.id, instance.id, limit=1)).content[0]
    assert (newest.type, newest.state, newest.attempts) == ("ReceivedCallback", "delivered", 1)
    assert bytes(newest.body) == event(instance, 24).payload.encode()
    assert (await history.history(pool, account.id, instance.id, state="dead")).content == []
    assert (await history.history(pool, account.id, instance.id, type_="DeliveryCallback")).content == []
    (attempt,) = await history.attempts(pool, account.id, newest.id)
    assert (attempt.number, attempt.status, attempt.error, attempt.url) == (1, 200, None, receiver.url())
    (lane,) = await history.lanes(pool, account.id, instance.id)
    assert (lane.waiting, lane.dead_letters, lane.disabled_ms) == (0, 0, None)
    with pytest.raises(BadInput):
        await history.history(pool, account.id, instance.id, cursor="x")
    with pytest.raises(BadInput):
        await history.history(pool, account.id, instance.id, limit=0)


async def test_a_page_looks_at_a_bounded_number_of_events(
    pool: Pool, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rare ones come in pages that are not full, each event once; the last page says so. Others still see nothing."""
    account, instance = await _delivered(pool, receiver, 25)
    await pool.execute("update event set type = 'Rare' where number in (1, 3, 24)")
    monkeypatch.setattr(reading, "LOOK_EVENTS", 10)
    pages: list[list[int]] = []
    cursor: str | None = None
    while not pages or cursor is not None:
        page = await history.history(pool, account.id, instance.id, type_="Rare", cursor=cursor)
        pages.append([e.number for e in page.content])
        cursor = page.next
    assert pages == [[24], [], [3, 1]]
    page = await history.history(pool, account.id, instance.id, state="delivered", limit=8)
    assert ([e.number for e in page.content], page.next) == (list(range(25, 17, -1)), "18")
    thief = await make_account(pool)
    assert await history.history(pool, thief.id, instance.id) == EventPage([], None)


async def test_another_account_sees_and_does_nothing(pool: Pool, receiver: Receiver) -> None:
    """Every function takes the account; what is another's looks like what is not there."""
    account, instance = await _delivered(pool, receiver, 2)
    thief = await make_account(pool)
    newest = (await history.history(pool, account.id, instance.id)).content[0]
    assert (await history.history(pool, thief.id, instance.id)).content == []
    assert await history.attempts(pool, thief.id, newest.id) == []
    assert await history.lanes(pool, thief.id, instance.id) == []
    assert (await history.dead_letters(pool, thief.id, instance.id)).content == []
    assert await replay.purge_dead_letters(pool, thief.id, instance.id) == 0
    with pytest.raises(NotFound):
        await replay.replay(pool, thief.id, Selection(instance_id=instance.id), rules=OPEN_RULES)
    with pytest.raises(NotFound):
        await replay.reenable(pool, thief.id, instance.id, receiver.url(), rules=OPEN_RULES)
    async with running(pool) as rig:
        with pytest.raises(NotFound):
            await replay.send_test_event(pool, rig.sender, SEALER, thief.id, instance.id, receiver.url())
    replay_id = await replay.replay(pool, account.id, Selection(instance_id=instance.id), rules=OPEN_RULES)
    assert await replay.progress(pool, thief.id, replay_id) is None


async def test_the_test_button_sends_one_signed_event(pool: Pool, receiver: Receiver) -> None:
    """It arrives like any other, and leaves no trace in the history."""
    account = await make_account(pool)
    instance = await make_instance(pool, account, None)
    async with running(pool) as rig:
        attempt = await replay.send_test_event(pool, rig.sender, SEALER, account.id, instance.id, receiver.url())
    assert (attempt.status, attempt.error) == (200, None)
    (request,) = receiver.requests()
    assert '"Test event"' in request["body"]
    assert request["headers"]["z-api-token"] == instance.token
    assert await pool.fetchval("select count(*) from event") == 0


async def test_retention_removes_what_is_settled_and_nothing_else(pool: Pool, receiver: Receiver) -> None:
    """Old delivered events go with their attempts; what waits or was new stays; the lane in use stays."""
    _, instance = await _delivered(pool, receiver, 3)
    month_ms = 30 * 24 * 3_600_000
    async with running(pool) as rig:
        await pool.execute("update instance set received_callback_url = $1", receiver.url("status-500"))
        await rig.recorder.record([event(instance, "waits")])
        await eventually(lambda: pool.fetchval("select count(*) >= 4 from attempt"))
    await pool.execute("update event set created_ms = created_ms - $1", month_ms + 1)
    await pool.execute("update attempt set at_ms = at_ms - $1", month_ms + 1)
    await remove_old(pool, month_ms)
    assert [row["number"] for row in await pool.fetch("select number from event")] == [4]
    assert await pool.fetchval("select count(*) from attempt") == 1
    assert await pool.fetchval("select count(*) from callback") == 1
