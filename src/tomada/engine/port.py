"""What Tomada asks of an engine, and what it hears from one.

The types here travel in two places: between a machine process and its engine (as Python objects), and between the host
and its machines (as JSON, see machines/protocol.py). So they are plain frozen structs with a `type` tag,
language-neutral, and hold nothing of any library.

Addresses are the wire's own: digits with country code for a person, `<id>-group` for a group, `<id>@lid` where WhatsApp
hides the number, `<id>@newsletter`. Times are epoch milliseconds.

What may be relied on: a session emits events in the order in which its engine gave them; `emit` may be called from any
thread and returns only when the event is safe in the machine's journal (but for receipts during a send, which wait for
its outcome, see machines/inside_receipts.py). What may not: WhatsApp has already been told that a message arrived when
`emit` is called (the engine acknowledges early), so a crash between the two loses that message. docs/engine.md prints
the measured width of that window.
"""

from collections.abc import Callable
from typing import Protocol

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

# --- what the host asks of a session ----------------------------------------------------------------------------------


class SessionSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """All an engine needs to open the session of one instance."""

    instance_id: str
    store: str  # where the session's keys live: a file path, or a PostgreSQL URL
    session_name: str  # shown by the phone under linked devices
    proxy_url: str | None = None


class Sent(msgspec.Struct, frozen=True):
    """WhatsApp took a message: the id it has there, and when; the rest as in MessageSent."""

    wa_id: str
    at_ms: int
    chat_lid: str | None = None
    sender_lid: str | None = None
    chat_name: str = ""


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


class SessionEnded(msgspec.Struct, frozen=True, tag="session_ended"):
    """The engine's event pump of this session ended, so it is deaf although it may look connected: start it anew."""

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
    """The outcome of a send: `zaap_id` is the outgoing message's; WhatsApp acknowledged it under `wa_id`.

    `chat_lid`, `sender_lid` (our own) and `chat_name` are as in MessageReceived: what is sent for the API and what the
    phone's owner types are messages of one chat, and must look like it.
    """

    zaap_id: str
    wa_id: str
    at_ms: int
    chat_lid: str | None = None
    sender_lid: str | None = None
    chat_name: str = ""


class MessageFailed(msgspec.Struct, frozen=True, tag="message_failed"):
    """The outcome of a send that WhatsApp or the engine refused. `unknown`: it may have been sent all the same.

    `retry`: surely not sent, and not for the message's own fault (the session was not connected, or was closed first):
    it may be given again.
    """

    zaap_id: str
    error: str
    unknown: bool
    retry: bool = False


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
    | SessionEnded
    | MessageReceived
    | ReceiptReceived
    | ChatPresence
    | MessageSent
    | MessageFailed
)

Emit = Callable[[EngineEvent], None]


class EngineRefused(Exception):
    """The engine or WhatsApp refused a call; the message is for a person. Nothing was done.

    `retry`: not for the call's own fault, so the same call may succeed once the session is connected.
    """

    retry = False


class MessageTooLarge(EngineRefused):
    """This message is too large"""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


class OutcomeUnknown(Exception):
    """A call may or may not have taken effect: the answer did not come in time."""


class EngineSession(Protocol):
    """One live client of WhatsApp. Calls on a session that is not running raise EngineRefused."""

    async def start(self) -> None:
        """Connect with the stored keys, or begin a round of QR codes. Returns when the engine runs."""

    async def stop(self) -> None:
        """Disconnect and release everything; harmless when stopped already."""

    async def send(self, chat: str, content: Content) -> Sent:
        """Send; raises EngineRefused, or OutcomeUnknown when no answer came."""

    async def show_typing(self, chat: str) -> None:
        """Show the other side that a text is being written. Never raises: what goes wrong is only logged."""

    async def phone_code(self, phone: str) -> str:
        """Ask for a pairing code (`ABCD-1234`) for this number, while a round of QR codes is on."""

    async def logout(self) -> None:
        """Unlink this device at WhatsApp, so that it vanishes from the phone; the keys are worthless afterwards."""

    async def alive(self) -> bool:
        """Probe: does the connection still answer? False means deaf."""


class Engine(Protocol):
    """A library that speaks WhatsApp."""

    name: str
    version: str

    def open(self, spec: SessionSpec, emit: Emit) -> EngineSession:
        """Make the session of one instance; nothing runs until start()."""

    def recycle_due(self) -> str | None:
        """Why the engine's process should be replaced when convenient, or None."""
