"""A network in this process with phones that only write down what they get."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random  # noqa: TID251 - a seeded source of ids for the simulation

from tomada.kit.clock import SystemClock
from tomada.sandbox.network import Device, Network, SignedPrekey
from tomada.sandbox.node import Attrs, Jid, Node, element, lid_jid, user_jid

SKEY = SignedPrekey(1, b"s" * 32, b"g" * 64)


class FakePhone:
    """An attached device without cryptography; `got` holds what was delivered."""

    def __init__(self, number: str, name: str = "Someone") -> None:
        self.number, self.name = number, name
        self.lid_user = f"9{number}"
        self.identity = number.encode().ljust(32, b".")
        self.registration_id = 7
        self.signed_prekey = SKEY
        self.got: list[Node] = []
        self.broken = False

    @property
    def lid(self) -> Jid:
        """Hidden-number address."""
        return lid_jid(self.lid_user)

    @property
    def pn(self) -> Jid:
        """Phone-number address."""
        return user_jid(self.number)

    async def deliver(self, node: Node) -> None:
        """Write it down."""
        if self.broken:
            raise RuntimeError("broken on purpose")
        self.got.append(node)

    def of(self, tag: str, kind: str | None = None) -> list[Node]:
        """What came with this tag and type."""
        return [n for n in self.got if n.tag == tag and (kind is None or n.text("type") == kind)]


class FakeLink:
    """A companion's connection that writes down what is pushed."""

    def __init__(self) -> None:
        self.active = False
        self.got: list[Node] = []
        self.last: Node | None = None
        self.closed = False

    def push(self, node: Node, seq: int = 0) -> None:
        """Write it down."""
        self.got.append(node)

    def close(self, last: Node | None = None) -> None:
        """Remember how it ended."""
        self.last, self.closed = last, True

    def abort(self) -> None:
        """Remember that it ended."""
        self.closed = True


class Town:
    """A network with some phones; `close` it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network = Network(folder, SystemClock(), Random(5))

    async def phone(self, number: str, name: str = "Someone") -> FakePhone:
        """Attach a phone."""
        phone = FakePhone(number, name)
        await self.network.attach(phone)
        return phone

    def companion(self, phone: FakePhone, device_id: int = 1) -> Device:
        """Link a device without the ceremony."""
        device = Device(
            number=phone.number,
            lid_user=phone.lid_user,
            id=device_id,
            identity=b"c" * 32,
            registration_id=9,
            signed_prekey=SKEY,
            noise_key=b"n" * 32,
            name="Desk",
        )
        account = self.network.world.accounts[phone.number]
        account.devices[device_id] = device
        with self.network.world.work():
            self.network.world.save(account)
        return device

    async def iq(self, phone: FakePhone, xmlns: str, kind: str, *content: Node, to: Jid | None = None) -> Node:
        """Ask something; the answer."""
        head: Attrs = {"id": "q1", "xmlns": xmlns, "type": kind, "to": to or Jid("", "s.whatsapp.net")}
        answer = await self.network.submit(phone, element("iq", head, content))
        assert answer is not None
        return answer

    async def send(self, phone: FakePhone, to: Jid, devices: list[Jid], message_id: str = "M1") -> Node:
        """Send an opaque message to these devices; the ack."""
        encs = [element("to", {"jid": jid}, [element("enc", {"v": 2, "type": "msg"}, b"x")]) for jid in devices]
        content = [element("participants", {}, encs)]
        if to.is_group:
            content.append(element("enc", {"v": 2, "type": "skmsg"}, b"y"))
        ack = await self.network.submit(
            phone, element("message", {"id": message_id, "to": to, "type": "text"}, content)
        )
        assert ack is not None
        return ack

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until phones have got what they should."""
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.001)


def error_code(answer: Node) -> int:
    """The code of a refused request; 0 if it was not refused."""
    problem = answer.child("error")
    return int(problem.text("code")) if problem else 0
