"""Received messages, from what a machine tells to the port's events."""

from typing import Any

import msgspec
import pytest

from tests.unit.engine.samples import (
    GROUP,
    GROUP_JID,
    IN_GROUP,
    JID,
    KNOWN,
    LID,
    OURS,
    OWN,
    OWN_LID,
    OWN_PHONE,
    PHONE,
    THEIRS,
    e2e,
    message,
    received,
    text,
)
from tomada.engine import reading
from tomada.engine.addresses import Own
from tomada.engine.port import MessageReceived, OtherReceived, TextReceived


def test_private_text_from_a_hidden_id() -> None:
    """The number comes from the field beside the hidden id; both are told, and the device is nobody's business."""
    assert received(message(text("oi"))) == MessageReceived(
        wa_id="WA1",
        chat=PHONE,
        chat_lid=LID,
        sender=PHONE,
        sender_lid=LID,
        from_me=False,
        is_group=False,
        at_ms=1_700_000_000_123,
        push_name="Ana",
        content=TextReceived("oi"),
        chat_name="Ana",
    )


def test_a_number_that_is_not_beside_the_hidden_id() -> None:
    """It is taken from what is known; if nobody knows it, the hidden id stands for the person."""
    event = message(text("oi"), chat=LID, chat_alt="", sender=LID, sender_alt="")
    known = received(event, reading.Known(OWN, {LID: PHONE}))
    assert (known.chat, known.sender) == (PHONE, PHONE)
    assert (received(event).chat, received(event).sender) == (LID, LID)


def test_from_a_number_with_its_hidden_id_beside_it() -> None:
    """The other way round it is the same person."""
    found = received(message(text("oi"), chat=JID, chat_alt=LID, sender=JID, sender_alt=LID))
    assert (found.chat, found.chat_lid, found.sender, found.sender_lid) == (PHONE, LID, PHONE, LID)


def test_from_me() -> None:
    """What our own phone wrote belongs to the chat of the other person; who wrote it are we."""
    found = received(message(text("oi"), **OURS))
    assert (found.from_me, found.chat, found.chat_lid) == (True, PHONE, LID)
    assert (found.sender, found.sender_lid) == (OWN_PHONE, OWN_LID)


def test_from_me_before_our_own_number_is_known() -> None:
    """Then the machine's word for the sender has to do."""
    found = received(message(text("oi"), **OURS), reading.Known(Own(), {}))
    assert (found.sender, found.sender_lid) == (OWN_PHONE, None)


def test_what_another_device_of_ours_sent() -> None:
    """WhatsApp wraps a copy for our other devices; what is inside is the message."""
    copy = e2e.DeviceSentMessage(destinationJID=JID, message=text("typed on the phone"))
    found = received(message(e2e.Message(deviceSentMessage=copy), **OURS))
    assert found.content == TextReceived("typed on the phone")


def test_group() -> None:
    """In a group the chat is the group and the sender the participant."""
    found = received(message(text("oi"), **IN_GROUP))
    assert (found.chat, found.chat_lid, found.is_group, found.sender, found.sender_lid) == (
        GROUP, None, True, PHONE, LID,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("where", "push_name", "told", "name"),
    [
        (THEIRS, "Ana", "of the store", "Ana"),
        (THEIRS, "", "of the store", "of the store"),
        (OURS, "Loja", "Ana", "Ana"),
        (OURS, "Loja", "", ""),
        (IN_GROUP, "Ana", "Team", "Team"),
        (IN_GROUP | {"from_me": True}, "Loja", "Team", "Team"),
        (IN_GROUP, "Ana", "", ""),
    ],
)
def test_whose_name_a_chat_bears(where: dict[str, Any], push_name: str, told: str, name: str) -> None:
    """The other person's, as their newest message has it, never our own; a group's subject, never a participant's."""
    assert received(message(text("oi"), **where, push_name=push_name, chat_name=told)).chat_name == name


@pytest.mark.parametrize(
    ("chat", "sender", "broadcast"),
    [("777@newsletter", "777@newsletter", False), ("status@broadcast", JID, True), ("777@broadcast", JID, True)],
)
def test_newsletter_and_broadcast(chat: str, sender: str, broadcast: bool) -> None:
    """Channels keep their server in the address; status and lists are broadcasts, and bear no person's name."""
    found = received(message(text("oi"), chat=chat, chat_alt="", sender=sender, sender_alt=""))
    assert (found.chat, found.chat_lid, found.broadcast, found.is_group) == (chat, None, broadcast, False)
    assert found.chat_name == ""


def test_hosted_addresses_are_plain_ones() -> None:
    """WhatsApp's hosted variants of the servers mean the same people."""
    found = received(message(text("oi"), chat="222@hosted.lid", sender="222:99@hosted.lid"))
    assert (found.chat, found.chat_lid, found.sender_lid) == (PHONE, LID, LID)


def test_link_preview_quote_and_forward() -> None:
    """What stands beside a text: the preview, whom it answers, that it was forwarded, when it disappears."""
    context = e2e.ContextInfo(stanzaID="Q1", participant="111:3@lid", isForwarded=True, expiration=86400)
    extended = e2e.ExtendedTextMessage(
        text="see https://a.b", matchedText="https://a.b", title="T", description="D", contextInfo=context
    )
    found = received(message(e2e.Message(extendedTextMessage=extended)))
    assert found.content == TextReceived("see https://a.b", "D", "T", "https://a.b")
    assert (found.quoted_wa_id, found.quoted_sender) == ("Q1", OWN_PHONE)
    assert (found.forwarded, found.expiration_s) == (True, 86400)


def quoting(participant: str, **where: Any) -> Any:
    """A reply to something of this person's."""
    context = e2e.ContextInfo(stanzaID="Q1", participant=participant)
    return message(e2e.Message(extendedTextMessage=e2e.ExtendedTextMessage(text="re", contextInfo=context)), **where)


def test_a_quote_of_somebody_hidden() -> None:
    """Who is quoted stands inside the message, where nothing gives their number: it has to be looked up before."""
    event = quoting("333@lid", **IN_GROUP)
    assert reading.unknown_numbers(event, OWN) == ["333@lid"]
    assert received(event).quoted_sender == "333@lid"
    assert received(event, reading.Known(OWN, {"333@lid": "5533"})).quoted_sender == "5533"


@pytest.mark.parametrize("participant", [OWN_LID, LID, JID, "", "nonsense", "5@newsletter"])
def test_a_quote_of_somebody_who_is_known(participant: str) -> None:
    """Ourselves, whom the envelope names, a number, nobody: nothing is looked up."""
    assert reading.unknown_numbers(quoting(participant), OWN) == []


def test_nothing_is_looked_up_for_what_is_no_message() -> None:
    """Nor for a message that quotes nothing."""
    assert reading.unknown_numbers(message(text("oi")), OWN) == []


def test_a_mention_costs_nothing() -> None:
    """Mentions of people and of groups stay in the text: the words are the message."""
    context = e2e.ContextInfo(
        mentionedJID=[JID, "333@lid"], groupMentions=[e2e.GroupMention(groupJID=GROUP_JID, groupSubject="Team")]
    )
    extended = e2e.ExtendedTextMessage(text="@5544999999999 @Team", contextInfo=context)
    found = received(message(e2e.Message(extendedTextMessage=extended), **IN_GROUP))
    assert (found.content, found.quoted_wa_id) == (TextReceived("@5544999999999 @Team"), None)


@pytest.mark.parametrize(
    "wrapper",
    [
        "ephemeralMessage",
        "viewOnceMessage",
        "viewOnceMessageV2",
        "viewOnceMessageV2Extension",
        "documentWithCaptionMessage",
        "editedMessage",
        "groupMentionedMessage",
        "lottieStickerMessage",
    ],
)
def test_wrappers_are_removed(wrapper: str) -> None:
    """A message in a wrapper, or in several, is the message."""
    inner = e2e.Message(**{wrapper: e2e.FutureProofMessage(message=text("inside"))})
    for outer in (inner, e2e.Message(ephemeralMessage=e2e.FutureProofMessage(message=inner))):
        assert received(message(outer)).content == TextReceived("inside")


@pytest.mark.parametrize("wrapped", [False, True])
def test_edit(wrapped: bool) -> None:
    """An edit names the message it changes and holds the new content, wrapped or not."""
    change = e2e.ProtocolMessage(type=e2e.ProtocolMessage.MESSAGE_EDIT, editedMessage=text("new"))
    change.key.ID = "OLD"
    content = e2e.Message(protocolMessage=change)
    if wrapped:
        content = e2e.Message(editedMessage=e2e.FutureProofMessage(message=content))
    found = received(message(content))
    assert (found.content, found.is_edit, found.edited_wa_id) == (TextReceived("new"), True, "OLD")


def test_what_is_only_marked_as_an_edit() -> None:
    """In the wrapper of edits without naming another message: it is an edit of nobody knows what."""
    found = received(message(e2e.Message(editedMessage=e2e.FutureProofMessage(message=text("new")))))
    assert (found.is_edit, found.edited_wa_id) == (True, None)


def test_other_kinds_are_named() -> None:
    """A kind that is not translated yet arrives under WhatsApp's name for it; context is read all the same."""
    image = e2e.ImageMessage(caption="x", contextInfo=e2e.ContextInfo(stanzaID="Q", isForwarded=True))
    found = received(message(e2e.Message(imageMessage=image)))
    assert (found.content, found.quoted_wa_id, found.forwarded) == (OtherReceived("imageMessage"), "Q", True)


@pytest.mark.parametrize("kind", [field.name for field in e2e.Message.DESCRIPTOR.fields])
def test_every_kind_that_whatsapp_knows_can_be_read(kind: str) -> None:
    """An empty one of each of the message's fields: told under some name, or left out, and never a failure."""
    content = text("") if kind == "conversation" else e2e.Message()
    if kind != "conversation":
        getattr(content, kind).SetInParent()
    reading.unknown_numbers(message(content), OWN)
    reading.read(message(content), KNOWN)


def test_revoke() -> None:
    """A message that was deleted for everyone is told as that."""
    revoke = e2e.ProtocolMessage(type=e2e.ProtocolMessage.REVOKE)
    revoke.key.ID = "GONE"
    assert received(message(e2e.Message(protocolMessage=revoke))).content == OtherReceived("revoke")


def test_housekeeping_is_dropped() -> None:
    """Key distributions, private messages between own devices and protocol notes are no messages."""
    key_only = e2e.Message(senderKeyDistributionMessage=e2e.SenderKeyDistributionMessage(groupID="g"))
    key_only.messageContextInfo.messageSecret = b"x"
    share = e2e.ProtocolMessage(type=e2e.ProtocolMessage.APP_STATE_SYNC_KEY_SHARE)
    for content in (key_only, e2e.Message(protocolMessage=share), e2e.Message()):
        assert reading.read(message(content), KNOWN) is None
    assert reading.read(message(text("x"), category="peer"), KNOWN) is None


def test_a_key_beside_a_text_does_not_hide_it() -> None:
    """A group text that carries the sender's key as well is a text."""
    content = text("oi")
    content.senderKeyDistributionMessage.groupID = "g"
    assert received(message(content, **IN_GROUP)).content == TextReceived("oi")


def test_every_event_can_travel() -> None:
    """What was read is JSON and comes back the same."""
    found = received(message(text("olá \N{PARTY POPPER}")))
    assert msgspec.json.decode(msgspec.json.encode(found), type=MessageReceived) == found
