"""What a machine tells, for tests of its reading: our own account, another person, a group."""

from typing import Any

from tomada.engine import port, reading, told
from tomada.engine.addresses import Own
from tomada.kit.protobufs import Package

e2e = Package("WAWebProtobufsE2E")

OWN_PHONE, OWN_LID = "5511900000000", "111@lid"
PHONE, LID, JID = "5544999999999", "222@lid", "5544999999999@s.whatsapp.net"
GROUP, GROUP_JID = "120363019502650977-group", "120363019502650977@g.us"
OWN = Own(OWN_PHONE, OWN_LID)
KNOWN = reading.Known(OWN, {})

THEIRS: dict[str, Any] = {"chat": LID, "chat_alt": JID, "sender": "222:3@lid", "sender_alt": JID}
OURS: dict[str, Any] = {"chat": LID, "chat_alt": JID, "sender": f"{OWN_PHONE}:3@s.whatsapp.net", "from_me": True}
IN_GROUP: dict[str, Any] = {"chat": GROUP_JID, "sender": "222:3@lid", "sender_alt": JID, "is_group": True}


def text(words: str) -> Any:
    """A plain text as WhatsApp's message."""
    return e2e.Message(conversation=words)


def message(content: Any, **more: Any) -> told.Message:
    """A message of the other person, unless `more` says otherwise."""
    fields = {"wa_id": "WA1", "at_ms": 1_700_000_000_123, "push_name": "Ana", **THEIRS, **more}
    return told.Message(raw=content.SerializeToString(), **fields)


def received(event: told.Message, known: reading.Known = KNOWN) -> port.MessageReceived:
    """The reading of a message that must say something."""
    found = reading.read(event, known)
    assert isinstance(found, port.MessageReceived)
    return found
