"""The library's other events: receipts, presence, pairing, refusals. Pure functions from protobuf to port."""

from typing import Any

from tomada.engine.neonize_addresses import GROUP, HIDDEN, Own, PhoneOf, address, lid_of, server_of
from tomada.engine.neonize_protos import glue
from tomada.engine.port import Banned, ChatPresence, Connected, ConnectFailed, LoggedOut, Paired, ReceiptReceived

# `SERVER_ERROR` is what the library makes of played-self: our own phone played a voice message; nobody asks for it.
_KINDS = {"DELIVERED": "delivered", "INACTIVE": "delivered", "READ": "read", "READ_SELF": "read_self"} | {
    "PLAYED": "played"
}
_BUSINESS = {"smba", "smbi"}  # the platforms of WhatsApp Business on Android and iPhone
# WhatsApp's numbers behind the library's names.
_BAN_CODES = {
    "SEND_TO_TOO_MANY_PEOPLE": 101,
    "BLOCKED_BY_USERS": 102,
    "CREATED_TOO_MANY_GROUPS": 103,
    "SENT_TOO_MANY_SAME_MESSAGE": 104,
    "BROADCAST_LIST": 106,
}
_FAILURE_CODES = {
    "GENERIC": 400,
    "LOGGED_OUT": 401,
    "TEMP_BANNED": 402,
    "MAIN_DEVICE_GONE": 403,
    "UNKNOWN_LOGOUT": 406,
    "CLIENT_OUTDATED": 405,
    "BAD_USER_AGENT": 409,
    "INTERNAL_SERVER_ERROR": 500,
    "EXPERIMENTAL": 501,
    "SERVICE_UNAVAILABLE": 503,
}


def receipt(event: Any, own: Own, phone_of: PhoneOf) -> ReceiptReceived | None:
    """A glue.Receipt, or None for the kinds that only devices care about."""
    source = event.MessageSource
    kind = _KINDS.get(glue.Receipt.ReceiptType.Name(event.Type))
    if source.IsFromMe:
        kind = "read_self" if kind in {"read", "read_self"} else None
    if kind is None or not event.MessageIDs:
        return None
    is_group = server_of(source.Chat) == GROUP
    chat_alt = None if is_group else source.RecipientAlt if source.IsFromMe else source.SenderAlt
    by_other = is_group and not source.IsFromMe
    return ReceiptReceived(
        kind=kind,
        wa_ids=tuple(event.MessageIDs),
        chat=address(source.Chat, chat_alt, own, phone_of),
        chat_lid=None if is_group else lid_of(source.Chat, chat_alt),
        is_group=is_group,
        at_ms=event.Timestamp * 1000,
        device=source.Sender.Device,
        participant=address(source.Sender, source.SenderAlt, own, phone_of) if by_other else None,
        participant_lid=lid_of(source.Sender, source.SenderAlt) if by_other else None,
    )


def chat_presence(event: Any, own: Own, phone_of: PhoneOf) -> ChatPresence | None:
    """A glue.ChatPresence: somebody types, records or stops."""
    source = event.MessageSource
    if source.IsFromMe:
        return None
    chat_alt = None if server_of(source.Chat) == GROUP else source.SenderAlt
    if event.State == glue.ChatPresence.PAUSED:
        status = "PAUSED"
    else:
        status = "RECORDING" if event.Media == glue.ChatPresence.AUDIO else "COMPOSING"
    return ChatPresence(chat=address(source.Chat, chat_alt, own, phone_of), status=status)


def presence(event: Any, own: Own, phone_of: PhoneOf) -> ChatPresence:
    """A glue.Presence: somebody came or went."""
    last_seen_ms = event.LastSeen * 1000 if event.LastSeen > 0 else None
    status = "UNAVAILABLE" if event.Unavailable else "AVAILABLE"
    return ChatPresence(address(event.From, None, own, phone_of), status, last_seen_ms)


def own_of(me: Any) -> Own:
    """A glue.Device as our own addresses."""
    return Own(me.JID.User, f"{me.LID.User}@{HIDDEN}" if me.LID.User else "")


def is_business(me: Any) -> bool:
    """Is it an account of WhatsApp Business?"""
    return bool(me.BussinessName) or me.Platform.lower() in _BUSINESS


def paired(me: Any) -> Paired:
    """A glue.Device just after pairing."""
    own = own_of(me)
    return Paired(own.phone, own.lid, is_business(me), me.Platform)


def connected(me: Any) -> Connected:
    """A glue.Device just after login."""
    own = own_of(me)
    return Connected(own.phone, own.lid, me.PushName, is_business(me), me.Platform)


def logged_out(event: Any) -> LoggedOut:
    """A glue.LoggedOut; the reason is `unlinked` while connected, else what WhatsApp said at login."""
    name = glue.ConnectFailureReason.Name(event.Reason).lower()
    return LoggedOut(name if event.OnConnect else "unlinked")


def banned(event: Any, now_ms: int) -> Banned:
    """A glue.TemporaryBan, whose end counts from now."""
    name = glue.TemporaryBan.TempBanReason.Name(event.Code)
    return Banned(_BAN_CODES.get(name, 0), now_ms + event.Expire * 1000)


def connect_failed(event: Any) -> ConnectFailed:
    """A glue.ConnectFailure."""
    name = glue.ConnectFailureReason.Name(event.Reason)
    return ConnectFailed(_FAILURE_CODES.get(name, 0), event.Message or name.lower())
