"""Dead letters are sent again each by itself: those of one URL without those of another, those of two URLs to both."""

import asyncio

import pytest

from tests.integration.callbacks.harness import (
    OPEN_RULES,
    Account,
    Instance,
    event,
    keys,
    make_account,
    make_instance,
    running,
)
from tests.receiver import Receiver
from tomada.callbacks import history, replay
from tomada.callbacks.replay import Selection
from tomada.callbacks.store import replaying
from tomada.callbacks.types import Target
from tomada.callbacks.upkeep import work_off_replays
from tomada.postgres.pool import Pool

# How many dead letters each statement removes.
_COUNT_REMOVED = """
create table removed (id bigint generated always as identity, n bigint);
create function note_removed() returns trigger language plpgsql as
$$ begin insert into removed (n) select count(*) from gone having count(*) > 0; return null; end $$;
create trigger noted after delete on dead_letter referencing old table as gone
for each statement execute function note_removed();
"""


async def _two_urls(pool: Pool, receiver: Receiver) -> tuple[Account, Instance]:
    """An instance with a URL each for received and for connected, x and y, both of which have said 410."""
    account = await make_account(pool)
    instance = await make_instance(
        pool, account, receiver.url("named-x"), connected_callback_url=receiver.url("named-y")
    )
    await receiver.set("x", "gone")
    await receiver.set("y", "gone")
    return account, instance


async def _dead_in_both(pool: Pool, receiver: Receiver) -> tuple[Account, Instance]:
    """Event 1 has died at x, where it belonged, and at y, where it was sent again."""
    account, instance = await _two_urls(pool, receiver)
    async with running(pool) as rig:
        await rig.recorder.record([event(instance, "both")])
        await rig.settled()
        selection = Selection(instance_id=instance.id, until_number=1)
        await replay.replay(pool, account.id, selection, rules=OPEN_RULES, url=receiver.url("named-y"))
        await work_off_replays(pool)
        rig.dispatcher.wake()
        await rig.settled()
    assert len((await history.dead_letters(pool, account.id)).content) == 2
    return account, instance


async def _switch_on(pool: Pool, receiver: Receiver, account: Account, instance: Instance, *names: str) -> None:
    for name in names:
        await receiver.set(name, "ok")
        assert await replay.switch_on(pool, account.id, instance.id, receiver.url(f"named-{name}"))


async def _arrive(pool: Pool, receiver: Receiver) -> list[tuple[str, str]]:
    """Work off all replays and deliver: path and key of what arrived in this run."""
    before = len(receiver.requests())
    await work_off_replays(pool)
    async with running(pool) as rig:
        await rig.settled()
    new = receiver.requests()[before:]
    return sorted(zip((r["target"] for r in new), keys(new), strict=True))


async def test_recovery_sends_the_dead_letters_of_its_url_only(pool: Pool, receiver: Receiver) -> None:
    """Y was switched on without recovery; switching X on with it leaves Y's dead letters where they lie."""
    account, instance = await _two_urls(pool, receiver)
    async with running(pool) as rig:
        await rig.recorder.record([event(instance, "x1"), event(instance, "y1", Target.CONNECTED)])
        await rig.settled()
    await _switch_on(pool, receiver, account, instance, "y")
    await receiver.set("x", "ok")
    url = receiver.url("named-x")
    await replay.reenable(pool, account.id, instance.id, url, rules=OPEN_RULES, recover_since_ms=0)
    assert await _arrive(pool, receiver) == [("/named-x", "x1")]
    (left,) = (await history.dead_letters(pool, account.id)).content
    assert left.url == receiver.url("named-y")


async def test_an_event_that_died_at_two_urls_is_sent_again_to_both(pool: Pool, receiver: Receiver) -> None:
    """Neither dead letter vanishes undelivered."""
    account, instance = await _dead_in_both(pool, receiver)
    await _switch_on(pool, receiver, account, instance, "x", "y")
    replay_id = await replay.replay(pool, account.id, Selection(instance_id=instance.id, only="dead"), rules=OPEN_RULES)
    assert await _arrive(pool, receiver) == [("/named-x", "both"), ("/named-y", "both")]
    assert (await history.dead_letters(pool, account.id)).content == []
    progress = await replay.progress(pool, account.id, replay_id)
    assert progress is not None
    assert (progress.queued, progress.finished) == (2, True)


async def test_an_event_that_died_at_two_urls_is_recovered_at_one(pool: Pool, receiver: Receiver) -> None:
    """It goes to the URL that is switched on, and lies in the dead letters of the other still."""
    account, instance = await _dead_in_both(pool, receiver)
    await receiver.set("x", "ok")
    url = receiver.url("named-x")
    await replay.reenable(pool, account.id, instance.id, url, rules=OPEN_RULES, recover_since_ms=0)
    assert await _arrive(pool, receiver) == [("/named-x", "both")]
    (left,) = (await history.dead_letters(pool, account.id)).content
    assert left.url == receiver.url("named-y")


async def test_dead_letters_sent_elsewhere_go_once(pool: Pool, receiver: Receiver) -> None:
    """An event that died at two URLs is one event for a third; it is dead no more."""
    account, instance = await _dead_in_both(pool, receiver)
    selection = Selection(instance_id=instance.id, only="dead")
    await replay.replay(pool, account.id, selection, rules=OPEN_RULES, url=receiver.url("ok/third"))
    assert await _arrive(pool, receiver) == [("/ok/third", "both")]
    assert (await history.dead_letters(pool, account.id)).content == []


async def test_a_step_looks_at_a_bounded_number_of_dead_letters(
    pool: Pool, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of another URL, however many, are passed in stretches."""
    account, instance = await _two_urls(pool, receiver)
    async with running(pool) as rig:
        for target, names in ((Target.CONNECTED, [str(n) for n in range(25)]), (Target.RECEIVED, ["x1"])):
            await rig.recorder.record([event(instance, name, target) for name in names])
            await rig.settled()
    await pool.execute("delete from event where type = 'CallbackUrlDisabled'")
    monkeypatch.setattr(replaying, "LOOK_MAX", 10)
    await receiver.set("x", "ok")
    url = receiver.url("named-x")
    await replay.reenable(pool, account.id, instance.id, url, rules=OPEN_RULES, recover_since_ms=0)
    places: list[int] = []
    while await work_off_replays(pool, steps_max=1):
        places.append(await pool.fetchval("select after_number from replay"))
    assert places[:2] == [10, 20]
    assert len(places) == 3
    assert await _arrive(pool, receiver) == [("/named-x", "x1")]


async def test_a_purge_goes_in_parts_and_tells_the_total(
    pool: Pool, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No statement removes more than a part, however many there are; those of other instances stay."""
    await receiver.set("x", "gone")
    account = await make_account(pool)
    owned = [await make_instance(pool, account, receiver.url("named-x")) for _ in range(2)]
    async with running(pool) as rig:
        await rig.recorder.record([event(instance, n) for n in range(25) for instance in owned])
        await rig.settled()
    await pool.execute("update dead_letter set died_ms = case when event_number > 22 then 2 else 1 end")
    await pool.execute(_COUNT_REMOVED)
    monkeypatch.setattr(replaying, "LOOK_MAX", 10)

    first, second = (instance.id for instance in owned)
    assert await replay.purge_dead_letters(pool, account.id, first, before_ms=2) == 22
    assert await replay.purge_dead_letters(pool, account.id, first) == 3
    assert await replay.purge_dead_letters(pool, account.id, second, event_numbers=list(range(4, 20))) == 16
    assert [row["n"] for row in await pool.fetch("select n from removed order by id")] == [10, 10, 2, 3, 10, 6]
    assert await pool.fetchval("select count(*) from dead_letter") == 9


async def test_switching_on_and_asking_for_recovery_are_one(
    pool: Pool, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is cut off between the two finds the URL disabled still, and can ask again."""
    account, instance = await _two_urls(pool, receiver)
    async with running(pool) as rig:
        await rig.recorder.record([event(instance, "x1")])
        await rig.settled()

    async def cut_off(*_: object, **__: object) -> bool:
        raise asyncio.CancelledError

    url = receiver.url("named-x")
    with monkeypatch.context() as patch:
        patch.setattr(replaying, "start", cut_off)
        with pytest.raises(asyncio.CancelledError):
            await replay.reenable(pool, account.id, instance.id, url, rules=OPEN_RULES, recover_since_ms=0)
    await receiver.set("x", "ok")
    await replay.reenable(pool, account.id, instance.id, url, rules=OPEN_RULES, recover_since_ms=0)
    assert await _arrive(pool, receiver) == [("/named-x", "x1")]
