"""The bodies of the six callbacks (and presence), as pure functions; key names, order and types are the wire's.

Rules that hold everywhere:

- What is absent has no key: receivers decide by the presence of `text`, `image`, ... (exactly one content key).
- Times are integers in milliseconds under the name `momment`, with two m's.
- `messageId` is Tomada's id of a message sent through the API and WhatsApp's own for all others; the caller maps it.

A new kind of content is one more function in `_content`.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from tomada.engine.port import (
    ChatPresence,
    Connected,
    MessageReceived,
    OtherReceived,
    ReceiptReceived,
    Text,
    TextReceived,
)

Body = dict[str, Any]

RECEIPT_STATUS = {"delivered": "RECEIVED", "read": "READ", "read_self": "READ_BY_ME", "played": "PLAYED"}
DISCONNECTED_WORDS = "Device has been disconnected"
NEWSLETTER_ENDING = "@newsletter"
LID_ENDING = "@lid"
GROUP_ENDING = "-group"


class Facts(msgspec.Struct, frozen=True):
    """What a body says about the instance itself: its id, its own number and its own display name."""

    instance_id: str
    connected_phone: str
    own_name: str = ""


def encode(body: Body) -> str:
    """The body as it is kept and sent."""
    return msgspec.json.encode(body).decode()


def delivery(facts: Facts, *, phone: str, zaap_id: str, message_id: str, at_ms: int, error: str | None = None) -> Body:
    """DeliveryCallback: an API message was handed to WhatsApp, or (with `error`, words for a person) was not."""
    body: Body = {
        "phone": phone,
        "zaapId": zaap_id,
        "messageId": message_id,
        "type": "DeliveryCallback",
        "instanceId": facts.instance_id,
        "momment": at_ms,
    }
    if error:
        body["error"] = error
    return body


def received(
    facts: Facts, event: MessageReceived, *, message_id: str, from_api: bool = False, reference_id: str | None = None
) -> Body:
    """ReceivedCallback for a message in a chat; `reference_id` is the id of the message it replies to.

    An edit carries the id of the message that it changes; the caller passes that as `message_id`.
    """
    return _received(
        facts,
        chat=event.chat,
        chat_lid=event.chat_lid,
        sender=event.sender,
        sender_lid=event.sender_lid,
        is_group=event.is_group,
        from_me=event.from_me,
        from_api=from_api,
        message_id=message_id,
        at_ms=event.at_ms,
        chat_name=event.chat_name,
        sender_name=event.push_name or (facts.own_name if event.from_me else ""),
        is_edit=event.is_edit,
        broadcast=event.broadcast,
        forwarded=event.forwarded,
        expiration_s=event.expiration_s,
        reference_id=reference_id,
        content=_content(event.content),
        waiting=isinstance(event.content, OtherReceived),
    )


def received_from_api(
    facts: Facts,
    *,
    chat: str,
    chat_lid: str | None,
    sender_lid: str | None,
    chat_name: str,
    message_id: str,
    content: Text,
    at_ms: int,
    reference_id: str | None = None,
) -> Body:
    """ReceivedCallback with fromMe and fromApi: a message that this instance sent for the API.

    An edit carries the id of the message that it changes, as every edit does.
    """
    return _received(
        facts,
        chat=chat,
        chat_lid=chat_lid,
        sender=facts.connected_phone,
        sender_lid=sender_lid,
        is_group=chat.endswith(GROUP_ENDING),
        from_me=True,
        from_api=True,
        message_id=content.edits_wa_id or message_id,
        at_ms=at_ms,
        chat_name=chat_name,
        sender_name=facts.own_name,
        is_edit=content.edits_wa_id is not None,
        reference_id=reference_id,
        content={"text": {"message": content.message}},
    )


def _received(
    facts: Facts,
    *,
    chat: str,
    chat_lid: str | None,
    sender: str,
    sender_lid: str | None,
    is_group: bool,
    from_me: bool,
    from_api: bool,
    message_id: str,
    at_ms: int,
    chat_name: str,
    sender_name: str,
    is_edit: bool,
    content: Body,
    broadcast: bool = False,
    forwarded: bool = False,
    expiration_s: int = 0,
    reference_id: str | None = None,
    waiting: bool = False,
) -> Body:
    hidden = sender.endswith(LID_ENDING)
    sender_lid = sender_lid or (sender if hidden else None)
    body: Body = {
        "isStatusReply": False,
        "chatLid": None if is_group else chat_lid,
        "senderLid": sender_lid if is_group or from_me else sender_lid or chat_lid,
        "connectedPhone": facts.connected_phone,
        "waitingMessage": waiting,
        "isEdit": is_edit,
        "isGroup": is_group,
        "isNewsletter": chat.endswith(NEWSLETTER_ENDING),
        "instanceId": facts.instance_id,
        "messageId": message_id,
        "phone": chat,
        "fromMe": from_me,
        "momment": at_ms,
        "status": "SENT" if from_me else "RECEIVED",
        "chatName": chat_name or (sender_name if not is_group and not from_me else "") or chat,
        "senderPhoto": None,
        "senderName": sender_name or sender,
        "photo": None,
        "broadcast": broadcast,
        "participantLid": sender_lid if is_group else None,
        "forwarded": forwarded,
        "type": "ReceivedCallback",
        "fromApi": from_api,
    }
    if is_group:
        body["participantPhone"] = None if hidden else sender
    if expiration_s:
        body["messageExpirationSeconds"] = expiration_s
    if reference_id:
        body["referenceMessageId"] = reference_id
    return body | content


def _content(content: TextReceived | OtherReceived) -> Body:
    """The one content key of a message; nothing for kinds that are not translated (`waitingMessage` is true then)."""
    if isinstance(content, TextReceived):
        text = {
            "message": content.message,
            "description": content.description,
            "title": content.title,
            "url": content.url,
        }
        return {"text": {key: value for key, value in text.items() if value or key == "message"}}
    return {}


def message_sent(facts: Facts, *, phone: str, message_ids: Sequence[str], at_ms: int) -> Body:
    """MessageStatusCallback SENT: WhatsApp took an API message."""
    return _status(facts, "SENT", message_ids, at_ms, 0, phone, phone.endswith(GROUP_ENDING))


def message_status(facts: Facts, event: ReceiptReceived, message_ids: Sequence[str]) -> Body:
    """MessageStatusCallback for a receipt; `message_ids` are its messages' ids as the wire knows them."""
    participant = event.participant or event.participant_lid if event.is_group else None
    status = RECEIPT_STATUS[event.kind]
    return _status(facts, status, message_ids, event.at_ms, event.device, event.chat, event.is_group, participant)


def _status(
    facts: Facts,
    status: str,
    message_ids: Sequence[str],
    at_ms: int,
    device: int,
    phone: str,
    is_group: bool,
    participant: str | None = None,
) -> Body:
    body: Body = {
        "instanceId": facts.instance_id,
        "status": status,
        "ids": list(message_ids),
        "momment": at_ms,
        "phoneDevice": device,
        "phone": phone,
    }
    if participant:
        body |= {"participant": participant, "participantDevice": device}
    return body | {"type": "MessageStatusCallback", "isGroup": is_group}


def connected(facts: Facts, event: Connected, at_ms: int) -> Body:
    """ConnectedCallback: the session opened, by pairing, restart or reconnect."""
    return {
        "type": "ConnectedCallback",
        "connected": True,
        "momment": at_ms,
        "instanceId": facts.instance_id,
        "phone": event.phone,
        "isBusiness": event.is_business,
    }


def disconnected(facts: Facts, at_ms: int, error: str = DISCONNECTED_WORDS) -> Body:
    """DisconnectedCallback: the session ended."""
    return {
        "momment": at_ms,
        "error": error,
        "disconnected": True,
        "type": "DisconnectedCallback",
        "instanceId": facts.instance_id,
    }


def presence_chat(facts: Facts, event: ChatPresence) -> Body:
    """PresenceChatCallback: what the other side of a chat is doing."""
    return {
        "type": "PresenceChatCallback",
        "phone": event.chat,
        "status": event.status,
        "lastSeen": event.last_seen_ms,
        "instanceId": facts.instance_id,
    }
