"""What an account may look up under /v1: events, attempts, lanes (URLs), dead letters.

Every function takes the account first and shows nothing of others; an instance or event of another account looks like
one that is not there. Lists come in pages: pass `next` of a page as `cursor` of the next call; None ends. A page may
hold fewer than asked for, where bodies are large, and with a filter even none, and not be the last.
"""

import msgspec

from tomada.callbacks.store import reading
from tomada.errors import BadInput, NotFound
from tomada.postgres.pool import Pool

PAGE_MAX = 500
_LAST = (1 << 63) - 1
STATES = ("waiting", "dead", "delivered", "kept")


class EventView(msgspec.Struct, frozen=True, rename="camel"):
    """An event. `state`: waiting, dead, delivered, or kept (no URL wanted it). `body` is the callback's JSON."""

    id: str
    number: int
    instance_id: str
    type: str
    state: str
    attempts: int
    created_ms: int
    body: msgspec.Raw


class AttemptView(msgspec.Struct, frozen=True, rename="camel"):
    """One request. `error` is None if it was delivered; nothing of the answer but its status is kept."""

    number: int
    url: str | None
    at_ms: int
    status: int | None
    duration_ms: int
    error: str | None


class LaneView(msgspec.Struct, frozen=True, rename="camel"):
    """A URL that events of the instance went to."""

    url: str
    waiting: int
    dead_letters: int
    next_ms: int | None
    failing_since_ms: int | None
    disabled_ms: int | None
    disabled_reason: str | None
    last_error: str | None


class DeadLetterView(msgspec.Struct, frozen=True, rename="camel"):
    """An event that could not be delivered."""

    event_id: str
    event_number: int
    instance_id: str
    type: str
    url: str
    attempts: int
    died_ms: int
    reason: str
    body: msgspec.Raw


class EventPage(msgspec.Struct, frozen=True):
    """Some events, newest first. `next` is None if there are no more."""

    content: list[EventView]
    next: str | None


class DeadLetterPage(msgspec.Struct, frozen=True):
    """Some dead letters, lane by lane in order."""

    content: list[DeadLetterView]
    next: str | None


async def history(
    pool: Pool,
    account_id: str,
    instance_id: str,
    *,
    type_: str | None = None,
    state: str | None = None,
    since_ms: int = 0,
    until_ms: int = _LAST,
    cursor: str | None = None,
    limit: int = 100,
) -> EventPage:
    """Events of an instance, newest first, filtered by the wire's type, state and time. Raises BadInput."""
    if state is not None and state not in STATES:
        raise BadInput(f"state must be one of {', '.join(STATES)}")
    limit = _limit(limit)
    (before,) = _cursor(cursor, 1) or (_LAST,)
    async with pool.acquire() as connection:
        rows, before_next = await reading.events(
            connection,
            account_id,
            instance_id,
            before_number=before,
            type_=type_,
            since_ms=since_ms,
            until_ms=until_ms,
            state=state,
            limit=limit,
        )
    content = [
        EventView(
            id=row["id"],
            number=row["number"],
            instance_id=row["instance_id"],
            type=row["type"],
            state=row["state"],
            attempts=row["attempts"],
            created_ms=row["created_ms"],
            body=msgspec.Raw(row["payload"].encode()),
        )
        for row in rows
    ]
    return EventPage(content, None if before_next is None else str(before_next))


async def attempts(pool: Pool, account_id: str, event_id: str) -> list[AttemptView]:
    """The attempts at one event, oldest first (at most 1000); empty if there is none or no such event."""
    async with pool.acquire() as connection:
        rows = await reading.attempts(connection, account_id, event_id)
    return [
        AttemptView(
            number=row["n"],
            url=row["url"],
            at_ms=row["at_ms"],
            status=row["status"],
            duration_ms=row["duration_ms"],
            error=row["error"],
        )
        for row in rows
    ]


async def lanes(pool: Pool, account_id: str, instance_id: str) -> list[LaneView]:
    """The URLs that events of the instance went to, with what waits and what is wrong."""
    async with pool.acquire() as connection:
        rows = await reading.lanes(connection, account_id, instance_id)
    return [
        LaneView(
            url=row["url"],
            waiting=row["waiting"],
            dead_letters=row["dead_letters"],
            next_ms=row["due_ms"],
            failing_since_ms=row["failing_since_ms"],
            disabled_ms=row["disabled_ms"],
            disabled_reason=row["disabled_reason"],
            last_error=row["last_error"],
        )
        for row in rows
    ]


async def dead_letters(
    pool: Pool, account_id: str, instance_id: str | None = None, *, cursor: str | None = None, limit: int = 100
) -> DeadLetterPage:
    """Dead letters of the account, or of one of its instances. Raises BadInput for a bad cursor or limit."""
    limit = _limit(limit)
    lane, position = _cursor(cursor, 2) or (0, 0)
    async with pool.acquire() as connection:
        rows, after_next = await reading.dead_letters(connection, account_id, instance_id, (lane, position), limit)
    content = [
        DeadLetterView(
            event_id=row["event_id"],
            event_number=row["event_number"],
            instance_id=row["instance_id"],
            type=row["type"],
            url=row["url"],
            attempts=row["attempts"],
            died_ms=row["died_ms"],
            reason=row["reason"],
            body=msgspec.Raw(row["payload"].encode()),
        )
        for row in rows
    ]
    return DeadLetterPage(content, None if after_next is None else f"{after_next[0]}.{after_next[1]}")


async def check_instance(pool: Pool, account_id: str, instance_id: str) -> None:
    """Raises NotFound unless the account has or had this instance. Asked where an empty answer would not tell."""
    async with pool.acquire() as connection:
        if not await reading.is_instance(connection, account_id, instance_id):
            raise NotFound


async def check_event(pool: Pool, account_id: str, event_id: str) -> None:
    """Raises NotFound unless the account has this event."""
    async with pool.acquire() as connection:
        if not await reading.is_event(connection, account_id, event_id):
            raise NotFound("There is no such event", hint="GET /v1/instances/{id}/events lists events with their ids.")


def _limit(limit: int) -> int:
    if not 1 <= limit <= PAGE_MAX:
        raise BadInput(f"limit must be 1 to {PAGE_MAX}")
    return limit


def _cursor(cursor: str | None, parts: int) -> tuple[int, ...] | None:
    if cursor is None:
        return None
    numbers = cursor.split(".")
    if len(numbers) != parts or not all(n.isascii() and n.isdigit() and len(n) <= 18 for n in numbers):
        raise BadInput("cursor is not one that was given")
    return tuple(int(number) for number in numbers)
