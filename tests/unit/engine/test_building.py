"""What is sent, from the port's content to the bytes of WhatsApp's message; addresses both ways."""

import pytest

from tests.unit.engine.samples import e2e
from tomada.engine.addresses import NONE, Jid, Own, address, jid_of, lid_of, parse
from tomada.engine.building import chat_of, message_of
from tomada.engine.port import EngineRefused, GroupMention, Quote, Text


def test_plain_text() -> None:
    """A text that refers to nothing is WhatsApp's short form: field 1 and the words."""
    assert message_of("551199", Text("olá"), 1) == b"\x0a\x04ol\xc3\xa1"


def test_text_with_everything() -> None:
    """Quote, mentions of people and of groups stand beside the text, by their full addresses."""
    text = Text("oi @1", Quote("W", "2@lid", "asked"), ("1",), (GroupMention("3-group", "Team"),))
    made = e2e.Message.FromString(message_of("551199", text, 1)).extendedTextMessage
    context = made.contextInfo
    assert made.text == "oi @1"
    assert (context.stanzaID, context.participant, context.quotedMessage.conversation) == ("W", "2@lid", "asked")
    assert list(context.mentionedJID) == ["1@s.whatsapp.net"]
    assert [(one.groupJID, one.groupSubject) for one in context.groupMentions] == [("3@g.us", "Team")]
    assert not context.remoteJID


def test_an_answer_in_private() -> None:
    """It goes to whoever wrote the group's message, and its quote names the group; otherwise to its chat as ever."""
    quote = Quote("W", "551188", "asked")
    text = Text("just you", quote, private_answer=True)

    assert chat_of("12-group", text) == "551188"
    context = e2e.Message.FromString(message_of("12-group", text, 1)).extendedTextMessage.contextInfo
    assert (context.stanzaID, context.participant, context.remoteJID) == ("W", "551188@s.whatsapp.net", "12@g.us")
    for chat, other in (
        ("12-group", Text("all", quote)),
        ("12-group", Text("all", private_answer=True)),
        ("12-group", Text("author not known", Quote("W", "12-group"), private_answer=True)),
        ("551199", text),
    ):
        assert chat_of(chat, other) == chat
        made = e2e.Message.FromString(message_of(chat, other, 1))
        assert not made.extendedTextMessage.contextInfo.remoteJID


def test_edit_byte_for_byte() -> None:
    """An edit has the form in which WhatsApp's own apps edit: it names chat, message and time, and wraps the new text.

    Phones show nothing at all for an edit in another form, so this one is written down to the byte.
    """
    key = b"\x0a\x07" + b"12@g.us" + b"\x10\x01" + b"\x1a\x03" + b"OLD"  # remoteJID, fromMe, ID
    new = b"\x0a\x03" + b"new"  # conversation
    change = b"\x0a" + bytes([len(key)]) + key + b"\x10\x0e" + b"\x72" + bytes([len(new)]) + new + b"\x78\x4d"
    protocol = b"\x62" + bytes([len(change)]) + change  # Message.protocolMessage = 12
    inside = b"\x0a" + bytes([len(protocol)]) + protocol  # FutureProofMessage.message = 1
    whole = b"\xd2\x03" + bytes([len(inside)]) + inside  # Message.editedMessage = 58
    assert message_of("12-group", Text("new", edits_wa_id="OLD"), 77) == whole


def test_an_edit_with_a_mention() -> None:
    """The new text may be of the long form."""
    made = e2e.Message.FromString(message_of("1", Text("new", mentioned=("2",), edits_wa_id="OLD"), 77))
    new = made.editedMessage.message.protocolMessage.editedMessage
    assert list(new.extendedTextMessage.contextInfo.mentionedJID) == ["2@s.whatsapp.net"]


@pytest.mark.parametrize(
    "content",
    [
        Text("x", Quote("W", "nobody")),
        Text("x", mentioned=("1@g.us",)),
        Text("x", group_mentioned=(GroupMention("x-group", "Team"),)),
    ],
)
def test_an_address_in_it_that_means_nothing(content: Text) -> None:
    """It is refused rather than sent with a hole in it."""
    with pytest.raises(EngineRefused):
        message_of("551199", content, 1)


@pytest.mark.parametrize(
    ("text", "jid"),
    [
        ("5544999999999", "5544999999999@s.whatsapp.net"),
        ("120363-group", "120363@g.us"),
        ("5544-1600000000-group", "5544-1600000000@g.us"),
        ("9@lid", "9@lid"),
        ("9@newsletter", "9@newsletter"),
        ("status@broadcast", "status@broadcast"),
    ],
)
def test_addresses(text: str, jid: str) -> None:
    """Every kind of address of the wire means one of WhatsApp's, and comes back from it."""
    assert str(jid_of(text)) == jid
    assert address(parse(jid), NONE, Own(), {}) == text


@pytest.mark.parametrize(
    "text", ["", "abc", "+5544", "-group", "x-group", "1@s.whatsapp.net", "1@g.us", "@lid", "1@", "٣", "1 ", "1\0"]
)
def test_no_addresses(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(EngineRefused):
        jid_of(text)


@pytest.mark.parametrize(
    ("text", "jid"),
    [
        ("5544:7@s.whatsapp.net", Jid("5544", "s.whatsapp.net", 7)),
        ("5544.0:7@s.whatsapp.net", Jid("5544", "s.whatsapp.net", 7)),
        ("5544@c.us", Jid("5544", "s.whatsapp.net")),
        ("9:99@hosted.lid", Jid("9", "lid", 99)),
        ("9:99@hosted", Jid("9", "s.whatsapp.net", 99)),
        ("5544-1600@g.us", Jid("5544-1600", "g.us")),
        ("s.whatsapp.net", NONE),
        ("@lid", NONE),
        ("", NONE),
    ],
)
def test_parse(text: str, jid: Jid) -> None:
    """User, server, device; WhatsApp's variants of a server are the server."""
    assert parse(text) == jid


def test_our_own_hidden_id_is_our_number() -> None:
    """Whoever is quoted or names us by it means us; while our number is not known it stands as it is."""
    own = parse("111@lid")
    assert address(own, NONE, Own("5511", "111@lid"), {}) == "5511"
    assert address(own, NONE, Own("", "111@lid"), {}) == "111@lid"


def test_the_first_hidden_id() -> None:
    """Of two addresses of one person."""
    assert lid_of(parse("5544@s.whatsapp.net"), parse("9:3@lid")) == "9@lid"
    assert lid_of(parse("5544@s.whatsapp.net"), NONE) is None
