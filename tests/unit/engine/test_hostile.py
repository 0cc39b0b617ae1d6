"""What somebody could send to harm us. A failure to read is an error that the host sees and quarantines; nothing ends.

Errors that are no `Exception` (a stack that overflows in C, a process out of memory) would be more than that.
"""

import base64
import json

import msgspec
import pytest
from google.protobuf.message import DecodeError

from tests.unit.engine.samples import KNOWN, OWN, THEIRS, e2e, message, received, text
from tomada.engine import reading, told
from tomada.engine.port import OtherReceived, TextReceived


def raw(content: bytes) -> told.Message:
    """A message with these bytes in it."""
    return msgspec.structs.replace(message(text("")), raw=content)


def wrapped(depth: int, wrapper: str = "ephemeralMessage") -> bytes:
    """A text inside this many wrappers, as bytes: the library would refuse to build what it refuses to read."""
    number = e2e.Message.DESCRIPTOR.fields_by_name[wrapper].number
    content: bytes = text("inside").SerializeToString()
    for _ in range(depth):
        inner = b"\x0a" + _varint(len(content)) + content
        content = _varint(number << 3 | 2) + _varint(len(inner)) + inner
    return content


def _varint(number: int) -> bytes:
    head = b""
    while number > 127:
        head += bytes([number & 127 | 128])
        number >>= 7
    return head + bytes([number])


def test_more_wrappers_than_anybody_needs() -> None:
    """Eight are opened; what is still wrapped then is of an unknown kind."""
    assert received(raw(wrapped(8))).content == TextReceived("inside")
    assert received(raw(wrapped(9))).content == OtherReceived("ephemeralMessage")


@pytest.mark.parametrize("depth", [60, 1000, 20_000])
def test_wrappers_without_end(depth: int) -> None:
    """So deep that the protobuf library does not follow: an error, quickly, and no overflow."""
    with pytest.raises(DecodeError):
        reading.read(raw(wrapped(depth)), KNOWN)


def test_quotes_within_quotes_are_not_followed() -> None:
    """Only the first is looked at, however deep they go."""
    content = e2e.Message()
    inner = content
    for n in range(20):
        context = inner.extendedTextMessage.contextInfo
        inner.extendedTextMessage.text = f"{n}"
        context.stanzaID, context.participant = f"Q{n}", f"{n}@lid"
        inner = context.quotedMessage
    assert reading.unknown_numbers(message(content), OWN) == ["0@lid"]
    assert received(message(content)).quoted_wa_id == "Q0"


@pytest.mark.parametrize(
    "content", [b"\xff", b"\x0a\x05oi", b"\x0a\xff\xff\xff\xff\x0f", b"\x0b" * 100_000, bytes(range(256))]
)
def test_what_is_no_message(content: bytes) -> None:
    """Bytes that are no protobuf are an error."""
    with pytest.raises(DecodeError):
        reading.read(raw(content), KNOWN)
    with pytest.raises(DecodeError):
        reading.unknown_numbers(raw(content), OWN)


def test_a_text_that_is_no_text() -> None:
    """Bytes that are no UTF-8, as of an emoji cut in half, cost those characters and not the message."""
    assert received(raw(b"\x0a\x06oi \xf0\x9f\x8e")).content == TextReceived("oi \ufffd")
    context = e2e.ContextInfo(stanzaID="QQ", participant="12@lid")
    extended = e2e.ExtendedTextMessage(text="ab", matchedText="cd", title="ef", description="gh", contextInfo=context)
    content = e2e.Message(extendedTextMessage=extended).SerializeToString()
    for words in (b"QQ", b"12", b"ab", b"cd", b"ef", b"gh"):
        assert content.count(words) == 1
        content = content.replace(words, b"\xff\xfe")
    reading.unknown_numbers(raw(content), OWN)
    found = received(raw(content))
    nonsense = "\ufffd\ufffd"
    assert found.content == TextReceived(nonsense, nonsense, nonsense, nonsense)
    assert (found.quoted_wa_id, found.quoted_sender) == (nonsense, f"{nonsense}@lid")


def test_nuls_come_as_they_are() -> None:
    """A NUL is a character; who stores texts where none may be, takes it out there."""
    event = told.decode(msgspec.json.encode(message(text("a\0b"), push_name="A\0na")))
    assert isinstance(event, told.Message)
    found = received(event)
    assert (found.content, found.push_name) == (TextReceived("a\0b"), "A\0na")


def test_fields_that_nobody_knows() -> None:
    """A kind newer than our schemas holds nothing that we know: it is left out, like any housekeeping."""
    unknown = _varint(5000 << 3 | 2) + b"\x02hi"
    assert reading.read(raw(unknown), KNOWN) is None
    assert received(raw(text("oi").SerializeToString() + unknown)).content == TextReceived("oi")


def test_an_enumeration_beyond_its_values() -> None:
    """A protocol note of a type that we do not know says nothing to people."""
    note = b"\x10\xe7\x07"  # its type is 999
    number = e2e.Message.DESCRIPTOR.fields_by_name["protocolMessage"].number
    assert reading.read(raw(_varint(number << 3 | 2) + _varint(len(note)) + note), KNOWN) is None


@pytest.mark.parametrize("participant", ["@", "@lid", "1:2:3@lid", "a b@lid", "1@2@lid", "\0@lid", "é@x", ":@lid"])
def test_a_quote_of_nonsense(participant: str) -> None:
    """Who quotes nobody is heard all the same."""
    context = e2e.ContextInfo(stanzaID="Q", participant=participant)
    extended = e2e.ExtendedTextMessage(text="oi", contextInfo=context)
    event = message(e2e.Message(extendedTextMessage=extended))
    reading.unknown_numbers(event, OWN)
    assert received(event).content == TextReceived("oi")


def test_a_device_without_end() -> None:
    """A number of thousands of digits is no device, and no failure: the text is heard."""
    context = e2e.ContextInfo(stanzaID="Q", participant=f"1:{'9' * 6000}@lid")
    extended = e2e.ExtendedTextMessage(text="oi", contextInfo=context)
    assert received(message(e2e.Message(extendedTextMessage=extended))).quoted_sender == "1@lid"


def _json(**fields: object) -> bytes:
    return json.dumps({"type": "message", "wa_id": "W", "at_ms": 1, **THEIRS, **fields}).encode()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"null",
        b'{"type":"of the future"}',
        b'{"type":"message"}',
        b'{"type":"message","wa_id":"\xff","at_ms":1}',
        b'{"type":"named","push_name":"\\ud800"}',
        b'{"type":"named","push_name":"x","more":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        _json(at_ms="soon"),
        _json(at_ms=1e300),
        _json(raw="not base64!"),
        _json(raw=17),
        _json(from_me="yes"),
    ],
    ids=lambda line: line[:60].decode(errors="replace"),
)
def test_what_is_no_event(line: bytes) -> None:
    """Anything that the protocol does not have is not understood, in words and without an end to anything."""
    with pytest.raises(told.NotUnderstood):
        told.decode(line)


def test_a_message_as_the_machine_writes_it() -> None:
    """Base64 is the protocol's word for bytes, padded, as Go writes it."""
    event = told.decode(_json(raw=base64.b64encode(text("olá!").SerializeToString()).decode()))
    assert isinstance(event, told.Message)
    assert received(event).content == TextReceived("olá!")
