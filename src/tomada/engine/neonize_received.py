"""A received message: from the library's event to the port's. Pure functions.

What is dropped, because it is no message of anybody's chat: the part of a group message that only carries the
sender's key (the library tells it as a message of its own, under the same id), the phone's private messages to its
devices (keys, history), and other housekeeping.
"""

from collections.abc import Callable
from typing import Any

from tomada.engine.neonize_addresses import (
    BROADCAST,
    GROUP,
    NEWSLETTER,
    Own,
    PhoneOf,
    address,
    address_of_text,
    lid_of,
    server_of,
)
from tomada.engine.neonize_protos import e2e
from tomada.engine.port import MessageReceived, OtherReceived, ReceivedContent, TextReceived

NameOf = Callable[[Any, Any], str]  # a chat's glue.JID, and the same person's other one or None -> its name, if known

_BESIDE = {"messageContextInfo", "senderKeyDistributionMessage", "fastRatchetKeySenderKeyDistributionMessage"}
_WRAPPERS = (
    "deviceSentMessage",
    "ephemeralMessage",
    "viewOnceMessage",
    "viewOnceMessageV2",
    "viewOnceMessageV2Extension",
    "documentWithCaptionMessage",
    "editedMessage",
    "groupMentionedMessage",
    "lottieStickerMessage",
)
_WRAPPERS_DEEP_MAX = 8


def received(event: Any, own: Own, phone_of: PhoneOf, name_of: NameOf) -> MessageReceived | None:
    """A glue.Message as the port's event, or None if it says nothing to people."""
    info, message = event.Info, unwrapped(event.Message)
    edited_wa_id = None
    if _is_edit(message):
        edited_wa_id = message.protocolMessage.key.ID
        message = unwrapped(message.protocolMessage.editedMessage)
    content = content_of(message)
    if content is None or info.Category == "peer":
        return None
    source, context = info.MessageSource, context_of(message)
    chat_server = server_of(source.Chat)
    private = chat_server not in {GROUP, NEWSLETTER, BROADCAST}
    chat_alt = (source.RecipientAlt if source.IsFromMe else source.SenderAlt) if private else None
    quoted = context.stanzaID if context is not None else ""
    by_partner = private and not source.IsFromMe
    return MessageReceived(
        wa_id=info.ID,
        chat=address(source.Chat, chat_alt, own, phone_of),
        chat_lid=lid_of(source.Chat, chat_alt) if chat_alt is not None else None,
        sender=own.phone if source.IsFromMe and own.phone else address(source.Sender, source.SenderAlt, own, phone_of),
        sender_lid=own.lid or None if source.IsFromMe else lid_of(source.Sender, source.SenderAlt),
        from_me=source.IsFromMe,
        is_group=chat_server == GROUP,
        at_ms=info.Timestamp,
        push_name=info.Pushname,
        content=content,
        chat_name=(info.Pushname if by_partner else "") or name_of(source.Chat, chat_alt),
        is_edit=bool(edited_wa_id) or event.IsEdit,
        edited_wa_id=edited_wa_id or None,
        quoted_wa_id=quoted or None,
        quoted_sender=address_of_text(context.participant, own, phone_of) if context is not None and quoted else None,
        forwarded=context.isForwarded if context is not None else False,
        broadcast=chat_server == BROADCAST,
        expiration_s=context.expiration if context is not None else 0,
    )


def unwrapped(message: Any) -> Any:
    """The message inside its wrappers (disappearing, once, edited, sent by another device of ours...)."""
    for _ in range(_WRAPPERS_DEEP_MAX):
        wrapper = next((name for name in _WRAPPERS if message.HasField(name)), None)
        if wrapper is None or not getattr(message, wrapper).HasField("message"):
            break
        message = getattr(message, wrapper).message
    return message


def kind_of(message: Any) -> str | None:
    """The name of the field that holds the message proper, None if it holds none."""
    return next((field.name for field, _ in message.ListFields() if field.name not in _BESIDE), None)


def content_of(message: Any) -> ReceivedContent | None:
    """What the message says; None for what is not meant for people."""
    match kind_of(message):
        case None:
            return None
        case "conversation":
            return TextReceived(message.conversation)
        case "extendedTextMessage":
            text = message.extendedTextMessage
            return TextReceived(text.text, text.description, text.title, text.matchedText)
        case "protocolMessage":
            revoked = message.protocolMessage.type == e2e.ProtocolMessage.REVOKE
            return OtherReceived("revoke") if revoked and message.protocolMessage.HasField("key") else None
        case kind:
            return OtherReceived(kind)


def context_of(message: Any) -> Any | None:
    """The e2e.ContextInfo of whatever kind of message this is, if it has one."""
    kind = kind_of(message)
    part = getattr(message, kind) if kind else None
    fields = getattr(getattr(part, "DESCRIPTOR", None), "fields_by_name", {})
    return part.contextInfo if part is not None and "contextInfo" in fields and part.HasField("contextInfo") else None


def _is_edit(message: Any) -> bool:
    change = message.protocolMessage
    return bool(change.type == e2e.ProtocolMessage.MESSAGE_EDIT and change.HasField("editedMessage"))
