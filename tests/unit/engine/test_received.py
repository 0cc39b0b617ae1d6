"""Received messages, from the library's protobufs to the port's events."""

from typing import Any

import msgspec
import pytest

from tests.unit.engine.builders import GROUP, LID, OWN_LID, OWN_PHONE, PHONE, hidden, jid, message, person, source, text
from tomada.engine.neonize_addresses import Own
from tomada.engine.neonize_protos import e2e
from tomada.engine.neonize_received import received
from tomada.engine.port import MessageReceived, OtherReceived, TextReceived

OWN = Own(OWN_PHONE, f"{OWN_LID}@lid")


def nobody(_: object) -> None:
    """A store that knows no numbers."""


def nameless(_chat: object, _alt: object) -> str:
    """A session that knows no names."""
    return ""


def got(event: object) -> MessageReceived:
    """The translation of an event that must have one."""
    found = received(event, OWN, nobody, nameless)
    assert found is not None
    return found


def test_private_text_from_a_hidden_id() -> None:
    """The number comes from the field beside the hidden id; both are told."""
    event = message(source(hidden(), hidden(device=3), SenderAlt=person(device=3)), text("oi"))
    assert got(event) == MessageReceived(
        wa_id="WA1",
        chat=PHONE,
        chat_lid=f"{LID}@lid",
        sender=PHONE,
        sender_lid=f"{LID}@lid",
        from_me=False,
        is_group=False,
        at_ms=1_700_000_000_123,
        push_name="Ana",
        content=TextReceived("oi"),
        chat_name="Ana",
    )


def test_number_unknown_to_whatsapp_but_known_to_the_store() -> None:
    """Without a number beside it the store is asked; if that does not know either, the hidden id stands for it."""
    event = message(source(hidden(), hidden()), text("oi"))
    known = received(event, OWN, lambda asked: PHONE if asked.User == LID else None, nameless)
    assert known is not None
    assert (known.chat, known.sender) == (PHONE, PHONE)
    assert (got(event).chat, got(event).sender) == (f"{LID}@lid", f"{LID}@lid")


def test_from_me() -> None:
    """What our own phone wrote belongs to the chat of the other person, whose number stands in RecipientAlt."""
    where = source(hidden(), hidden(OWN_LID), IsFromMe=True, RecipientAlt=person())
    found = got(message(where, text("oi")))
    assert (found.from_me, found.chat, found.chat_lid) == (True, PHONE, f"{LID}@lid")
    assert (found.sender, found.sender_lid) == (OWN_PHONE, f"{OWN_LID}@lid")


def test_group() -> None:
    """In a group the chat is the group and the sender the participant."""
    where = source(jid(GROUP, "g.us"), hidden(), IsGroup=True, SenderAlt=person())
    found = got(message(where, text("oi")))
    assert (found.chat, found.chat_lid, found.is_group, found.sender) == (f"{GROUP}-group", None, True, PHONE)


def test_whose_name_a_chat_bears() -> None:
    """The other person's, which comes with their own messages and is asked for with ours; a group's is always asked."""

    def name_of(chat: Any, alt: Any) -> str:
        return f"{chat.User} or {alt.User}" if alt is not None else str(chat.User)

    def name(event: object) -> str:
        found = received(event, OWN, nobody, name_of)
        assert found is not None
        return found.chat_name

    theirs = source(hidden(), hidden(), SenderAlt=person())
    assert name(message(theirs, text("oi"))) == "Ana"
    assert name(message(theirs, text("oi"), Pushname="")) == f"{LID} or {PHONE}"
    ours = source(hidden(), hidden(OWN_LID), IsFromMe=True, RecipientAlt=person())
    assert name(message(ours, text("oi"), Pushname="Loja")) == f"{LID} or {PHONE}"
    for writer in (hidden(), hidden(OWN_LID)):
        where = source(jid(GROUP, "g.us"), writer, IsGroup=True, IsFromMe=writer.User == OWN_LID, SenderAlt=person())
        assert name(message(where, text("oi"))) == GROUP


@pytest.mark.parametrize(
    ("server", "chat", "broadcast"),
    [("newsletter", "777@newsletter", False), ("broadcast", "777@broadcast", True)],
)
def test_newsletter_and_broadcast(server: str, chat: str, broadcast: bool) -> None:
    """Channels keep their server in the address; status and lists are marked as broadcast."""
    where = source(jid("777", server), person() if broadcast else jid("777", server))
    found = got(message(where, text("oi")))
    assert (found.chat, found.broadcast, found.is_group) == (chat, broadcast, False)


def test_hosted_addresses_are_plain_ones() -> None:
    """WhatsApp's hosted variants of the servers mean the same people."""
    found = got(message(source(jid(LID, "hosted.lid"), jid(LID, "hosted.lid"), SenderAlt=person()), text("oi")))
    assert (found.chat, found.chat_lid) == (PHONE, f"{LID}@lid")


def test_link_preview_quote_and_forward() -> None:
    """What stands beside a text: the preview, whom it answers, that it was forwarded, when it disappears."""
    context = e2e.ContextInfo(stanzaID="Q1", participant=f"{OWN_LID}:3@lid", isForwarded=True, expiration=86400)
    extended = e2e.ExtendedTextMessage(
        text="see https://a.b", matchedText="https://a.b", title="T", description="D", contextInfo=context
    )
    found = got(message(source(person(), person()), e2e.Message(extendedTextMessage=extended)))
    assert found.content == TextReceived("see https://a.b", "D", "T", "https://a.b")
    assert (found.quoted_wa_id, found.quoted_sender) == ("Q1", OWN_PHONE)
    assert (found.forwarded, found.expiration_s) == (True, 86400)


@pytest.mark.parametrize(
    "wrapper", ["ephemeralMessage", "viewOnceMessageV2", "documentWithCaptionMessage", "editedMessage"]
)
def test_wrappers_are_removed(wrapper: str) -> None:
    """A message in a wrapper, or in several, is the message."""
    inner = e2e.Message(**{wrapper: e2e.FutureProofMessage(message=text("inside"))})
    outer = e2e.Message(ephemeralMessage=e2e.FutureProofMessage(message=inner))
    assert got(message(source(person(), person()), outer)).content == TextReceived("inside")


@pytest.mark.parametrize("wrapped", [False, True])
def test_edit(wrapped: bool) -> None:
    """An edit names the message it changes and holds the new content, wrapped or not."""
    change = e2e.ProtocolMessage(type=e2e.ProtocolMessage.MESSAGE_EDIT, editedMessage=text("new"))
    change.key.ID = "OLD"
    content = e2e.Message(protocolMessage=change)
    if wrapped:
        content = e2e.Message(editedMessage=e2e.FutureProofMessage(message=content))
    found = got(message(source(person(), person()), content))
    assert (found.content, found.is_edit, found.edited_wa_id) == (TextReceived("new"), True, "OLD")


def test_other_kinds_are_named() -> None:
    """A kind that is not translated yet arrives under the engine's name; context is read all the same."""
    image = e2e.ImageMessage(caption="x", contextInfo=e2e.ContextInfo(stanzaID="Q"))
    found = got(message(source(person(), person()), e2e.Message(imageMessage=image)))
    assert (found.content, found.quoted_wa_id) == (OtherReceived("imageMessage"), "Q")
    revoke = e2e.ProtocolMessage(type=e2e.ProtocolMessage.REVOKE)
    revoke.key.ID = "GONE"
    assert got(message(source(person(), person()), e2e.Message(protocolMessage=revoke))).content == OtherReceived(
        "revoke"
    )


def test_housekeeping_is_dropped() -> None:
    """Key distributions, private messages between own devices and protocol notes are no messages."""
    key_only = e2e.Message(senderKeyDistributionMessage=e2e.SenderKeyDistributionMessage(groupID="g"))
    key_only.messageContextInfo.messageSecret = b"x"
    share = e2e.ProtocolMessage(type=e2e.ProtocolMessage.APP_STATE_SYNC_KEY_SHARE)
    where = source(person(), person())
    for content in (key_only, e2e.Message(protocolMessage=share), e2e.Message()):
        assert received(message(where, content), OWN, nobody, nameless) is None
    assert received(message(where, text("x"), Category="peer"), OWN, nobody, nameless) is None


def test_a_key_beside_a_text_does_not_hide_it() -> None:
    """A group text that carries the sender's key as well is a text."""
    content = text("oi")
    content.senderKeyDistributionMessage.groupID = "g"
    assert got(message(source(person(), person()), content)).content == TextReceived("oi")


def test_every_event_can_travel() -> None:
    """What was translated is JSON and comes back the same."""
    found = got(message(source(hidden(), hidden()), text("olá \N{PARTY POPPER}")))
    assert msgspec.json.decode(msgspec.json.encode(found), type=MessageReceived) == found
