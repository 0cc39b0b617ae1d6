"""What is sent, from the port's content to WhatsApp's message; addresses both ways; the store's words."""

import pytest

from tomada.engine.neonize_addresses import jid_of, jid_text
from tomada.engine.neonize_content import chat_of, message_of
from tomada.engine.neonize_protos import e2e
from tomada.engine.neonize_store import is_postgres, store_text
from tomada.engine.port import EngineRefused, GroupMention, Quote, Text


def test_plain_text() -> None:
    """A text that refers to nothing is WhatsApp's short form."""
    assert message_of("551199", Text("oi"), 1) == e2e.Message(conversation="oi")


def test_text_with_everything() -> None:
    """Quote, mentions of people and of groups stand beside the text, by their full addresses."""
    text = Text("oi @1", Quote("W", "2@lid", "asked"), ("1",), (GroupMention("3-group", "Team"),))
    made = message_of("551199", text, 1).extendedTextMessage
    context = made.contextInfo
    assert made.text == "oi @1"
    assert (context.stanzaID, context.participant, context.quotedMessage.conversation) == ("W", "2@lid", "asked")
    assert list(context.mentionedJID) == ["1@s.whatsapp.net"]
    assert [(one.groupJID, one.groupSubject) for one in context.groupMentions] == [("3@g.us", "Team")]


def test_an_answer_in_private() -> None:
    """It goes to whoever wrote the group's message, and its quote names the group; otherwise to its chat as ever."""
    quote = Quote("W", "551188", "asked")
    text = Text("just you", quote, private_answer=True)

    assert chat_of("12-group", text) == "551188"
    context = message_of("12-group", text, 1).extendedTextMessage.contextInfo
    assert (context.stanzaID, context.participant, context.remoteJID) == ("W", "551188@s.whatsapp.net", "12@g.us")
    for chat, other in (
        ("12-group", Text("all", quote)),
        ("12-group", Text("all", private_answer=True)),
        ("12-group", Text("author not known", Quote("W", "12-group"), private_answer=True)),
        ("551199", text),
    ):
        assert chat_of(chat, other) == chat
        assert not message_of(chat, other, 1).extendedTextMessage.contextInfo.remoteJID


def test_edit() -> None:
    """An edit names the chat, the message and the time, and wraps the new text."""
    made = message_of("12-group", Text("new", edits_wa_id="OLD"), 77).editedMessage.message.protocolMessage
    assert (made.key.remoteJID, made.key.fromMe, made.key.ID) == ("12@g.us", True, "OLD")
    assert made.type == e2e.ProtocolMessage.MESSAGE_EDIT
    assert (made.editedMessage.conversation, made.timestampMS) == ("new", 77)


@pytest.mark.parametrize(
    ("address", "jid"),
    [
        ("5544999999999", "5544999999999@s.whatsapp.net"),
        ("120363-group", "120363@g.us"),
        ("5544-1600000000-group", "5544-1600000000@g.us"),
        ("9@lid", "9@lid"),
        ("9@newsletter", "9@newsletter"),
        ("status@broadcast", "status@broadcast"),
    ],
)
def test_addresses(address: str, jid: str) -> None:
    """Every kind of address of the wire means one of WhatsApp."""
    assert jid_text(address) == jid
    assert jid_of(address).Device == 0


@pytest.mark.parametrize(
    "address", ["", "abc", "+5544", "-group", "x-group", "1@s.whatsapp.net", "1@g.us", "@lid", "٣"]
)
def test_no_addresses(address: str) -> None:
    """Anything else is refused."""
    with pytest.raises(EngineRefused):
        jid_of(address)


def test_stores() -> None:
    """A PostgreSQL URL goes through as it is; a path gets options and cannot smuggle in any of its own."""
    url = "postgresql://u:p@h/db?search_path=x"
    assert is_postgres(url)
    assert store_text(url) == url
    text = store_text("/data/a b?_synchronous=OFF#%41.db")
    assert text.startswith("/data/a%20b%3F_synchronous%3DOFF%23%2541.db?_journal_mode=WAL&")
    assert text.endswith("&x=")
