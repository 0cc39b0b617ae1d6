"""The library's events as it makes them, for tests of the translation."""

from typing import Any

from tomada.engine.neonize_protos import e2e, glue

OWN_PHONE, OWN_LID = "5511900000000", "111"
PHONE, LID = "5544999999999", "222"
GROUP = "120363019502650977"


def jid(user: str = "", server: str = "", device: int = 0) -> Any:
    """A glue.JID; empty without arguments."""
    return glue.JID(User=user, Server=server, Device=device, RawAgent=0, Integrator=0, IsEmpty=not user)


def person(phone: str = PHONE, device: int = 0) -> Any:
    """A phone-number JID."""
    return jid(phone, "s.whatsapp.net", device)


def hidden(lid: str = LID, device: int = 0) -> Any:
    """A JID whose number is hidden."""
    return jid(lid, "lid", device)


def source(chat: Any, sender: Any, **more: Any) -> Any:
    """A glue.MessageSource."""
    fields = {"IsFromMe": False, "IsGroup": False, "SenderAlt": jid(), "RecipientAlt": jid()} | more
    return glue.MessageSource(Chat=chat, Sender=sender, BroadcastListOwner=jid(), **fields)


def message(where: Any, content: Any, **more: Any) -> Any:
    """A glue.Message with this source and e2e content; `more` goes into its info."""
    info = {"Category": "", "Pushname": "Ana", "Timestamp": 1_700_000_000_123} | more
    return glue.Message(
        Info=glue.MessageInfo(
            MessageSource=where, ID="WA1", ServerID=0, Type="text", Multicast=False, MediaType="", Edit="", **info
        ),
        Message=content,
        IsEphemeral=False,
        IsViewOnce=False,
        IsViewOnceV2=False,
        IsViewOnceV2Extension=False,
        IsDocumentWithCaption=False,
        IsLottieSticker=False,
        IsEdit=False,
        UnavailableRequestID="",
        RetryCount=0,
    )


def text(words: str) -> Any:
    """A plain text as e2e.Message."""
    return e2e.Message(conversation=words)
