"""Receipts, presence, pairing and refusals, from the library's protobufs to the port's events."""

from typing import Any

import pytest

from tests.unit.engine.builders import GROUP, LID, OWN_LID, OWN_PHONE, PHONE, hidden, jid, person, source
from tomada.engine import neonize_events
from tomada.engine.neonize_addresses import Own
from tomada.engine.neonize_protos import glue
from tomada.engine.port import (
    Banned,
    ChatPresence,
    ConnectFailed,
    LoggedOut,
    Paired,
    ReceiptReceived,
)

OWN = Own(OWN_PHONE, f"{OWN_LID}@lid")


def nobody(_: object) -> None:
    """A store that knows no numbers."""


def receipt(kind: str, where: Any, *ids: str) -> ReceiptReceived | None:
    """The translation of a receipt of this kind."""
    event = glue.Receipt(
        MessageSource=where,
        MessageIDs=ids or ("A",),
        Timestamp=1_700_000_000,
        Type=glue.Receipt.ReceiptType.Value(kind),
    )
    return neonize_events.receipt(event, OWN, nobody)


def test_receipt_in_a_private_chat() -> None:
    """Several ids, seconds become milliseconds, the device is told, and no participant."""
    found = receipt("READ", source(hidden(), hidden(device=2), SenderAlt=person(device=2)), "A", "B")
    assert found == ReceiptReceived(
        "read", ("A", "B"), PHONE, f"{LID}@lid", is_group=False, at_ms=1_700_000_000_000, device=2
    )


def test_receipt_in_a_group() -> None:
    """In a group the participant says whose receipt it is."""
    found = receipt("DELIVERED", source(jid(GROUP, "g.us"), hidden(), SenderAlt=person(), IsGroup=True))
    assert found is not None
    assert (found.chat, found.chat_lid, found.participant, found.participant_lid) == (
        f"{GROUP}-group",
        None,
        PHONE,
        f"{LID}@lid",
    )


@pytest.mark.parametrize(
    ("kind", "from_me", "told"),
    [
        ("DELIVERED", False, "delivered"),
        ("INACTIVE", False, "delivered"),
        ("READ", False, "read"),
        ("PLAYED", False, "played"),
        ("READ", True, "read_self"),
        ("READ_SELF", True, "read_self"),
        ("DELIVERED", True, None),
        ("SENDER", True, None),
        ("RETRY", False, None),
        ("SERVER_ERROR", True, None),
        ("PEER_MSG", True, None),
        ("HISTORY_SYNC", True, None),
    ],
)
def test_kinds_of_receipts(kind: str, from_me: bool, told: str | None) -> None:
    """People's receipts are told by kind; those between devices are not."""
    found = receipt(kind, source(hidden(), hidden(), IsFromMe=from_me, RecipientAlt=person()))
    assert (found.kind if found else None) == told


@pytest.mark.parametrize(
    ("state", "media", "status"), [(0, 0, "COMPOSING"), (0, 1, "RECORDING"), (1, 0, "PAUSED"), (1, 1, "PAUSED")]
)
def test_chat_presence(state: int, media: int, status: str) -> None:
    """Typing, recording, and the end of either."""
    names = glue.ChatPresence.ChatPresence.keys(), glue.ChatPresence.ChatPresenceMedia.keys()
    event = glue.ChatPresence(
        MessageSource=source(hidden(), hidden(), SenderAlt=person()), State=names[0][state], Media=names[1][media]
    )
    assert neonize_events.chat_presence(event, OWN, nobody) == ChatPresence(PHONE, status)


def test_presence() -> None:
    """Coming, and going with or without the time last seen."""
    for unavailable, last_seen, told in (
        (False, -62135596800, ChatPresence(PHONE, "AVAILABLE")),
        (True, 1_700_000_000, ChatPresence(PHONE, "UNAVAILABLE", 1_700_000_000_000)),
    ):
        event = glue.Presence(From=person(), Unavailable=unavailable, LastSeen=last_seen)
        assert neonize_events.presence(event, OWN, nobody) == told


@pytest.mark.parametrize(
    ("platform", "business", "told"), [("android", "", False), ("smba", "", True), ("x", "B", True)]
)
def test_paired(platform: str, business: str, told: bool) -> None:
    """The account is a business one by its app or by its business name."""
    me = glue.Device(
        JID=person(device=4),
        LID=hidden(device=4),
        Platform=platform,
        BussinessName=business,
        PushName="",
        Initialized=True,
    )
    assert neonize_events.paired(me) == Paired(PHONE, f"{LID}@lid", told, platform)


def test_refusals() -> None:
    """Logouts, bans and failures under WhatsApp's own names and numbers."""
    assert neonize_events.logged_out(glue.LoggedOut(OnConnect=False, Reason="LOGGED_OUT")) == LoggedOut("unlinked")
    gone = glue.LoggedOut(OnConnect=True, Reason="MAIN_DEVICE_GONE")
    assert neonize_events.logged_out(gone) == LoggedOut("main_device_gone")
    ban = glue.TemporaryBan(Code="BROADCAST_LIST", Expire=60)
    assert neonize_events.banned(ban, 1000) == Banned(106, 61_000)
    failure = glue.ConnectFailure(Reason="EXPERIMENTAL", Message="", Raw=glue.Node(Tag="failure"))
    assert neonize_events.connect_failed(failure) == ConnectFailed(501, "experimental")
