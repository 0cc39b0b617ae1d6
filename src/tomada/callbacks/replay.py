"""Events sent again, dead letters cleared, URLs switched on again, and the button that sends a test event.

A replay is a request that the dispatcher's upkeep works off in steps: it survives restarts, has no upper limit, and
queues every event under its original webhook-id, in order, marked `tomada-order: replayed`.
"""

import uuid

import msgspec

from tomada.callbacks import shapes
from tomada.callbacks.sending import Sender, attempt_one
from tomada.callbacks.shapes import Facts
from tomada.callbacks.signing import Credentials
from tomada.callbacks.store import reading, replaying
from tomada.callbacks.store.replaying import LAST
from tomada.callbacks.types import Attempt, Waiting
from tomada.callbacks.urls import check_url
from tomada.engine.port import MessageReceived, TextReceived
from tomada.errors import BadInput, NotFound
from tomada.kit import ids
from tomada.kit.addresses import AddressRules
from tomada.kit.sealing import Sealer
from tomada.postgres.pool import Connection, Pool

SELECTIONS = ("all", "missing", "dead")


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which events of an instance. `only`: all of them, those never delivered (`missing`), or the dead letters.

    One event is `from_number == until_number`; all since a time is `since_ms`.
    """

    instance_id: str
    only: str = "all"
    from_number: int = 1
    until_number: int = LAST
    since_ms: int = 0


class Progress(msgspec.Struct, frozen=True, rename="camel"):
    """How far a replay is: `queued` events were put into their lanes so far."""

    id: str
    instance_id: str
    only: str
    url: str | None
    queued: int
    finished: bool


async def replay(
    pool: Pool, account_id: str, selection: Selection, *, rules: AddressRules, url: str | None = None
) -> str:
    """Ask for events to be sent again, to `url` or where each went (dead) or goes by the settings; the replay's id.

    Raises BadInput, BadAddress, or NotFound if the account has no such instance.
    """
    if selection.only not in SELECTIONS:
        raise BadInput(f"only must be one of {', '.join(SELECTIONS)}")
    if selection.from_number < 1 or selection.until_number < selection.from_number:
        raise BadInput("the range is empty")
    if url is not None:
        check_url(url, rules)
    async with pool.acquire() as connection:
        return await _start(connection, account_id, selection, url=url)


async def _start(
    connection: Connection, account_id: str, selection: Selection, *, url: str | None = None, lane_id: int | None = None
) -> str:
    replay_id = f"rpl_{uuid.uuid4().hex}"
    found = await replaying.start(
        connection,
        replay_id,
        account_id,
        selection.instance_id,
        url=url,
        selection=selection.only,
        from_number=selection.from_number,
        until_number=selection.until_number,
        since_ms=selection.since_ms,
        lane_id=lane_id,
    )
    if not found:
        raise NotFound
    return replay_id


async def progress(pool: Pool, account_id: str, replay_id: str) -> Progress | None:
    """How far a replay is; None if the account has no such replay."""
    async with pool.acquire() as connection:
        row = await replaying.progress(connection, account_id, replay_id)
    if row is None:
        return None
    finished = row["finished_ms"] is not None
    return Progress(row["id"], row["instance_id"], row["selection"], row["url"], row["queued"], finished)


async def purge_dead_letters(
    pool: Pool, account_id: str, instance_id: str, *, before_ms: int = LAST, event_numbers: list[int] | None = None
) -> int:
    """Remove dead letters for good (all, older ones, or those of some events); how many. The events stay in history.

    In parts, each a transaction of its own: whoever is cut off asks again for the rest.
    """
    if event_numbers is not None:
        return await _purge_events(pool, account_id, instance_id, before_ms, event_numbers)
    removed = 0
    after: int | None = 0
    while after is not None:
        async with pool.acquire() as connection:
            part, after = await replaying.purge_dead(connection, account_id, instance_id, before_ms, after)
        removed += part
    return removed


async def _purge_events(pool: Pool, account_id: str, instance_id: str, before_ms: int, numbers: list[int]) -> int:
    removed = 0
    for start in range(0, len(numbers), replaying.LOOK_MAX):
        part = numbers[start : start + replaying.LOOK_MAX]
        async with pool.acquire() as connection:
            removed += await replaying.purge_dead_events(connection, account_id, instance_id, before_ms, part)
    return removed


async def switch_on(pool: Pool, account_id: str, instance_id: str, url: str) -> bool:
    """Call a disabled URL again from the next event on; False if it is not disabled. Its dead letters stay.

    Raises Unavailable if the URL's queue is filled faster than it is emptied.
    """
    await _empty(pool, account_id, instance_id, url)
    async with pool.acquire() as connection, connection.transaction():
        return await replaying.reenable(connection, account_id, instance_id, url) is not None


async def reenable(
    pool: Pool, account_id: str, instance_id: str, url: str, *, rules: AddressRules, recover_since_ms: int | None = None
) -> str | None:
    """Switch a disabled URL on again; with `recover_since_ms`, replay its dead letters since then (the id is returned).

    Both or neither. Raises NotFound if the URL is not there or not disabled, Unavailable as `switch_on` does.
    """
    check_url(url, rules)
    await _empty(pool, account_id, instance_id, url)
    async with pool.acquire() as connection, connection.transaction():
        lane_id = await replaying.reenable(connection, account_id, instance_id, url)
        if lane_id is None:
            raise NotFound(
                "There is no disabled URL like that", hint="GET /v1/instances/{id}/urls lists the URLs as they are."
            )
        if recover_since_ms is None:
            return None
        selection = Selection(instance_id=instance_id, only="dead", since_ms=recover_since_ms)
        return await _start(connection, account_id, selection, lane_id=lane_id)


async def _empty(pool: Pool, account_id: str, instance_id: str, url: str) -> None:
    """Bury what waits at a disabled URL, each part in a transaction of its own: others use instance and lane between.

    Upkeep would do the same in its own time, so nothing is lost if whoever asked is gone before the end.
    """
    is_left = True
    while is_left:
        async with pool.acquire() as connection, connection.transaction():
            is_left = await replaying.bury_disabled(connection, account_id, instance_id, url)


async def send_test_event(
    pool: Pool, sender: Sender, sealer: Sealer, account_id: str, instance_id: str, url: str
) -> Attempt:
    """Send one made-up ReceivedCallback to `url` now, signed as usual; it is not recorded. Tells status and duration.

    Raises BadAddress, or NotFound if the account has no such instance.
    """
    check_url(url, sender.egress.rules)
    async with pool.acquire() as connection:
        row = await reading.instance(connection, account_id, instance_id)
    if row is None:
        raise NotFound
    now_ms = sender.clock.now_ms()
    credentials = Credentials(
        sealer.open(row["token_sealed"], f"instance:{instance_id}"),
        sealer.open(row["signing_secret_sealed"], f"account:{account_id}"),
    )
    payload = shapes.encode(_test_body(instance_id, row["phone"] or "5500000000000", now_ms))
    callback = Waiting(
        position=0,
        event_id=ids.event_id(),
        event_number=0,
        payload=payload,
        created_ms=now_ms,
        attempts=0,
        failing_for_ms=0,
        aside=False,
        replay=False,
    )
    return await attempt_one(sender, url, credentials, callback)


def _test_body(instance_id: str, phone: str, now_ms: int) -> shapes.Body:
    event = MessageReceived(
        wa_id="TOMADATEST",
        chat=phone,
        chat_lid=None,
        sender=phone,
        sender_lid=None,
        from_me=False,
        is_group=False,
        at_ms=now_ms,
        push_name="Tomada",
        content=TextReceived(message="Test event"),
    )
    return shapes.received(Facts(instance_id, phone), event, message_id="TOMADATEST")
