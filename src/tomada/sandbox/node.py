"""The two values everything in the sandbox is made of: an address (`Jid`) and a stanza (`Node`).

Why our own address type: on the wire an address is a different token than a text, and a codec that guesses by looking
for an "@" turns the push name `me@home` into an address, which the engine then rejects. Here a `str` is never an
address and a `Jid` is always one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

USER_SERVER = "s.whatsapp.net"
LID_SERVER = "lid"
GROUP_SERVER = "g.us"


class Jid(msgspec.Struct, frozen=True, order=True):
    """An address: `user@server` or, for one device of an account, `user:device@server`.

    `server` is `s.whatsapp.net` (phone number), `lid` (hidden number), `g.us` (group) and a few others. Device 0
    is the phone itself and is not written.
    """

    user: str
    server: str
    device: int = 0

    @property
    def bare(self) -> Jid:
        """The account without the device."""
        return self if self.device == 0 else Jid(self.user, self.server)

    @property
    def is_group(self) -> bool:
        """Whether this addresses a group."""
        return self.server == GROUP_SERVER

    def with_device(self, device: int) -> Jid:
        """The same account, another device."""
        return Jid(self.user, self.server, device)

    def __str__(self) -> str:
        if not self.user:
            return self.server
        device = f":{self.device}" if self.device else ""
        return f"{self.user}{device}@{self.server}"

    @staticmethod
    def parse(text: str) -> Jid:
        """Read `user@server`, `user:device@server` or a bare server name; `ValueError` if it is none of them."""
        user, at, server = text.rpartition("@")
        if not server or (at and not user and text.count("@") > 1):
            raise ValueError(f"not an address: {text!r}")
        user, colon, device = user.partition(":")
        if not colon:
            return Jid(user, server)
        if not device.isdigit() or int(device) > 255:
            raise ValueError(f"not a device number: {text!r}")
        return Jid(user, server, int(device))


SERVER = Jid("", USER_SERVER)
"""The network itself, as sender or receiver of a stanza."""


def user_jid(number: str, device: int = 0) -> Jid:
    """The address of an account by phone number (digits only)."""
    return Jid(number, USER_SERVER, device)


def lid_jid(lid_user: str, device: int = 0) -> Jid:
    """The address of an account by hidden number."""
    return Jid(lid_user, LID_SERVER, device)


AttrValue = str | Jid
Attrs = dict[str, AttrValue | int | None]
"""Handy attributes, as `element` takes them."""
Content = tuple["Node", ...] | bytes | None


class Node(msgspec.Struct, frozen=True):
    """A stanza or a part of one: tag, attributes, and either children, or data as bytes, or nothing.

    Frozen, so that one node may be queued for many devices at once. Data is always `bytes`: the wire's shorter
    spellings of a text (token, packed digits) are undone by the codec.
    """

    tag: str
    attrs: dict[str, AttrValue] = {}
    content: Content = None

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All children; empty if the content is data or missing."""
        return self.content if isinstance(self.content, tuple) else ()

    @property
    def data(self) -> bytes:
        """The data; empty if there are children or nothing."""
        return self.content if isinstance(self.content, bytes) else b""

    def children(self, tag: str) -> tuple[Node, ...]:
        """The children with this tag, in order."""
        return tuple(node for node in self.nodes if node.tag == tag)

    def child(self, *path: str) -> Node | None:
        """The first descendant along these tags, or None."""
        found: Node = self
        for tag in path:
            for node in found.nodes:
                if node.tag == tag:
                    found = node
                    break
            else:
                return None
        return found

    def text(self, name: str, default: str = "") -> str:
        """An attribute as text (an address in its text form)."""
        value = self.attrs.get(name)
        return default if value is None else str(value)

    def jid(self, name: str) -> Jid | None:
        """An attribute that is an address; None if it is missing or a plain text."""
        value = self.attrs.get(name)
        return value if isinstance(value, Jid) else None

    def with_attrs(self, attrs: Mapping[str, AttrValue | int | bool | None]) -> Node:
        """The same node with these attributes set, or removed where the value is None."""
        merged: dict[str, AttrValue | int | bool | None] = {**self.attrs, **attrs}
        return Node(self.tag, attributes(merged), self.content)

    def with_content(self, content: Content) -> Node:
        """The same node with other content."""
        return Node(self.tag, self.attrs, content)

    def __str__(self) -> str:
        head = "".join(f' {name}="{value}"' for name, value in self.attrs.items())
        if self.content is None:
            return f"<{self.tag}{head}/>"
        if isinstance(self.content, bytes):
            inner = f"<!-- {len(self.content)} bytes {self.content[:8].hex()} -->"
        elif len(self.content) > 6:
            inner = "".join(map(str, self.content[:2])) + f"<!-- {len(self.content) - 2} more -->"
        else:
            inner = "".join(map(str, self.content))
        return f"<{self.tag}{head}>{inner}</{self.tag}>"


def attributes(values: Mapping[str, AttrValue | int | bool | None]) -> dict[str, AttrValue]:
    """Attributes as the wire knows them: None is left out, numbers become digits, booleans `true` and `false`."""
    made: dict[str, AttrValue] = {}
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(value, bool):
            made[name] = "true" if value else "false"
        else:
            made[name] = str(value) if isinstance(value, int) else value
    return made


def element(
    tag: str,
    attrs: Mapping[str, AttrValue | int | bool | None] | None = None,
    content: Iterable[Node] | bytes | None = None,
) -> Node:
    """Make a node from handy values: see `attributes` for what becomes of them; children may be any iterable.

    An empty iterable is an empty list of children, which the wire tells apart from no content.
    """
    body: Content = content if isinstance(content, bytes) or content is None else tuple(content)
    return Node(tag, attributes(attrs or {}), body)
