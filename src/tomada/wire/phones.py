"""What clients send as `phone`, and the one form each kind has inside (engine.port, addresses).

+55 (11) 98888-7777, 005511988887777, 5511988887777@c.us   5511988887777
120363012345678901-group, 120363012345678901@g.us         120363012345678901-group
5511988887777-1623281429 (the groups of before 2021)       5511988887777-1623281429-group
123456789012345@lid, 120363012345678901@newsletter         as they are
"""

import re

from tomada.errors import BadInput

_PUNCTUATION = re.compile(r"[\s+().\-\u2010-\u2015]")
_PERSON = re.compile(r"[1-9][0-9]{6,14}")  # E.164: at most 15 digits
_GROUP_ID = re.compile(r"[0-9]{10,20}(?:-[0-9]{9,11})?")
_OLD_GROUP = re.compile(r"[0-9]{10,15}-1[0-9]{9}")
_HIDDEN = re.compile(r"[0-9]{6,20}@(?:lid|newsletter)")
_PERSON_SERVERS = ("@c.us", "@s.whatsapp.net")
_LENGTH_MAX = 64


def chat_of(raw: str | int, field: str = "phone") -> str:
    """The chat that a client means. Raises BadInput (`Invalid phone`)."""
    if isinstance(raw, int) and not 0 <= raw < 10**_LENGTH_MAX:
        raise BadInput("Invalid phone")
    text = str(raw).strip()
    if not text:
        raise BadInput(f"{field} must not be empty")
    if len(text) <= _LENGTH_MAX:
        chat = _special(text) or _person(text)
        if chat:
            return chat
    raise BadInput("Invalid phone")


def person_of(raw: str | int) -> str:
    """As chat_of, for calls that take a person's number only."""
    chat = chat_of(raw)
    if not chat.isdecimal():
        raise BadInput("Invalid phone")
    return chat


def _special(text: str) -> str | None:
    if _HIDDEN.fullmatch(text):
        return text
    for suffix in ("-group", "@g.us"):
        if text.endswith(suffix):
            group = text.removesuffix(suffix)
            return f"{group}-group" if _GROUP_ID.fullmatch(group) else None
    return f"{text}-group" if _OLD_GROUP.fullmatch(text) else None


def _person(text: str) -> str | None:
    for server in _PERSON_SERVERS:
        text = text.removesuffix(server)
    digits = _PUNCTUATION.sub("", text).removeprefix("00")
    return digits if _PERSON.fullmatch(digits) else None
