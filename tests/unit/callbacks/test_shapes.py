"""The bodies against samples: same keys, same order, same types, same values.

tests/data/callbacks.json holds one body per callback and case, with the key order that today's receivers know. One
key is ours to add: `senderLid`, the older name that some receivers still read, stands behind `chatLid`.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tomada.callbacks import shapes
from tomada.callbacks.shapes import Facts
from tomada.engine.port import (
    ChatPresence,
    Connected,
    MessageReceived,
    OtherReceived,
    ReceiptReceived,
    Text,
    TextReceived,
)

SAMPLES: dict[str, Any] = json.loads((Path(__file__).parents[2] / "data" / "callbacks.json").read_text("utf-8"))

US, THEM, THEIR_LID, OUR_LID = "5511900000001", "5511900000002", "900000000000002@lid", "900000000000001@lid"
GROUP = "120363999999999999-group"
MESSAGE, OTHER_MESSAGE = "3EB0000000000000000001", "3EB0000000000000000002"
ZAAP = "FEDCBA9876543210FEDCBA9876543210"
AT_MS = 1800000000000
FACTS = Facts("0123456789ABCDEF0123456789ABCDEF", US, "Bia")


def message(content: TextReceived | OtherReceived, **changes: Any) -> MessageReceived:
    """A private message from them."""
    fields: dict[str, Any] = {
        "wa_id": MESSAGE,
        "chat": THEM,
        "chat_lid": THEIR_LID,
        "sender": THEM,
        "sender_lid": THEIR_LID,
        "from_me": False,
        "is_group": False,
        "at_ms": AT_MS,
        "push_name": "Bia",
        "content": content,
    }
    return MessageReceived(**{**fields, **changes})


def same(body: dict[str, Any], sample: str) -> None:
    """Equal as JSON text, order included, but for the added key."""
    body = {key: value for key, value in body.items() if key != "senderLid"}
    assert json.dumps(body, indent=1) == json.dumps(SAMPLES[sample], indent=1)


def of_them(text: str) -> TextReceived:
    """A plain text."""
    return TextReceived(message=text)


@pytest.mark.parametrize(
    ("sample", "event", "options"),
    [
        ("text", message(of_them("hi there")), {}),
        (
            "text, group",
            message(of_them("hi all"), chat=GROUP, chat_lid=None, is_group=True, chat_name="Equipe"),
            {},
        ),
        ("text, reply to a message", message(of_them("yes")), {"reference_id": OTHER_MESSAGE}),
        ("text, edited", message(of_them("hi there, fixed"), is_edit=True), {}),
        (
            "text, sent by me from the phone",
            message(of_them("typed on phone"), from_me=True, sender=US, chat_name="Bia"),
            {},
        ),
        (
            "text, sent by me through the API",
            message(of_them("sent by API"), from_me=True, sender=US, chat_name="Bia"),
            {"from_api": True},
        ),
        ("waiting message", message(OtherReceived(kind="poll")), {}),
    ],
)
def test_received(sample: str, event: MessageReceived, options: dict[str, Any]) -> None:
    """ReceivedCallback, for each case of a text."""
    same(shapes.received(FACTS, event, message_id=MESSAGE, **options), f"ReceivedCallback {sample}")


def test_a_link_preview_adds_only_what_is_known() -> None:
    """Title, description and url are there if the sender's app gave them, in the sample's order; else no key."""
    sample = SAMPLES["ReceivedCallback text from link/catalog/invite"]["text"]
    content = TextReceived(
        message=sample["message"], description=sample["description"], title=sample["title"], url=sample["url"]
    )
    text = shapes.received(FACTS, message(content), message_id=MESSAGE)["text"]
    assert list(text.items()) == [item for item in sample.items() if item[0] != "thumbnailUrl"]
    assert shapes.received(FACTS, message(of_them("x")), message_id=MESSAGE)["text"] == {"message": "x"}


def test_received_from_api_is_like_a_message_of_ours() -> None:
    """What the API sent has the same body as what the phone sent, but for fromApi."""
    body = from_api(Text(message="sent by API"))
    same(body, "ReceivedCallback text, sent by me through the API")
    assert body["senderLid"] == OUR_LID


def test_from_the_api_in_a_group_the_participant_is_us() -> None:
    """In a group the hidden id belongs to who wrote: our own; the chat has none."""
    body = from_api(Text(message="x"), chat=GROUP)
    assert (body["chatLid"], body["participantLid"], body["participantPhone"]) == (None, OUR_LID, US)


def from_api(content: Text, **changes: Any) -> dict[str, Any]:
    """The body of a text that the API sent to them."""
    fields: dict[str, Any] = {"chat": THEM, "chat_lid": THEIR_LID, "sender_lid": OUR_LID, "chat_name": "Bia"}
    return shapes.received_from_api(FACTS, content=content, message_id=MESSAGE, at_ms=AT_MS, **{**fields, **changes})


def test_an_edit_through_the_api_carries_the_id_of_the_message_that_it_changes() -> None:
    """Receivers find the message to change by messageId, whoever edited it."""
    body = from_api(Text(message="better", edits_wa_id=OTHER_MESSAGE))
    assert (body["messageId"], body["isEdit"], body["text"]) == (OTHER_MESSAGE, True, {"message": "better"})


def test_both_names_of_the_lid_are_sent() -> None:
    """chatLid is the contact's identity for newer receivers, senderLid for older ones."""
    body = shapes.received(FACTS, message(of_them("x"), sender_lid=None), message_id=MESSAGE)
    assert body["chatLid"] == body["senderLid"] == THEIR_LID


def test_a_hidden_number_in_a_group() -> None:
    """If WhatsApp hides who wrote, participantPhone is null and participantLid says who."""
    event = message(of_them("x"), chat=GROUP, chat_lid=None, is_group=True, sender=THEIR_LID, sender_lid=None)
    body = shapes.received(FACTS, event, message_id=MESSAGE)
    assert body["participantPhone"] is None
    assert body["participantLid"] == THEIR_LID


def test_disappearing_messages_say_so() -> None:
    """messageExpirationSeconds is a key only where the chat has such a time."""
    body = shapes.received(FACTS, message(of_them("x"), expiration_s=86400), message_id=MESSAGE)
    assert body["messageExpirationSeconds"] == 86400
    assert "messageExpirationSeconds" not in shapes.received(FACTS, message(of_them("x")), message_id=MESSAGE)


def test_delivery() -> None:
    """DeliveryCallback, with an error only on failure."""
    arguments: dict[str, Any] = {"phone": THEM, "zaap_id": ZAAP, "message_id": MESSAGE, "at_ms": AT_MS}
    same(shapes.delivery(FACTS, **arguments), "DeliveryCallback ok")
    same(shapes.delivery(FACTS, **arguments, error="Phone number does not exist"), "DeliveryCallback failed")


@pytest.mark.parametrize(
    ("kind", "sample"),
    [("delivered", "RECEIVED"), ("read", "READ"), ("read_self", "READ_BY_ME"), ("played", "PLAYED")],
)
def test_message_status(kind: str, sample: str) -> None:
    """MessageStatusCallback for each kind of receipt."""
    event = ReceiptReceived(kind=kind, wa_ids=(MESSAGE,), chat=THEM, chat_lid=THEIR_LID, is_group=False, at_ms=AT_MS)
    same(shapes.message_status(FACTS, event, [MESSAGE]), f"MessageStatusCallback {sample}")


def test_message_sent() -> None:
    """MessageStatusCallback SENT."""
    body = shapes.message_sent(FACTS, phone=THEM, message_ids=[MESSAGE], at_ms=AT_MS)
    same(body, "MessageStatusCallback SENT")


def test_message_status_in_a_group() -> None:
    """In groups it says whose receipt it is."""
    event = ReceiptReceived(
        kind="read", wa_ids=(MESSAGE,), chat=GROUP, chat_lid=None, is_group=True, at_ms=AT_MS, participant=THEM
    )
    same(shapes.message_status(FACTS, event, [MESSAGE]), "MessageStatusCallback group read")


def test_connected_disconnected_and_presence() -> None:
    """The three that are about the session and the chat."""
    event = Connected(phone=US, lid="", push_name="Bia", is_business=False)
    same(shapes.connected(FACTS, event, AT_MS), "ConnectedCallback connected")
    same(shapes.disconnected(FACTS, AT_MS), "DisconnectedCallback disconnected")
    for status in ("UNAVAILABLE", "AVAILABLE", "COMPOSING", "PAUSED", "RECORDING"):
        body = shapes.presence_chat(FACTS, ChatPresence(chat=THEM, status=status))
        same(body, f"PresenceChatCallback {status}")
