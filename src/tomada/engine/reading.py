"""From what a machine tells to the port's events. Pure functions, one table.

What is dropped, because it is no message of anybody's chat: the part of a group message that only carries the
sender's key (it comes as a message of its own, under the same id), the phone's private messages to its devices (keys,
history), and other housekeeping.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from tomada.engine import port, told
from tomada.engine.addresses import (
    BROADCAST,
    GROUP,
    HIDDEN,
    NEWSLETTER,
    NONE,
    PERSON,
    Jid,
    Own,
    address,
    lid_of,
    parse,
)
from tomada.kit.protobufs import Package

_e2e = Package("WAWebProtobufsE2E")

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
_RECEIPTS = {"": "delivered", "inactive": "delivered", "read": "read", "read-self": "read_self", "played": "played"}
_BUSINESS = {"smba", "smbi"}  # the platforms of WhatsApp Business on Android and iPhone


class Known(NamedTuple):
    """What is known beside the event: whose session it is, and numbers behind hidden ids (`<id>@lid` -> digits)."""

    own: Own
    numbers: dict[str, str]


def read(event: told.Event, known: Known) -> port.EngineEvent | None:
    """The port's event, or None if it says nothing to people."""
    reader = READERS.get(type(event))
    return reader(event, known) if reader is not None else None


def unknown_numbers(event: told.Event, own: Own) -> list[str]:
    """Hidden ids inside a message whose numbers have to be looked up before it is read: the author that it quotes."""
    if not isinstance(event, told.Message):
        return []
    context = context_of(_opened(event).message)
    author = parse(_words(context.participant)) if context is not None else NONE
    if author.server != HIDDEN or str(author) == own.lid or str(author) in _said_beside(event):
        return []
    return [str(author)]


def _received(event: told.Message, known: Known) -> port.MessageReceived | None:
    message, edited_wa_id, marked = _opened(event)
    content = content_of(message)
    if content is None or event.category == "peer":
        return None
    own, numbers = known.own, known.numbers | _said_beside(event)
    chat, chat_alt, sender, sender_alt = _sides(event)
    context = context_of(message)
    quoted = _words(context.stanzaID) if context is not None else ""
    author = parse(_words(context.participant)) if context is not None and quoted else NONE
    private = chat.server not in {GROUP, NEWSLETTER, BROADCAST}
    by_partner = private and not event.from_me
    return port.MessageReceived(
        wa_id=event.wa_id,
        chat=address(chat, chat_alt, own, numbers),
        chat_lid=lid_of(chat, chat_alt) if private else None,
        sender=own.phone if event.from_me and own.phone else address(sender, sender_alt, own, numbers),
        sender_lid=own.lid or None if event.from_me else lid_of(sender, sender_alt),
        from_me=event.from_me,
        is_group=chat.server == GROUP,
        at_ms=event.at_ms,
        push_name=event.push_name,
        content=content,
        chat_name=(event.push_name if by_partner else "") or event.chat_name,
        is_edit=bool(edited_wa_id) or marked,
        edited_wa_id=edited_wa_id or None,
        quoted_wa_id=quoted or None,
        quoted_sender=address(author, NONE, own, numbers) if author.user else None,
        forwarded=context.isForwarded if context is not None else False,
        broadcast=chat.server == BROADCAST,
        expiration_s=context.expiration if context is not None else 0,
    )


def _receipt(event: told.Receipt, known: Known) -> port.ReceiptReceived | None:
    kind = _RECEIPTS.get(event.kind)
    if event.from_me:
        kind = "read_self" if kind in {"read", "read_self"} else None
    if kind is None or not event.wa_ids:
        return None
    own, numbers = known
    chat, chat_alt, sender, sender_alt = _sides(event)
    is_group = chat.server == GROUP
    by_other = is_group and not event.from_me
    return port.ReceiptReceived(
        kind=kind,
        wa_ids=event.wa_ids,
        chat=address(chat, chat_alt, own, numbers),
        chat_lid=None if is_group else lid_of(chat, chat_alt),
        is_group=is_group,
        at_ms=event.at_ms,
        device=sender.device,
        participant=address(sender, sender_alt, own, numbers) if by_other else None,
        participant_lid=lid_of(sender, sender_alt) if by_other else None,
    )


def _presence(event: told.Presence, known: Known) -> port.ChatPresence | None:
    if event.from_me:
        return None
    chat, chat_alt, _, _ = _sides(event)
    return port.ChatPresence(
        address(chat, chat_alt, known.own, known.numbers), event.state.upper(), event.last_seen_ms or None
    )


def _sent(event: told.Sent, _known: Known) -> port.MessageSent:
    return port.MessageSent(
        message_id=event.wa_id,
        at_ms=event.at_ms,
        chat_lid=lid_of(parse(event.chat), parse(event.chat_alt)),
        sender_lid=lid_of(parse(event.sender_alt)),
        chat_name=event.chat_name,
    )


def _send_failed(event: told.SendFailed, _known: Known) -> port.MessageFailed:
    return port.MessageFailed(
        message_id=event.wa_id,
        error=event.error,
        code=event.code,
        unknown=event.kind == "unknown",
        retry=event.kind == "retry",
    )


def _paired(event: told.Paired, _known: Known) -> port.Paired:
    return port.Paired(parse(event.device).user, _own_lid(event), _is_business(event), event.platform)


def _connected(event: told.Connected, _known: Known) -> port.Connected:
    return port.Connected(
        parse(event.device).user, _own_lid(event), event.push_name, _is_business(event), event.platform
    )


def _own_lid(account: told.Account) -> str:
    return lid_of(parse(account.lid)) or ""


def _is_business(account: told.Account) -> bool:
    return bool(account.business_name) or account.platform.lower() in _BUSINESS


READERS: dict[type[told.Event], Callable[[Any, Known], port.EngineEvent | None]] = {
    told.Message: _received,
    told.Receipt: _receipt,
    told.Presence: _presence,
    told.Sent: _sent,
    told.SendFailed: _send_failed,
    told.Paired: _paired,
    told.Connected: _connected,
    told.Named: lambda event, _: port.Named(event.push_name),
    told.QrIssued: lambda event, _: port.QrIssued(event.code, event.expires_ms),
    told.PairingEnded: lambda event, _: port.PairingEnded(event.reason),
    told.Disconnected: lambda event, _: port.Disconnected(event.reason),
    told.LoggedOut: lambda event, _: port.LoggedOut(event.reason),
    told.Replaced: lambda _event, _: port.Replaced(),
    told.Banned: lambda event, _: port.Banned(event.code, event.expires_ms),
    told.Outdated: lambda _event, _: port.Outdated(),
    told.ConnectFailed: lambda event, _: port.ConnectFailed(event.code, event.reason),
}
"""Undecryptable is not among them: what integrators hear of a message that cannot be read is still to be built."""


# --- inside a message -------------------------------------------------------------------------------------------------


def unwrapped(message: Any, wrappers: set[str] | None = None) -> Any:
    """The message inside its wrappers (disappearing, once, edited, sent by another device of ours...), noted there."""
    for _ in range(_WRAPPERS_DEEP_MAX):
        wrapper = next((name for name in _WRAPPERS if message.HasField(name)), None)
        if wrapper is None or not getattr(message, wrapper).HasField("message"):
            break
        message = getattr(message, wrapper).message
        if wrappers is not None:
            wrappers.add(wrapper)
    return message


def kind_of(message: Any) -> str | None:
    """The name of the field that holds the message proper, None if it holds none."""
    return next((field.name for field, _ in message.ListFields() if field.name not in _BESIDE), None)


def content_of(message: Any) -> port.ReceivedContent | None:
    """What the message says; None for what is not meant for people."""
    match kind_of(message):
        case None:
            return None
        case "conversation":
            return port.TextReceived(_words(message.conversation))
        case "extendedTextMessage":
            text = message.extendedTextMessage
            return port.TextReceived(*map(_words, (text.text, text.description, text.title, text.matchedText)))
        case "protocolMessage":
            revoked = message.protocolMessage.type == _e2e.ProtocolMessage.REVOKE
            return port.OtherReceived("revoke") if revoked and message.protocolMessage.HasField("key") else None
        case kind:
            return port.OtherReceived(kind)


def context_of(message: Any) -> Any | None:
    """The ContextInfo of whatever kind of message this is, if it has one."""
    kind = kind_of(message)
    part = getattr(message, kind) if kind else None
    fields = getattr(getattr(part, "DESCRIPTOR", None), "fields_by_name", {})
    return part.contextInfo if part is not None and "contextInfo" in fields and part.HasField("contextInfo") else None


def _words(text: str | bytes) -> str:
    """A text of a message; protobuf gives bytes where a sender wrote what is no UTF-8, such as half an emoji."""
    return text if isinstance(text, str) else text.decode(errors="replace")


class _Opened(NamedTuple):
    """A message out of its wrappers; the id of the one that it edits; whether it came in the wrapper of edits."""

    message: Any
    edited_wa_id: str
    marked: bool


def _opened(event: told.Message) -> _Opened:
    message, wrappers = _e2e.Message.FromString(event.raw), set[str]()
    message = unwrapped(message, wrappers)
    change = message.protocolMessage
    if change.type == _e2e.ProtocolMessage.MESSAGE_EDIT and change.HasField("editedMessage"):
        return _Opened(unwrapped(change.editedMessage), _words(change.key.ID), True)
    return _Opened(message, "", "editedMessage" in wrappers)


def _said_beside(event: told.Source) -> dict[str, str]:
    """The numbers that the envelope itself gives with hidden ids."""
    chat, chat_alt, sender, sender_alt = _sides(event)
    pairs = ((chat, chat_alt), (sender, sender_alt))
    return {str(jid): alt.user for jid, alt in pairs if jid.server == HIDDEN and alt.server == PERSON}


def _sides(event: told.Source) -> tuple[Jid, Jid, Jid, Jid]:
    return parse(event.chat), parse(event.chat_alt), parse(event.sender), parse(event.sender_alt)
