"""The events of the machine protocol, as a machine tells them. docs/machine-protocol.md says what each means.

They carry a message as the bytes of WhatsApp's own protobuf beside its envelope; what it says is read in the host
(reading.py), so a kind that we cannot read yet costs nothing but itself. Addresses here are WhatsApp's JIDs as text.
"""

import msgspec


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Who and where. `_alt`: the same person under the other kind of address, empty if it is not known."""

    chat: str = ""
    chat_alt: str = ""
    chat_name: str = ""
    sender: str = ""
    sender_alt: str = ""
    from_me: bool = False
    is_group: bool = False


class Message(Source, frozen=True, kw_only=True, tag="message"):
    """A message of one of the account's chats; `raw` is a WAWebProtobufsE2E.Message, or `file` names one."""

    wa_id: str
    at_ms: int
    server_id: int = 0
    push_name: str = ""
    category: str = ""
    edit: str = ""
    retries: int = 0
    raw: bytes = b""
    file: str = ""


class Undecryptable(Source, frozen=True, kw_only=True, tag="undecryptable"):
    """A message that could not be read; its sender was asked for it again."""

    wa_id: str
    at_ms: int
    push_name: str = ""
    unavailable: str = ""
    hide: bool = False


class Receipt(Source, frozen=True, kw_only=True, tag="receipt"):
    """What became of messages: `` (delivered), `inactive`, `read`, `read-self`, `played`."""

    kind: str
    wa_ids: tuple[str, ...]
    at_ms: int


class Presence(Source, frozen=True, kw_only=True, tag="presence"):
    """available, unavailable, composing, recording, paused."""

    state: str
    last_seen_ms: int = 0


class Sent(msgspec.Struct, frozen=True, kw_only=True, tag="sent"):
    """WhatsApp acknowledged a send."""

    wa_id: str
    at_ms: int
    server_id: int = 0
    chat: str = ""
    chat_alt: str = ""
    chat_name: str = ""
    sender_alt: str = ""


class SendFailed(msgspec.Struct, frozen=True, kw_only=True, tag="send_failed"):
    """Any other outcome of a send: `refused`, `retry` (surely not sent), `unknown`. `code` is WhatsApp's own."""

    wa_id: str
    error: str
    kind: str
    code: int = 0


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Whose session it is."""

    device: str
    lid: str = ""
    push_name: str = ""
    business_name: str = ""
    platform: str = ""


class Paired(Account, frozen=True, kw_only=True, tag="paired"):
    """A phone accepted this session as a linked device."""


class Connected(Account, frozen=True, kw_only=True, tag="connected"):
    """The session is logged in."""


class Named(msgspec.Struct, frozen=True, tag="named"):
    """Our own display name."""

    push_name: str


class QrIssued(msgspec.Struct, frozen=True, tag="qr_issued"):
    """A QR text to scan."""

    code: str
    expires_ms: int


class PairingEnded(msgspec.Struct, frozen=True, tag="pairing_ended"):
    """A round of QR codes ended without a phone."""

    reason: str = ""


class Disconnected(msgspec.Struct, frozen=True, tag="disconnected"):
    """The connection broke; the machine makes it again."""

    reason: str = ""


class LoggedOut(msgspec.Struct, frozen=True, tag="logged_out"):
    """WhatsApp no longer knows this device."""

    reason: str = ""


class Replaced(msgspec.Struct, frozen=True, tag="replaced"):
    """The same device connected elsewhere."""


class Banned(msgspec.Struct, frozen=True, tag="banned"):
    """WhatsApp refuses the account for a while."""

    code: int = 0
    reason: str = ""
    expires_ms: int = 0


class Outdated(msgspec.Struct, frozen=True, tag="outdated"):
    """WhatsApp refuses this version."""


class ConnectFailed(msgspec.Struct, frozen=True, tag="connect_failed"):
    """WhatsApp refused the login for another reason."""

    code: int = 0
    reason: str = ""


Event = (
    Message
    | Undecryptable
    | Receipt
    | Presence
    | Sent
    | SendFailed
    | Paired
    | Connected
    | Named
    | QrIssued
    | PairingEnded
    | Disconnected
    | LoggedOut
    | Replaced
    | Banned
    | Outdated
    | ConnectFailed
)

_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


class NotUnderstood(Exception):
    """An event of a machine that this host does not know; it is quarantined, and nothing ends for it."""


def decode(raw: bytes) -> Event:
    """The event; raises NotUnderstood."""
    try:
        return _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotUnderstood(str(error)[:200]) from None
