"""The values that callbacks are made of, shared by the store, the dispatcher and whoever records events.

All are frozen structs. Times are epoch milliseconds (`_ms`) of real time; durations say their unit as well.
"""

import enum

import msgspec


class Target(enum.StrEnum):
    """Which of an instance's URLs an event is for; what each chooses is in targets.py."""

    DELIVERY = "delivery"
    RECEIVED = "received"
    RECEIVED_FROM_ME = "received_from_me"
    MESSAGE_STATUS = "message_status"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    PRESENCE_CHAT = "presence_chat"
    NOBODY = "nobody"  # kept in the history only


class NewEvent(msgspec.Struct, frozen=True):
    """An event to be recorded. `dedupe_key` is unique within the instance: recording it again changes nothing.

    `type` is the wire's (`ReceivedCallback`, ...); `payload` the JSON body as it will be sent.
    """

    instance_id: str
    target: Target
    type: str
    payload: str
    dedupe_key: str


class Recorded(msgspec.Struct, frozen=True):
    """What recording gave: the event's id and number; `fresh` is False if it had been recorded before."""

    id: str
    number: int
    fresh: bool


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """A callback as a dispatcher takes it: an event and its place in the lane. In the order of the columns taken."""

    position: int
    event_id: str
    event_number: int
    payload: str
    created_ms: int
    attempts: int  # made so far, or that may have been made
    failing_for_ms: int  # since its first failure; 0 if it never failed
    aside: bool  # it gave way earlier, and is due again now
    replay: bool


class Lane(msgspec.Struct, frozen=True):
    """A lane under lease, with the events to send in order. `epoch` is the fence for whatever is written about it."""

    id: int
    epoch: int
    instance_id: str
    account_id: str
    url: str
    destination: str
    seen: int  # positions beyond this one came after it was taken
    more: bool  # of the positions seen, some lie beyond what is in `waiting`
    failing_for_ms: int
    overtaken: str | None  # webhook-id of the oldest event set aside, if any
    token_sealed: bytes
    secrets_sealed: bytes
    waiting: tuple[Waiting, ...]


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """One request and what came of it. `error` is None exactly if it was delivered (any 2xx)."""

    at_ms: int
    duration_ms: int
    status: int | None
    error: str | None
    retry_after_s: float | None = None


class Delivered(msgspec.Struct, frozen=True, gc=False):
    """The callback at `position` was answered with 2xx."""

    callback: Waiting
    attempt: Attempt


class Failed(msgspec.Struct, frozen=True):
    """The callback at `position` failed once more. With `aside_for_ms` it gives way; with `dead` nothing follows."""

    callback: Waiting
    attempt: Attempt
    aside_for_ms: int | None = None
    dead: bool = False


class Settlement(msgspec.Struct, frozen=True):
    """What becomes of a lane that was taken; written in one transaction, or not at all if the epoch is another.

    `again_in_ms`: None = nothing is left that this dispatcher knows of. `not_before_ms`: new events cannot make it due
    earlier than that from now. `disable`: the reason, if the URL is not to be called any more. `interrupted`: one more
    was under way, and nobody knows whether it arrived.
    """

    lane: Lane
    outcomes: tuple[Delivered | Failed, ...]
    again_in_ms: int | None
    not_before_ms: int = 0
    disable: str | None = None
    interrupted: bool = False
