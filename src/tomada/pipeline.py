"""What becomes of an event: the one place where sessions, messages and callbacks meet.

`Pipeline.handle` is what the host calls for every event, in order per instance, and calls again until it returns. So it
is idempotent: what it writes is settled once (messages) or recorded under a key that says what it is (callbacks), and
the event is acknowledged, in the end to WhatsApp, only after it has returned. Nothing here is kept in memory that a
restart would miss, save what spares a look-up or a repeated notice.

    message_received ─▶ ReceivedCallback
    receipt_received ─▶ MessageStatusCallback
    message_sent     ─▶ the message is settled; DeliveryCallback, MessageStatusCallback SENT, ReceivedCallback fromMe
    message_failed   ─▶ back to the queue if its outcome is unknown, else DeliveryCallback with the error
    connected        ─▶ ConnectedCallback; the queue is woken
    named            ─▶ what is told of our own messages from now on
    any end of that  ─▶ DisconnectedCallback, once per end
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
import structlog

from tomada.callbacks import events
from tomada.callbacks.recorder import Recorder
from tomada.callbacks.shapes import DISCONNECTED_WORDS, Facts
from tomada.callbacks.store.recording import write_events
from tomada.callbacks.types import NewEvent
from tomada.engine import port
from tomada.kit.clock import Clock
from tomada.messages.store import MessageStore, Outgoing
from tomada.postgres.pool import Connection

log = structlog.get_logger(__name__)

_ENDS: dict[type[port.EngineEvent], str] = {
    port.Disconnected: DISCONNECTED_WORDS,
    port.LoggedOut: DISCONNECTED_WORDS,
    port.Replaced: f"{DISCONNECTED_WORDS}: the same device was connected somewhere else",
    port.Banned: f"{DISCONNECTED_WORDS}: WhatsApp refuses this number for a while",
    port.Outdated: f"{DISCONNECTED_WORDS}: WhatsApp refuses this version, the operator must upgrade",
}

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

NOT_FOUND = 404  # WhatsApp's number for an address that nobody has
_NOBODY = {"-group": "Group", "@newsletter": "Newsletter"}

WA_ID_LENGTH_MAX = 128  # the engine's are 22
REMEMBERED_MAX = 10_000  # of each kind, over all instances; some 2 MB

# (instance id, chat, WhatsApp id) -> who wrote that message and its text, if it was received here.
FindReceived = Callable[[str, str, str], Awaitable[tuple[str, str] | None]]
# instance id -> the number of its phone and the name of that account, each empty while unknown.
Account = Callable[[str], Awaitable[tuple[str, str]]]


class Pipeline:
    """Handles events of all instances of this node."""

    def __init__(
        self,
        messages: MessageStore,
        recorder: Recorder,
        account: Account,
        find_received: FindReceived,
        clock: Clock,
        wake: Callable[[str], None],
        settled: Callable[[str, bool], None],
    ) -> None:
        self._messages = messages
        self._recorder = recorder
        self._account = account
        self._find_received = find_received
        self._clock = clock
        self._wake = wake
        self._settled = settled
        self._facts: dict[str, Facts] = {}  # spares a query per event
        self._with_old_ids: set[str] | None = None  # instances with messages of an older version
        self._last_told: dict[str, type[port.EngineEvent]] = {}  # spares the integrator the same notice again and again

    async def handle(self, instance_id: str, event: port.EngineEvent, occurrence: int) -> None:
        """Commit what follows from an event. Raises when the database is away; call it again then."""
        match event:
            case port.MessageReceived():
                await self._received(instance_id, event)
            case port.ReceiptReceived():
                await self._receipt(instance_id, event)
            case port.MessageSent():
                await self._sent(instance_id, event)
            case port.MessageFailed():
                await self._failed(instance_id, event)
            case port.ChatPresence():
                facts = await self._facts_of(instance_id)
                await self._recorder.record([events.presence_chat(facts, event, f"{occurrence}")])
            case port.Connected():
                await self._connected(instance_id, event, occurrence)
            case port.Named():
                known = await self._facts_of(instance_id)
                _remember(self._facts, instance_id, msgspec.structs.replace(known, own_name=event.push_name))
            case _ if type(event) in _ENDS:
                await self._ended(instance_id, event, occurrence)

    async def gave_up(self, message: Outgoing, error: str) -> None:
        """Settle a message as failed and tell its DeliveryCallback; idempotent."""
        await self._fail(message.instance_id, message.message_id, error, lambda _message: error)

    async def resolve(self, message: Outgoing) -> port.Content:
        """The content with the author and text of what it quotes, and ids as WhatsApp has them."""
        content = message.content
        if content.edits_wa_id is not None:
            edited = await self._messages.by_message_id(message.instance_id, content.edits_wa_id)
            if edited is not None and edited.wa_id is not None:
                content = msgspec.structs.replace(content, edits_wa_id=edited.wa_id)
        if content.quote is not None:
            content = msgspec.structs.replace(content, quote=await self._quote(message, content.quote.wa_id))
        return content

    # --- one kind each ---

    async def _received(self, instance_id: str, event: port.MessageReceived) -> None:
        facts = await self._facts_of(instance_id)
        wa_ids = tuple(wa_id for wa_id in (event.edited_wa_id, event.quoted_wa_id) if wa_id)
        ours = await self._ours(instance_id, wa_ids)
        shown = event.edited_wa_id or event.wa_id
        quoted = event.quoted_wa_id
        record = events.received(
            facts,
            event,
            message_id=ours.get(shown, shown),
            reference_id=ours.get(quoted, quoted) if quoted else None,
        )
        await self._recorder.record([record])

    async def _receipt(self, instance_id: str, event: port.ReceiptReceived) -> None:
        facts = await self._facts_of(instance_id)
        ours = await self._ours(instance_id, event.wa_ids)
        shown = [ours.get(wa_id, wa_id) for wa_id in event.wa_ids]
        await self._recorder.record([events.message_status(facts, event, shown)])

    async def _sent(self, instance_id: str, event: port.MessageSent) -> None:
        facts = await self._facts_of(instance_id)

        async def report(connection: Connection, message: Outgoing) -> None:
            await write_events(connection, _told_of_sent(facts, message, event), notify=False)

        await self._messages.settle(instance_id, event.message_id, "sent", None, report)
        self._recorder.recorded_elsewhere()
        self._settled(event.message_id, True)

    async def _failed(self, instance_id: str, event: port.MessageFailed) -> None:
        again = event.unknown or event.retry
        if event.unknown:
            log.info("message.outcome_unknown", instance=instance_id, message_id=event.message_id)
        if again:
            await self._messages.give_back(instance_id, event.message_id, counted=event.unknown)
        else:
            await self._fail(instance_id, event.message_id, event.error, lambda message: _words(event, message.chat))
        self._settled(event.message_id, not again)

    async def _fail(self, instance_id: str, message_id: str, error: str, words: Callable[[Outgoing], str]) -> None:
        facts = await self._facts_of(instance_id)

        async def report(connection: Connection, message: Outgoing) -> None:
            await write_events(connection, [self._failure(facts, message, words(message))], notify=False)

        await self._messages.settle(instance_id, message_id, "failed", error, report)
        self._recorder.recorded_elsewhere()

    async def _connected(self, instance_id: str, event: port.Connected, occurrence: int) -> None:
        facts = Facts(instance_id, event.phone, event.push_name)
        if not event.push_name:  # just paired; if it is the phone that it was, its name is known all the same
            known = await self._facts_of(instance_id)
            facts = known if known.connected_phone == event.phone else facts
        await self._recorder.record([events.connected(facts, event, self._clock.now_ms(), f"{occurrence}")])
        _remember(self._facts, instance_id, facts)
        _remember(self._last_told, instance_id, port.Connected)
        self._wake(instance_id)

    async def _ended(self, instance_id: str, event: port.EngineEvent, occurrence: int) -> None:
        if self._last_told.get(instance_id) is type(event):
            return
        facts = await self._facts_of(instance_id)
        words = _ENDS[type(event)]
        await self._recorder.record([events.disconnected(facts, self._clock.now_ms(), f"{occurrence}", words)])
        _remember(self._last_told, instance_id, type(event))
        if isinstance(event, port.LoggedOut):
            self._facts.pop(instance_id, None)

    # --- helpers ---

    async def _ours(self, instance_id: str, wa_ids: tuple[str, ...]) -> dict[str, str]:
        """WhatsApp's id -> the one that was told, for messages that an older version sent; all others have one id."""
        if self._with_old_ids is None:
            self._with_old_ids = await self._messages.with_old_ids()
        if instance_id not in self._with_old_ids:
            return {}
        return await self._messages.old_ids(instance_id, tuple(wa_id for wa_id in wa_ids if _may_be_ours(wa_id)))

    def _failure(self, facts: Facts, message: Outgoing, error: str) -> NewEvent:
        return events.delivery(
            facts,
            phone=message.chat,
            zaap_id=message.zaap_id,
            message_id=message.message_id,
            at_ms=self._clock.now_ms(),
            error=error,
        )

    async def _quote(self, message: Outgoing, shown_id: str) -> port.Quote:
        ours = await self._messages.by_message_id(message.instance_id, shown_id)
        if ours is not None:
            phone = (await self._facts_of(message.instance_id)).connected_phone
            return port.Quote(ours.wa_id or ours.message_id, phone, ours.content.message)
        found = await self._find_received(message.instance_id, message.chat, shown_id)
        return port.Quote(shown_id, *(found or (message.chat, "")))

    async def _facts_of(self, instance_id: str) -> Facts:
        facts = self._facts.get(instance_id)
        if facts is None:
            facts = Facts(instance_id, *await self._account(instance_id))
            if facts.connected_phone:
                _remember(self._facts, instance_id, facts)
        return facts


def _told_of_sent(facts: Facts, message: Outgoing, event: port.MessageSent) -> list[NewEvent]:
    """DeliveryCallback, MessageStatusCallback SENT, and ReceivedCallback fromMe."""
    names = {"zaap_id": message.zaap_id, "message_id": message.message_id, "at_ms": event.at_ms}
    quote = message.content.quote
    from_me = events.received_from_api(
        facts,
        chat=message.chat,
        chat_lid=event.chat_lid,
        sender_lid=event.sender_lid,
        chat_name=event.chat_name,
        content=message.content,
        reference_id=quote.wa_id if quote else None,
        **names,  # type: ignore[arg-type]
    )
    return [
        events.delivery(facts, phone=message.chat, **names),  # type: ignore[arg-type]
        events.message_sent(facts, phone=message.chat, **names),  # type: ignore[arg-type]
        from_me,
    ]


def _words(event: port.MessageFailed, chat: str) -> str:
    """Clients look for these words in DeliveryCallback."""
    if event.code != NOT_FOUND:
        return event.error
    what = next((what for ending, what in _NOBODY.items() if chat.endswith(ending)), "Phone number")
    return f"{what} does not exist"


def _may_be_ours(wa_id: str) -> bool:
    """Contacts quote and edit under any id they like; PostgreSQL refuses to look for one with a NUL."""
    return len(wa_id) <= WA_ID_LENGTH_MAX and "\0" not in wa_id


def _remember(kept: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    """Keep the newest REMEMBERED_MAX."""
    kept.pop(key, None)
    kept[key] = value
    if len(kept) > REMEMBERED_MAX:
        del kept[next(iter(kept))]
