"""The protocol between the host and a machine process: version 2, one JSON object a line, both ways.

docs/machine-protocol.md is the specification; the machine's side is machine/internal/protocol, and both sides read the
samples that lie there.

    host ──▶ machine   on the machine's standard input:  a `Command` in a `Request`, or an `Acknowledge`
    machine ──▶ host   on its standard output:           `Hello`, `Ready`, `Happened`, `Answer`

Which guarantee rests on what: an event with a number is not acknowledged to WhatsApp before the host has acknowledged
that number, and the host acknowledges only what is committed in PostgreSQL. So kill -9 of host, machine or database
loses no such event: WhatsApp brings it again, and the host stores it under a key that makes the second nothing.
"""

from typing import Any, Literal

import msgspec

VERSION = 2
LINE_BYTES_MAX = 1 << 20

# --- host to machine ----------------------------------------------------------------------------------------------


class Spec(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that is needed to open a session; `pair`: begin a round of QR codes if the store holds no device."""

    instance_id: str
    store_key: str
    session_name: str
    proxy_url: str = ""
    pair: bool = False


class Outgoing(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message to send: our id, JIDs as text, and the bytes of a WAWebProtobufsE2E.Message."""

    wa_id: str
    chat: str
    raw: bytes
    shown_as: str = ""  # the chat in which it is shown, if that is another one
    typing_s: float = 0.0


class OpenSession(msgspec.Struct, frozen=True, tag="open_session"):
    """Start a session. Answer: `Opened`; without a device, and not to pair, nothing was started."""

    spec: Spec


class CloseSession(msgspec.Struct, frozen=True, tag="close_session"):
    """Stop a session; its keys stay. Answered when it is down; harmless when it is not there."""

    instance_id: str


class RequestPhoneCode(msgspec.Struct, frozen=True, tag="request_phone_code"):
    """Ask for a pairing code for a number, while the round of QR codes is on. Answer: the code, `ABCD-1234`."""

    instance_id: str
    phone: str


class Logout(msgspec.Struct, frozen=True, tag="logout"):
    """Unlink the device at WhatsApp and stop the session; its keys are erased."""

    instance_id: str


class Send(msgspec.Struct, frozen=True, tag="send"):
    """Send a message. Answered when the machine has taken it; the outcome is an event with its id."""

    instance_id: str
    message: Outgoing


class Probe(msgspec.Struct, frozen=True, tag="probe"):
    """Is this session alive? Answer: a boolean."""

    instance_id: str


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    """A question that changes nothing which must survive; Hello names those that the machine knows."""

    instance_id: str
    name: str
    arguments: Any


Command = OpenSession | CloseSession | RequestPhoneCode | Logout | Send | Probe | Ask


class Request(msgspec.Struct, frozen=True, tag="request"):
    """A command under a number of the host's; the answer carries the same number."""

    id: int
    command: Command


class Acknowledge(msgspec.Struct, frozen=True, tag="acknowledge"):
    """The events with these numbers are stored."""

    numbers: list[int]


FromHost = Request | Acknowledge

# --- machine to host ----------------------------------------------------------------------------------------------


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """The first line."""

    version: int
    pid: int
    engine: str  # name and version, for people
    traits: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Requests are welcome."""


class Happened(msgspec.Struct, frozen=True, omit_defaults=True, tag="happened"):
    """An event of a session (engine/told.py); with a number it waits, unacknowledged to WhatsApp, for our commit."""

    instance_id: str
    event: msgspec.Raw
    number: int = 0


class Answer(msgspec.Struct, frozen=True, omit_defaults=True, tag="answer"):
    """The answer to a request: a value of any JSON, or `error` in words for a person and what it means."""

    id: int
    value: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""
    kind: Literal["refused", "retry", "unknown", ""] = ""
    code: int = 0


class Opened(msgspec.Struct, frozen=True):
    """The answer to OpenSession: the device that the store holds, empty if none."""

    device: str


FromMachine = Hello | Ready | Happened | Answer
