"""Addresses: WhatsApp's JIDs and the wire's strings, both ways. Pure functions.

    5544999999999                ⇄  5544999999999@s.whatsapp.net     a person
    120363019502650977-group     ⇄  120363019502650977@g.us          a group
    1203630@newsletter           ⇄  1203630@newsletter               a channel
    98765@lid                    ⇄  98765@lid                        a person whose number is hidden

WhatsApp addresses people by hidden ids (LIDs) and gives the number beside them, or not. Devices (`:7`) do not show in
an address.
"""

from typing import NamedTuple

import msgspec

from tomada.engine.port import EngineRefused

PERSON, HIDDEN, GROUP, NEWSLETTER, BROADCAST = "s.whatsapp.net", "lid", "g.us", "newsletter", "broadcast"
_DEVICE_DIGITS_MAX = 5  # sixteen bits on the wire
_FOLDED = {"hosted": PERSON, "hosted.lid": HIDDEN, "c.us": PERSON}


class Jid(NamedTuple):
    """One of WhatsApp's addresses; an empty user means none."""

    user: str
    server: str
    device: int = 0

    def __str__(self) -> str:
        return f"{self.user}@{self.server}"


class Own(msgspec.Struct, frozen=True):
    """The account's own number and hidden id (both may be empty while unknown)."""

    phone: str = ""
    lid: str = ""  # `<id>@lid`


NONE = Jid("", "")


def parse(text: str) -> Jid:
    """A JID's parts, with WhatsApp's hosted variants folded into the plain ones; NONE for what is none."""
    user, _, server = text.partition("@")
    if not user or not server:
        return NONE
    user, _, device = user.partition(":")
    name = user.partition(".")[0] if server not in (GROUP, NEWSLETTER) else user
    is_device = device.isdecimal() and len(device) <= _DEVICE_DIGITS_MAX
    return Jid(name, _FOLDED.get(server, server), int(device) if is_device else 0)


def lid_of(*jids: Jid) -> str | None:
    """The first hidden id among these, as `<id>@lid`."""
    return next((str(jid) for jid in jids if jid.user and jid.server == HIDDEN), None)


def address(jid: Jid, alt: Jid, own: Own, numbers: dict[str, str]) -> str:
    """The wire's address of a JID; `alt` is the same person under the other kind, `numbers` those behind hidden ids."""
    if jid.server == GROUP:
        return f"{jid.user}-group"
    if jid.server == PERSON:
        return jid.user
    if jid.server != HIDDEN:
        return str(jid)
    if alt.user and alt.server == PERSON:
        return alt.user
    hidden = str(jid)
    return own.phone if own.phone and hidden == own.lid else numbers.get(hidden) or hidden


def jid_of(address_text: str) -> Jid:
    """The JID that an address means; raises EngineRefused when it means none."""
    user, at, server = address_text.partition("@")
    if at and user and server in {HIDDEN, NEWSLETTER, BROADCAST}:
        return Jid(user, server)
    if not at and user.endswith("-group") and user.removesuffix("-group").replace("-", "").isdecimal():
        return Jid(user.removesuffix("-group"), GROUP)
    if not at and user.isascii() and user.isdecimal():
        return Jid(user, PERSON)
    raise EngineRefused(f"not an address of WhatsApp: {address_text[:40]!r}")
