"""Everything that is no message: receipts, presence, outcomes of sends, the life of a session."""

from typing import Any, get_args

import msgspec
import pytest

from tests.unit.engine.samples import GROUP, IN_GROUP, JID, KNOWN, LID, OURS, PHONE, THEIRS
from tomada.engine import port, reading, told

LEFT_OUT = {told.Undecryptable}  # what is told of it is still to be built


def read(event: told.Event) -> port.EngineEvent | None:
    """The reading of an event."""
    return reading.read(event, KNOWN)


def test_every_event_has_a_reader_or_is_left_out_by_name() -> None:
    """An event that somebody adds to the protocol and forgets here would be acknowledged and never told."""
    assert set(reading.READERS) | LEFT_OUT == set(get_args(told.Event))
    assert not set(reading.READERS) & LEFT_OUT


def test_a_message_that_cannot_be_read_is_left_out() -> None:
    """Its sender was asked for it again."""
    assert read(told.Undecryptable(wa_id="W", at_ms=1, **THEIRS)) is None


def receipt(kind: str, *ids: str, **where: Any) -> port.ReceiptReceived | None:
    """The reading of a receipt of this kind."""
    event = told.Receipt(kind=kind, wa_ids=ids or ("A",), at_ms=1_700_000_000_000, **(where or THEIRS))
    found = read(event)
    assert found is None or isinstance(found, port.ReceiptReceived)
    return found


def test_receipt_in_a_private_chat() -> None:
    """Several ids, the device that it is from, and no participant."""
    assert receipt("read", "A", "B") == port.ReceiptReceived(
        "read", ("A", "B"), PHONE, LID, is_group=False, at_ms=1_700_000_000_000, device=3
    )


def test_receipt_in_a_group() -> None:
    """In a group the participant says whose receipt it is."""
    assert receipt("", **IN_GROUP) == port.ReceiptReceived(
        "delivered", ("A",), GROUP, None, is_group=True, at_ms=1_700_000_000_000, device=3,
        participant=PHONE, participant_lid=LID,
    )  # fmt: skip


def test_our_own_receipt_in_a_group() -> None:
    """What our phone read there has no participant: it is nobody's news but ours."""
    found = receipt("read", **IN_GROUP | {"from_me": True})
    assert found is not None
    assert (found.kind, found.participant, found.participant_lid) == ("read_self", None, None)


@pytest.mark.parametrize(
    ("kind", "from_me", "told_as"),
    [
        ("", False, "delivered"),
        ("inactive", False, "delivered"),
        ("read", False, "read"),
        ("played", False, "played"),
        ("read", True, "read_self"),
        ("read-self", True, "read_self"),
        ("read-self", False, "read_self"),
        ("", True, None),
        ("inactive", True, None),
        ("played", True, None),
        ("sender", True, None),
        ("retry", False, None),
        ("server-error", True, None),
        ("peer_msg", True, None),
        ("hist_sync", True, None),
        ("of the future", False, None),
    ],
)
def test_kinds_of_receipts(kind: str, from_me: bool, told_as: str | None) -> None:
    """People's receipts are told by kind; those between devices, and kinds that nobody knows yet, are not."""
    found = receipt(kind, **(OURS if from_me else THEIRS))
    assert (found.kind if found else None) == told_as


def test_a_receipt_for_nothing() -> None:
    """Without ids it says nothing."""
    assert read(told.Receipt(kind="read", wa_ids=(), at_ms=1, **THEIRS)) is None


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("composing", "COMPOSING"),
        ("recording", "RECORDING"),
        ("paused", "PAUSED"),
        ("available", "AVAILABLE"),
        ("unavailable", "UNAVAILABLE"),
    ],
)
def test_presence(state: str, status: str) -> None:
    """Typing, recording, the end of either; coming and going."""
    assert read(told.Presence(state=state, **THEIRS)) == port.ChatPresence(PHONE, status)


def test_last_seen() -> None:
    """With the time last seen, if WhatsApp said it."""
    event = told.Presence(state="unavailable", last_seen_ms=1_700_000_000_000, **THEIRS)
    assert read(event) == port.ChatPresence(PHONE, "UNAVAILABLE", 1_700_000_000_000)


def test_typing_in_a_group_is_the_groups() -> None:
    """The chat is where it is seen."""
    assert read(told.Presence(state="composing", **IN_GROUP)) == port.ChatPresence(GROUP, "COMPOSING")


def test_our_own_presence_is_no_news() -> None:
    """What our own phone does there, its owner sees."""
    assert read(told.Presence(state="composing", **OURS)) is None


def test_sent() -> None:
    """The id is ours as it was; the chat's other address and our own come as hidden ids or not at all."""
    event = told.Sent(wa_id="Z", at_ms=5, chat_alt="222@lid", chat_name="Ana", sender_alt="111@lid")
    assert read(event) == port.MessageSent("Z", 5, LID, "111@lid", "Ana")
    assert read(told.Sent(wa_id="Z", at_ms=5, chat_alt=JID)) == port.MessageSent("Z", 5)


@pytest.mark.parametrize(
    ("kind", "unknown", "retry"), [("refused", False, False), ("retry", False, True), ("unknown", True, False)]
)
def test_send_failed(kind: str, unknown: bool, retry: bool) -> None:
    """What a failure means for whoever sent, and WhatsApp's number for it."""
    event = told.SendFailed(wa_id="Z", error="why", kind=kind, code=479)
    assert read(event) == port.MessageFailed("Z", "why", unknown, retry, 479)


@pytest.mark.parametrize(
    ("platform", "business_name", "is_business"),
    [("android", "", False), ("smba", "", True), ("SMBI", "", True), ("x", "B", True), ("", "", False)],
)
def test_whose_session_it_is(platform: str, business_name: str, is_business: bool) -> None:
    """Number and hidden id without their devices; a business account by its app or by its business name."""
    account = {
        "device": "5544999999999.0:4@s.whatsapp.net",
        "lid": "222:4@lid",
        "push_name": "Loja",
        "platform": platform,
        "business_name": business_name,
    }
    assert read(told.Paired(**account)) == port.Paired(PHONE, LID, is_business, platform)
    assert read(told.Connected(**account)) == port.Connected(PHONE, LID, "Loja", is_business, platform)


def test_an_account_without_a_hidden_id() -> None:
    """An empty word, as in the session's row."""
    found = read(told.Connected(device=JID))
    assert isinstance(found, port.Connected)
    assert (found.phone, found.lid) == (PHONE, "")


@pytest.mark.parametrize(
    ("event", "ours"),
    [
        (told.Named("Loja"), port.Named("Loja")),
        (told.QrIssued("2@x", 5), port.QrIssued("2@x", 5)),
        (told.PairingEnded("timeout"), port.PairingEnded("timeout")),
        (told.Disconnected("broke"), port.Disconnected("broke")),
        (told.LoggedOut("unlinked"), port.LoggedOut("unlinked")),
        (told.Replaced(), port.Replaced()),
        (told.Banned(code=106, reason="spam", expires_ms=61_000), port.Banned(106, 61_000)),
        (told.Outdated(), port.Outdated()),
        (told.ConnectFailed(code=501, reason="experimental"), port.ConnectFailed(501, "experimental")),
    ],
    ids=lambda one: type(one).__name__,
)
def test_the_life_of_a_session(event: told.Event, ours: port.EngineEvent) -> None:
    """Each under its own name, with WhatsApp's words and numbers."""
    assert read(event) == ours


@pytest.mark.parametrize("kind", get_args(told.Event))
def test_what_is_of_the_protocol_is_decoded(kind: type[msgspec.Struct]) -> None:
    """Each kind of event comes through JSON as itself, with nothing in it but what it must have."""
    needed = {"wa_id": "W", "at_ms": 1, "kind": "retry", "wa_ids": ["W"], "state": "x", "error": "e", "device": "1@lid"}
    needed |= {"push_name": "P", "code": "C", "expires_ms": 1}
    fields = {field.name: needed[field.name] for field in msgspec.structs.fields(kind) if field.required}
    tag = kind.__struct_config__.tag
    assert type(told.decode(msgspec.json.encode({"type": tag, "of the future": {"a": 1}, **fields}))) is kind
