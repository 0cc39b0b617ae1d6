"""From what happened to the event that is recorded: body, target and dedupe key in one place.

The dedupe key says what the event *is*, so that telling it twice (a redelivered stanza, a retried transaction) records
it once. What has no identity of its own (connected, disconnected, presence) takes the `occurrence` of its caller:
anything that is the same when handled again and different when it happens again.

Parts of a key are chosen by contacts. One that no row can hold (a NUL in it, too long for the index) is kept as its
hash; a reply to such a message does not find it.
"""

import hashlib
from collections.abc import Sequence

from tomada.callbacks import shapes
from tomada.callbacks.shapes import Body, Facts
from tomada.callbacks.types import NewEvent, Target
from tomada.engine.port import ChatPresence, Connected, MessageReceived, ReceiptReceived, Text

DEDUPE_KEY_BYTES_MAX = 500  # PostgreSQL's index takes 2,700


def received(
    facts: Facts, event: MessageReceived, *, message_id: str, from_api: bool = False, reference_id: str | None = None
) -> NewEvent:
    """A message in a chat, told once however often WhatsApp delivers it."""
    body = shapes.received(facts, event, message_id=message_id, from_api=from_api, reference_id=reference_id)
    target = Target.RECEIVED_FROM_ME if event.from_me else Target.RECEIVED
    return _event(facts, target, body, f"message:{event.chat}:{event.sender}:{event.wa_id}")


def received_from_api(
    facts: Facts,
    *,
    chat: str,
    chat_lid: str | None,
    sender_lid: str | None,
    chat_name: str,
    zaap_id: str,
    message_id: str,
    content: Text,
    at_ms: int,
    reference_id: str | None = None,
) -> NewEvent:
    """A message that this instance sent for the API, as its own chat shows it."""
    body = shapes.received_from_api(
        facts,
        chat=chat,
        chat_lid=chat_lid,
        sender_lid=sender_lid,
        chat_name=chat_name,
        message_id=message_id,
        content=content,
        at_ms=at_ms,
        reference_id=reference_id,
    )
    return _event(facts, Target.RECEIVED_FROM_ME, body, f"from-api:{zaap_id}")


def delivery(
    facts: Facts, *, phone: str, zaap_id: str, message_id: str, at_ms: int, error: str | None = None
) -> NewEvent:
    """The outcome of an API message: handed to WhatsApp, or not."""
    body = shapes.delivery(facts, phone=phone, zaap_id=zaap_id, message_id=message_id, at_ms=at_ms, error=error)
    return _event(facts, Target.DELIVERY, body, f"delivery:{zaap_id}")


def message_sent(facts: Facts, *, phone: str, zaap_id: str, message_id: str, at_ms: int) -> NewEvent:
    """WhatsApp took an API message: status SENT."""
    body = shapes.message_sent(facts, phone=phone, message_ids=[message_id], at_ms=at_ms)
    return _event(facts, Target.MESSAGE_STATUS, body, f"sent:{zaap_id}")


def message_status(facts: Facts, event: ReceiptReceived, message_ids: Sequence[str]) -> NewEvent:
    """A receipt for some messages of a chat."""
    body = shapes.message_status(facts, event, message_ids)
    who = f"{event.chat}:{event.participant or event.participant_lid or ''}:{event.device}"
    messages = hashlib.sha256("\n".join(event.wa_ids).encode()).hexdigest()[:32]
    return _event(facts, Target.MESSAGE_STATUS, body, f"receipt:{event.kind}:{who}:{messages}")


def connected(facts: Facts, event: Connected, at_ms: int, occurrence: str) -> NewEvent:
    """The session opened."""
    return _event(facts, Target.CONNECTED, shapes.connected(facts, event, at_ms), f"connected:{occurrence}")


def disconnected(facts: Facts, at_ms: int, occurrence: str, error: str = shapes.DISCONNECTED_WORDS) -> NewEvent:
    """The session ended."""
    return _event(facts, Target.DISCONNECTED, shapes.disconnected(facts, at_ms, error), f"disconnected:{occurrence}")


def presence_chat(facts: Facts, event: ChatPresence, occurrence: str) -> NewEvent:
    """What the other side of a chat is doing."""
    return _event(facts, Target.PRESENCE_CHAT, shapes.presence_chat(facts, event), f"presence:{occurrence}")


def _event(facts: Facts, target: Target, body: Body, dedupe_key: str) -> NewEvent:
    return NewEvent(facts.instance_id, target, body["type"], shapes.encode(body), _keepable(dedupe_key))


def _keepable(dedupe_key: str) -> str:
    encoded = dedupe_key.encode()
    if len(encoded) <= DEDUPE_KEY_BYTES_MAX and b"\0" not in encoded:
        return dedupe_key
    kind = dedupe_key.partition(":")[0]
    return f"{kind}:{hashlib.sha256(encoded).hexdigest()}"
