"""The protocol between the host and a machine process: version 1, one JSON object a line, both ways.

Language-neutral on purpose: a machine written in another language (a Go program over whatsmeow, say) can take the place
of ours without touching the rest. docs/machine-protocol.md is the specification; these structs are its truth.

    host ──▶ machine   on the machine's standard input:  a `Command` in a `Request`, or an `Acknowledge`
    machine ──▶ host   on its standard output:           `Hello`, `Happened`, `Ready`, `Answer`

Life of a machine: it says Hello, tells again every journaled event that the host has not acknowledged, says Ready, then
takes requests. Standard input at its end means: finish what is under way (a few seconds at most), then exit. What a
machine prints to standard error is its log.

Which guarantee rests on what: an event with a `journal` number lies in the machine's journal file until the host has
acknowledged that number, and the host acknowledges only what is committed in PostgreSQL. So kill -9 of host, machine or
database loses no such event; it may be told twice, and the host stores it under a key that makes the second nothing.
"""

import msgspec

from tomada.engine.port import Content, EngineEvent, SessionSpec

VERSION = 1
LINE_BYTES_MAX = 1 << 20

# --- host to machine ----------------------------------------------------------------------------------------------


class OpenSession(msgspec.Struct, frozen=True, tag="open_session"):
    """Start a session: log in with the stored keys, or begin a round of QR codes. Answered when the engine runs."""

    spec: SessionSpec


class CloseSession(msgspec.Struct, frozen=True, tag="close_session"):
    """Stop a session; its keys stay. Answered when it is down; harmless when it is not there."""

    instance_id: str


class RequestPhoneCode(msgspec.Struct, frozen=True, tag="request_phone_code"):
    """Ask for a pairing code for a number, while the round of QR codes is on. Answer: the code, `ABCD-1234`."""

    instance_id: str
    phone: str


class Logout(msgspec.Struct, frozen=True, tag="logout"):
    """Unlink the device at WhatsApp and stop the session. The keys are worthless afterwards."""

    instance_id: str


class Send(msgspec.Struct, frozen=True, tag="send"):
    """Send a message. Answered when the machine has taken it; the outcome is a journaled event under `zaap_id`."""

    instance_id: str
    zaap_id: str
    chat: str
    content: Content


class Probe(msgspec.Struct, frozen=True, tag="probe"):
    """Is this session alive? Answer: `yes` or `no`."""

    instance_id: str


Command = OpenSession | CloseSession | RequestPhoneCode | Logout | Send | Probe


class Request(msgspec.Struct, frozen=True, tag="request"):
    """A command under a number of the host's; the answer carries the same number."""

    id: int
    command: Command


class Acknowledge(msgspec.Struct, frozen=True, tag="acknowledge"):
    """Every journaled event up to and including this number is stored; the machine forgets them."""

    journal: int


FromHost = Request | Acknowledge

# --- machine to host ----------------------------------------------------------------------------------------------


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """The first line."""

    version: int
    pid: int
    engine: str  # name and version, for people


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Everything old has been told; requests are welcome."""


class Happened(msgspec.Struct, frozen=True, omit_defaults=True, tag="happened"):
    """An event of a session. With a `journal` number (growing) it is told again until acknowledged."""

    instance_id: str
    event: EngineEvent
    journal: int | None = None


class Answer(msgspec.Struct, frozen=True, omit_defaults=True, tag="answer"):
    """The answer to a request: `value`, or `error` in words for a person. `unknown`: it may have taken effect.

    `recycle` (only with the answer to a Probe): why this machine should be replaced when convenient.
    """

    id: int
    value: str | None = None
    error: str | None = None
    unknown: bool = False
    recycle: str | None = None


FromMachine = Hello | Ready | Happened | Answer
