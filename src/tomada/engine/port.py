"""What Tomada says of WhatsApp, in its own words: contents to send, and events.

The types here travel between the domains and lie in the queue's rows, so they are plain frozen structs with a `type`
tag and hold nothing of any library. What a machine tells is read into them (reading.py), what is sent is built from
them (building.py).

Addresses are the wire's own: digits with country code for a person, `<id>-group` for a group, `<id>@lid` where WhatsApp
hides the number, `<id>@newsletter`. Times are epoch milliseconds.
"""

import msgspec

# --- what is sent -----------------------------------------------------------------------------------------------------


class Quote(msgspec.Struct, frozen=True, omit_defaults=True):
    """The message that a reply refers to: its WhatsApp id, who wrote it (an address), and its text if known."""

    wa_id: str
    sender: str
    text: str = ""


class GroupMention(msgspec.Struct, frozen=True):
    """A group named in a text: its address and the words shown for it."""

    group: str
    subject: str


class Text(msgspec.Struct, frozen=True, omit_defaults=True, tag="text"):
    """A text message; with `edits_wa_id`, the new text of one sent before."""

    message: str
    quote: Quote | None = None
    mentioned: tuple[str, ...] = ()
    group_mentioned: tuple[GroupMention, ...] = ()
    private_answer: bool = False
    edits_wa_id: str | None = None
    typing_s: float = 0.0


Content = Text  # becomes a union as further kinds are sent; each kind is one struct with its own tag

# --- what a session tells ---------------------------------------------------------------------------------------------


class QrIssued(msgspec.Struct, frozen=True, tag="qr_issued"):
    """A QR text for the phone to scan; the next one follows by itself until the round ends."""

    code: str
    expires_ms: int


class PairingEnded(msgspec.Struct, frozen=True, tag="pairing_ended"):
    """The round of QR codes ended without a phone: `timeout`, or the engine's words."""

    reason: str


class Paired(msgspec.Struct, frozen=True, tag="paired"):
    """A phone accepted this session as a linked device; Connected follows."""

    phone: str
    lid: str
    is_business: bool
    platform: str


class Connected(msgspec.Struct, frozen=True, tag="connected"):
    """The session is logged in and receives."""

    phone: str
    lid: str
    push_name: str
    is_business: bool
    platform: str = ""


class Named(msgspec.Struct, frozen=True, tag="named"):
    """Our own display name, where Connected came before it was known (after pairing), or another one since."""

    push_name: str


class Disconnected(msgspec.Struct, frozen=True, tag="disconnected"):
    """The connection broke; the session will be connected again by itself."""

    reason: str


class LoggedOut(msgspec.Struct, frozen=True, tag="logged_out"):
    """The phone unlinked this device; its keys are worthless and it must be paired anew."""

    reason: str


class Replaced(msgspec.Struct, frozen=True, tag="replaced"):
    """The same device connected elsewhere. Never reconnected by itself: two would throw each other out for ever."""


class Banned(msgspec.Struct, frozen=True, tag="banned"):
    """WhatsApp refuses this account for a while."""

    code: int
    expires_ms: int


class Outdated(msgspec.Struct, frozen=True, tag="outdated"):
    """WhatsApp refuses this engine's version; only an upgrade helps."""


class ConnectFailed(msgspec.Struct, frozen=True, tag="connect_failed"):
    """A connect attempt was refused for another reason; tried again later."""

    code: int
    reason: str


class TextReceived(msgspec.Struct, frozen=True, omit_defaults=True, tag="text"):
    """A text; description, title, url and thumbnail only where the sender's app made a link preview."""

    message: str
    description: str = ""
    title: str = ""
    url: str = ""


class OtherReceived(msgspec.Struct, frozen=True, tag="other"):
    """A kind that is not translated yet; `kind` is the engine's name for it."""

    kind: str


ReceivedContent = TextReceived | OtherReceived


class MessageReceived(msgspec.Struct, frozen=True, omit_defaults=True, tag="message_received"):
    """A message in one of the account's chats, from others or (from_me) from the account's phone or another device."""

    wa_id: str
    chat: str  # the person's number, the group, the newsletter; `<id>@lid` if the number is hidden
    chat_lid: str | None
    sender: str  # who wrote it; in a private chat with from_me=False the same as chat
    sender_lid: str | None
    from_me: bool
    is_group: bool
    at_ms: int
    push_name: str
    content: ReceivedContent
    chat_name: str = ""  # the group's subject, or the name of the person on the other side
    is_edit: bool = False
    edited_wa_id: str | None = None
    quoted_wa_id: str | None = None
    quoted_sender: str | None = None
    forwarded: bool = False
    broadcast: bool = False
    expiration_s: int = 0


class ReceiptReceived(msgspec.Struct, frozen=True, omit_defaults=True, tag="receipt_received"):
    """What became of messages: `delivered`, `read`, `read_self` (on our own phone), `played`."""

    kind: str
    wa_ids: tuple[str, ...]
    chat: str
    chat_lid: str | None
    is_group: bool
    at_ms: int
    device: int = 0  # 0 = the phone
    participant: str | None = None  # in groups: whose receipt
    participant_lid: str | None = None


class ChatPresence(msgspec.Struct, frozen=True, omit_defaults=True, tag="chat_presence"):
    """Someone is typing or present: AVAILABLE, UNAVAILABLE, COMPOSING, PAUSED, RECORDING."""

    chat: str
    status: str
    last_seen_ms: int | None = None


class MessageSent(msgspec.Struct, frozen=True, omit_defaults=True, tag="message_sent"):
    """The outcome of a send: WhatsApp acknowledged the message, whose id is ours and WhatsApp's alike.

    `chat_lid`, `sender_lid` (our own) and `chat_name` are as in MessageReceived: what is sent for the API and what the
    phone's owner types are messages of one chat, and must look like it.
    """

    message_id: str
    at_ms: int
    chat_lid: str | None = None
    sender_lid: str | None = None
    chat_name: str = ""


class MessageFailed(msgspec.Struct, frozen=True, omit_defaults=True, tag="message_failed"):
    """The outcome of a send that was refused (`code`: WhatsApp's own number for it, or 0).

    `unknown`: it may have been sent all the same. `retry`: surely not sent, and not for the message's own fault (the
    session was not connected, or was closed first). Either may be given again, under the same id.
    """

    message_id: str
    error: str
    unknown: bool = False
    retry: bool = False
    code: int = 0


EngineEvent = (
    QrIssued
    | PairingEnded
    | Paired
    | Connected
    | Named
    | Disconnected
    | LoggedOut
    | Replaced
    | Banned
    | Outdated
    | ConnectFailed
    | MessageReceived
    | ReceiptReceived
    | ChatPresence
    | MessageSent
    | MessageFailed
)


class EngineRefused(Exception):
    """The machine or WhatsApp refused a call; the message is for a person. Nothing was done.

    `retry`: not for the call's own fault, so the same call may succeed later.
    """

    def __init__(self, words: str, *, retry: bool = False, code: int = 0) -> None:
        super().__init__(words)
        self.retry = retry
        self.code = code


class MessageTooLarge(EngineRefused):
    """This message is too large"""

    def __init__(self) -> None:
        super().__init__(self.__doc__ or "")
