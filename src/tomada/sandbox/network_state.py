"""The state every handler of the network works on, and the one way a stanza reaches a device.

Handlers are plain synchronous functions that run inside `World.work`: what they store is committed together, and what
they send leaves after the commit, in the order it was sent. As nothing awaits in between, no handler sees another's
half-done work. A device is reached through its `Link` (a socket, or a simulated phone); a device without one, or
one that has not said that it is ready, finds its stanzas in the store when it comes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from random import Random  # noqa: TID251 - the type only: the instance is passed in
from typing import Protocol

import msgspec

from tomada.kit.clock import Clock
from tomada.sandbox.codec import encode
from tomada.sandbox.faults import Faults
from tomada.sandbox.network_ports import Device
from tomada.sandbox.node import (
    GROUP_SERVER,
    LID_SERVER,
    SERVER,
    USER_SERVER,
    Attrs,
    Jid,
    Node,
    element,
    lid_jid,
    user_jid,
)
from tomada.sandbox.storage import Storage

log = logging.getLogger("tomada.sandbox")

QUEUE_MAX = 20_000
"""Stanzas kept for one device; beyond it the oldest goes (the real network forgets after some weeks)."""


class Account(msgspec.Struct):
    """A number that is known to the network, with its devices."""

    number: str
    lid_user: str
    name: str
    about: str = "Hey there! I am using WhatsApp."
    next_device: int = 1
    devices: dict[int, Device] = {}

    @property
    def pn(self) -> Jid:
        """Its address by phone number."""
        return user_jid(self.number)

    @property
    def lid(self) -> Jid:
        """Its address by hidden number."""
        return lid_jid(self.lid_user)


class Group(msgspec.Struct):
    """A group. `members` maps numbers to roles: empty, `admin` or `superadmin` (the creator)."""

    id: str
    subject: str
    owner: str
    created_s: int
    members: dict[str, str]
    subject_s: int
    subject_owner: str
    invite_code: str
    description: str = ""
    description_id: str = ""
    description_owner: str = ""
    description_s: int = 0
    announce: bool = False
    """Only admins may write."""
    locked: bool = False
    """Only admins may change subject and description."""
    expiration_s: int = 0
    """Disappearing messages; 0 = off."""
    add_by_all: bool = True
    """Whether every member may add others."""

    @property
    def jid(self) -> Jid:
        """Its address."""
        return Jid(self.id, GROUP_SERVER)

    def is_admin(self, number: str) -> bool:
        """Whether a number may administer it."""
        return self.members.get(number, "") != ""


class Link(Protocol):
    """The way to one device that is there now."""

    active: bool
    """Whether stored and new stanzas may be sent (false during log-in)."""

    def push(self, node: Node, seq: int = 0) -> None:
        """Send without waiting; `seq` is the stanza's number in the store, 0 if it is not stored."""

    def close(self, last: Node | None = None) -> None:
        """Send this last node, then close."""

    def abort(self) -> None:
        """Cut at once, as a broken network would."""


def owner_of(device: Device) -> str:
    """A device as the store names it."""
    return f"{device.number}:{device.id}"


class World:
    """Accounts, links and store of one simulated network."""

    def __init__(self, storage: Storage, clock: Clock, random: Random) -> None:
        self.storage, self.clock, self.random = storage, clock, random
        self.accounts: dict[str, Account] = {}
        self.by_lid: dict[str, Account] = {}
        self.links: dict[str, Link] = {}
        self.faults = Faults(clock)
        self.available: set[str] = set()
        """Owners that announced themselves as available."""
        self.subscribers: dict[str, dict[str, str]] = {}
        """number -> owner of a device that wants its presence -> server part it asked for."""
        self._outbox: list[Callable[[], None]] = []
        self._working = False
        self.groups: dict[str, Group] = {
            group_id: msgspec.msgpack.decode(value, type=Group) for group_id, value in storage.records("group")
        }
        for _, value in storage.records("account"):
            account = msgspec.msgpack.decode(value, type=Account)
            self.accounts[account.number] = self.by_lid[account.lid_user] = account

    @contextmanager
    def work(self) -> Iterator[None]:
        """One unit of work: commit what was stored, then send what was to be sent; on an error, neither."""
        if self._working:
            yield
            return
        self._working = True
        try:
            with self.storage.transaction():
                yield
        except BaseException:
            self._outbox.clear()
            raise
        finally:
            self._working = False
        outbox, self._outbox = self._outbox, []
        for send in outbox:
            send()

    def now_s(self) -> int:
        """Unix seconds, as stanzas carry them."""
        return self.clock.now_ms() // 1000

    def fresh_id(self) -> str:
        """An id for a stanza of the network's own."""
        return f"{self.random.getrandbits(48):012X}"

    def save(self, account: Account) -> None:
        """Store an account with its devices."""
        self.storage.put_record("account", account.number, msgspec.msgpack.encode(account))

    def save_group(self, group: Group) -> None:
        """Store a group."""
        self.groups[group.id] = group
        self.storage.put_record("group", group.id, msgspec.msgpack.encode(group))

    def account(self, jid: Jid | None) -> Account | None:
        """The account behind an address by number or hidden number."""
        if jid is None:
            return None
        if jid.server == LID_SERVER:
            return self.by_lid.get(jid.user)
        return self.accounts.get(jid.user) if jid.server == USER_SERVER else None

    def device(self, jid: Jid | None) -> Device | None:
        """The device at an address."""
        account = self.account(jid)
        return account.devices.get(jid.device) if account and jid else None

    def name_of(self, device: Device) -> str:
        """The push name of a device's account."""
        return self.accounts[device.number].name

    def link(self, device: Device) -> Link | None:
        """The way to a device, if it is there."""
        return self.links.get(owner_of(device))

    def deliver(self, device: Device, node: Node) -> None:
        """Send a stanza that must arrive: it is stored until the device acknowledges it."""
        owner = owner_of(device)
        seq = self.storage.queue(owner, node.tag, node.text("id"), stanza_detail(node), encode(node))
        if seq % 256 == 0 and self.storage.count_queued(owner) > QUEUE_MAX:
            oldest = self.storage.queued(owner, 256)
            log.warning("queue of %s is full, %d stanzas forgotten", owner, len(oldest))
            for old_seq, _ in oldest:
                self.storage.settle_seq(old_seq)
        link = self.links.get(owner)
        if link and link.active:
            self._outbox.append(lambda: link.push(node, seq))

    def send(self, device: Device, node: Node) -> None:
        """Send a stanza that only counts now (presence, answers): it is lost if the device is not there."""
        link = self.link(device)
        if link:
            self._outbox.append(lambda: link.push(node))

    def after_commit(self, action: Callable[[], None]) -> None:
        """Do something once the present work is stored, in turn with what is sent."""
        self._outbox.append(action)

    def notify(self, device: Device, kind: str, sender: Jid, content: list[Node], attrs: Attrs | None = None) -> None:
        """Deliver a `<notification>` of the network's own."""
        head: Attrs = {"from": sender, "type": kind, "id": self.fresh_id(), "t": self.now_s(), **(attrs or {})}
        self.deliver(device, element("notification", head, content))


def stanza_detail(node: Node) -> str:
    """What tells apart stanzas with one id: receipts for a message differ in type and in who sent them."""
    if node.tag != "receipt":
        return ""
    return f"{node.text('type')} {node.text('from')} {node.text('participant')}"


class StanzaError(Exception):
    """A request that is refused; becomes `<iq type=error>` or an ack with an error."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


def answer_to(iq: Node, content: Iterable[Node] | None = None) -> Node:
    """The result of a request."""
    sender = iq.jid("to") or SERVER
    return element("iq", {"from": sender, "type": "result", "id": iq.text("id")}, content)


def refusal_of(iq: Node, error: StanzaError) -> Node:
    """The error answer to a request."""
    problem = element("error", {"code": error.code, "text": error.text})
    sender = iq.jid("to") or SERVER
    return element("iq", {"from": sender, "type": "error", "id": iq.text("id")}, [problem])
