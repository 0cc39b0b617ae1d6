"""Addresses: the library's JIDs and the wire's strings, both ways.

    5544999999999                ⇄  5544999999999@s.whatsapp.net     a person
    120363019502650977-group     ⇄  120363019502650977@g.us          a group
    1203630@newsletter           ⇄  1203630@newsletter               a channel
    98765@lid                    ⇄  98765@lid                        a person whose number is hidden

WhatsApp addresses people by hidden ids (LIDs) and gives the number beside them, or not; `phone_of` asks the engine's
own store then. Devices (`:7`) do not show in an address.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from tomada.engine.neonize_protos import glue
from tomada.engine.port import EngineRefused

PERSON, HIDDEN, GROUP, NEWSLETTER, BROADCAST = "s.whatsapp.net", "lid", "g.us", "newsletter", "broadcast"
_HOSTED = {"hosted": PERSON, "hosted.lid": HIDDEN, "c.us": PERSON}

PhoneOf = Callable[[Any], str | None]  # a glue.JID with a hidden user -> digits, if known


class Own(msgspec.Struct, frozen=True):
    """The account's own number and hidden id (both may be empty while unknown)."""

    phone: str = ""
    lid: str = ""  # `<id>@lid`


def server_of(jid: Any) -> str:
    """The JID's server, with WhatsApp's hosted variants folded into the plain ones."""
    return _HOSTED.get(jid.Server) or str(jid.Server)


def lid_of(*jids: Any) -> str | None:
    """The first hidden id among these, as `<id>@lid`."""
    return next((f"{jid.User}@lid" for jid in jids if jid.User and server_of(jid) == HIDDEN), None)


def address(jid: Any, alt: Any, own: Own, phone_of: PhoneOf) -> str:
    """The wire's address of a JID; `alt` is the same person under the other kind of id, if WhatsApp said so."""
    server = server_of(jid)
    if server == GROUP:
        return f"{jid.User}-group"
    if server == PERSON:
        return str(jid.User)
    if server != HIDDEN:
        return f"{jid.User}@{server}"
    if alt is not None and alt.User and server_of(alt) == PERSON:
        return str(alt.User)
    hidden = f"{jid.User}@lid"
    return own.phone if own.phone and hidden == own.lid else phone_of(jid) or hidden


def address_of_text(text: str, own: Own, phone_of: PhoneOf) -> str | None:
    """The address of a JID that stands in a message as text, such as a quote's author."""
    user, _, server = text.partition("@")
    if not user or not server:
        return None
    return address(jid(user.split(":")[0].split(".")[0], server), None, own, phone_of)


def jid(user: str, server: str) -> Any:
    """A glue.JID without device."""
    return glue.JID(User=user, Server=server, RawAgent=0, Device=0, Integrator=0, IsEmpty=not user)


def jid_of(address_text: str) -> Any:
    """The JID that an address means; raises EngineRefused when it means none."""
    user, at, server = address_text.partition("@")
    if at and user and server in {HIDDEN, NEWSLETTER, BROADCAST}:
        return jid(user, server)
    if not at and user.endswith("-group") and user.removesuffix("-group").replace("-", "").isdecimal():
        return jid(user.removesuffix("-group"), GROUP)
    if not at and user.isascii() and user.isdecimal():
        return jid(user, PERSON)
    raise EngineRefused(f"not an address of WhatsApp: {address_text[:40]!r}")


def jid_text(address_text: str) -> str:
    """The JID that an address means, as text for the inside of a message."""
    found = jid_of(address_text)
    return f"{found.User}@{found.Server}"
