"""/v1: what happened to an account's instances, what was tried, what could not be delivered, and sending it again.

Behind the partner credential; every function takes the account, so that another account's instance looks like none.
Times are epoch milliseconds, lists come in pages (`next` of one is `cursor` of the next).
"""

from collections import Counter
from collections.abc import Callable
from typing import Annotated, NamedTuple

import msgspec
from litestar import Router, delete, get, post
from litestar.params import FromPath
from msgspec import Meta

from tomada.callbacks import history, replay
from tomada.callbacks.history import AttemptView, DeadLetterPage, EventPage, LaneView
from tomada.callbacks.replay import Progress, Selection
from tomada.callbacks.sending import Sender
from tomada.errors import NotFound, TooManyRequests
from tomada.kit.addresses import AddressRules
from tomada.kit.sealing import Sealer
from tomada.postgres.pool import Pool
from tomada.wire.credentials import account_of, partner_guard
from tomada.wire.openapi import operation
from tomada.wire.reading import AnyRequest, number_of, read_body, read_optional_body, text_of

_SECURITY = [{"partner": list[str]()}]
_LAST = (1 << 53) - 1  # the largest number that every JSON reader keeps exact
_INSTANCE = "/v1/instances/{instance_id:str}"
_EVENT_NUMBERS_MAX = 10_000
_TESTS_MAX = 2  # at a time, of an account: each may take half a minute and a connection of those that all share
# Numbers of events and times: what is larger would not fit the database's columns.
Number = Annotated[int, Meta(ge=0, le=_LAST)]


class ReplayBody(msgspec.Struct, kw_only=True, rename="camel"):
    """POST replays. `only`: all, missing (never delivered) or dead; a range of event numbers; a time; another URL."""

    only: str = "all"
    from_number: Number = 1
    until_number: Number = _LAST
    since_ms: Number = 0
    url: str | None = None


class UrlBody(msgspec.Struct, kw_only=True, rename="camel"):
    """A URL; `recoverSinceMs` also sends its dead letters since then again."""

    url: str
    recover_since_ms: Number | None = None


class PurgeBody(msgspec.Struct, kw_only=True, rename="camel"):
    """DELETE dead-letters: those of some events, or those from before a time, or all."""

    event_numbers: Annotated[list[Number], Meta(max_length=_EVENT_NUMBERS_MAX)] | None = None
    before_ms: Number = _LAST


class Asked(msgspec.Struct, frozen=True):
    """The id of a replay; GET /v1/replays/{id} tells how far it is."""

    id: str | None


class Purged(msgspec.Struct, frozen=True):
    """How many dead letters were removed."""

    removed: int


class Tested(msgspec.Struct, frozen=True, rename="camel"):
    """What came of a test event; `error` is null if the URL answered 2xx."""

    status: int | None
    duration_ms: int
    error: str | None


def _text(request: AnyRequest, name: str) -> str | None:
    return text_of(request, name) or None


class CallbackParts(NamedTuple):
    """What these routes stand on; `sender` is the dispatcher's, so that a test event goes out as every other."""

    pool: Pool
    sender: Sender
    sealer: Sealer
    wake: Callable[[], None]
    tests_running: Counter[str]  # by account

    @property
    def rules(self) -> AddressRules:
        """Which addresses may be called."""
        return self.sender.egress.rules


def _parts(request: AnyRequest) -> CallbackParts:
    parts: CallbackParts = request.app.state.callbacks
    return parts


@get(
    f"{_INSTANCE}/events",
    operation_class=operation(query=("type", "state", "sinceMs", "untilMs", "cursor", "limit"), fails=(404,)),
)
async def events(request: AnyRequest, instance_id: FromPath[str]) -> EventPage:
    """Events, newest first. Query: type, state, sinceMs, untilMs, cursor, limit. An empty page may have a next."""
    page = await history.history(
        _parts(request).pool,
        account_of(request).id,
        instance_id,
        type_=_text(request, "type"),
        state=_text(request, "state"),
        since_ms=number_of(request, "sinceMs", 0, _LAST),
        until_ms=number_of(request, "untilMs", _LAST, _LAST),
        cursor=_text(request, "cursor"),
        limit=number_of(request, "limit", 100, history.PAGE_MAX),
    )
    if not page.content:
        await history.check_instance(_parts(request).pool, account_of(request).id, instance_id)
    return page


@get("/v1/events/{event_id:str}/attempts", operation_class=operation(fails=(404,)))
async def attempts(request: AnyRequest, event_id: FromPath[str]) -> list[AttemptView]:
    """Every request made for one event."""
    made = await history.attempts(_parts(request).pool, account_of(request).id, event_id)
    if not made:
        await history.check_event(_parts(request).pool, account_of(request).id, event_id)
    return made


@get(f"{_INSTANCE}/urls", operation_class=operation(fails=(404,)))
async def urls(request: AnyRequest, instance_id: FromPath[str]) -> list[LaneView]:
    """The URLs that events of the instance went to, with what waits and what is wrong."""
    known = await history.lanes(_parts(request).pool, account_of(request).id, instance_id)
    if not known:
        await history.check_instance(_parts(request).pool, account_of(request).id, instance_id)
    return known


@post(f"{_INSTANCE}/urls/enable", status_code=200, operation_class=operation(UrlBody, fails=(404,)))
async def enable(request: AnyRequest, instance_id: FromPath[str]) -> Asked:
    """Switch a disabled URL on again, and recover what it missed."""
    body = await read_body(request, UrlBody)
    replay_id = await replay.reenable(
        _parts(request).pool,
        account_of(request).id,
        instance_id,
        body.url,
        rules=_parts(request).rules,
        recover_since_ms=body.recover_since_ms,
    )
    _parts(request).wake()
    return Asked(replay_id)


@get("/v1/dead-letters", operation_class=operation(query=("instanceId", "cursor", "limit")))
async def dead_letters(request: AnyRequest) -> DeadLetterPage:
    """What could not be delivered. Query: instanceId, cursor, limit."""
    return await history.dead_letters(
        _parts(request).pool,
        account_of(request).id,
        _text(request, "instanceId"),
        cursor=_text(request, "cursor"),
        limit=number_of(request, "limit", 100, history.PAGE_MAX),
    )


@delete(
    f"{_INSTANCE}/dead-letters", status_code=200, operation_class=operation(PurgeBody, required=False, fails=(404,))
)
async def purge(request: AnyRequest, instance_id: FromPath[str]) -> Purged:
    """Remove dead letters for good; the events stay in the history."""
    body = await read_optional_body(request, PurgeBody)
    removed = await replay.purge_dead_letters(
        _parts(request).pool,
        account_of(request).id,
        instance_id,
        before_ms=body.before_ms,
        event_numbers=body.event_numbers,
    )
    if not removed:
        await history.check_instance(_parts(request).pool, account_of(request).id, instance_id)
    return Purged(removed)


@post(f"{_INSTANCE}/replays", status_code=202, operation_class=operation(ReplayBody, required=False, fails=(404,)))
async def ask(request: AnyRequest, instance_id: FromPath[str]) -> Asked:
    """Send events again, in order, under their original ids. No upper limit; goes on after a restart."""
    body = await read_optional_body(request, ReplayBody)
    selection = Selection(
        instance_id=instance_id,
        only=body.only,
        from_number=body.from_number,
        until_number=body.until_number,
        since_ms=body.since_ms,
    )
    return Asked(
        await replay.replay(
            _parts(request).pool, account_of(request).id, selection, rules=_parts(request).rules, url=body.url
        )
    )


@get("/v1/replays/{replay_id:str}", operation_class=operation(fails=(404,)))
async def progress(request: AnyRequest, replay_id: FromPath[str]) -> Progress:
    """How far a replay is."""
    found = await replay.progress(_parts(request).pool, account_of(request).id, replay_id)
    if found is None:
        raise NotFound("There is no such replay", hint="The id is in the answer of POST /v1/instances/{id}/replays.")
    return found


@post(f"{_INSTANCE}/test-event", status_code=200, operation_class=operation(UrlBody, fails=(404,)))
async def test_event(request: AnyRequest, instance_id: FromPath[str]) -> Tested:
    """Send a made-up event to a URL now, signed as usual."""
    body = await read_body(request, UrlBody)
    parts, account_id = _parts(request), account_of(request).id
    if parts.tests_running[account_id] >= _TESTS_MAX:
        raise TooManyRequests(f"At most {_TESTS_MAX} test events at a time")
    parts.tests_running[account_id] += 1
    try:
        attempt = await replay.send_test_event(
            parts.pool, parts.sender, parts.sealer, account_id, instance_id, body.url
        )
    finally:
        parts.tests_running[account_id] -= 1
    return Tested(attempt.status, attempt.duration_ms, attempt.error)


router = Router(
    "/",
    guards=[partner_guard],
    security=_SECURITY,
    tags=["v1"],
    route_handlers=[events, attempts, urls, enable, dead_letters, purge, ask, progress, test_event],
)
