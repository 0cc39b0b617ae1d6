"""The simulated network: accounts, devices and the routing of stanzas between them.

Every stanza, from a socket or from a simulated phone, comes through `Network.handle`: it runs one handler inside one
unit of work (`World.work`), so that what is stored is committed before the answer or anything else leaves.
Simulated phones use the part that `PhoneNetwork` describes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path
from random import Random  # noqa: TID251 - the type only: the instance is passed in
from typing import Any

from tomada.kit.clock import Clock
from tomada.sandbox.connection import Connection
from tomada.sandbox.groups_changes import handle_groups
from tomada.sandbox.login import handle_passive
from tomada.sandbox.media import MediaStore
from tomada.sandbox.network_account import (
    handle_app_state,
    handle_blocklist,
    handle_md,
    handle_media_connection,
    handle_mex,
    handle_picture,
    handle_privacy,
    handle_status,
)
from tomada.sandbox.network_devices import handle_encrypt, handle_usync
from tomada.sandbox.network_devices import unlink as unlink_device
from tomada.sandbox.network_faults import apply_fault
from tomada.sandbox.network_phone import PhoneLink
from tomada.sandbox.network_ports import (
    COMPANION_READY,
    AttachedDevice,
    BlobStore,
    Device,
    LinkCodeBundle,
    MediaLocation,
    PairingError,
    PendingLinkCode,
    PendingPairing,
    PhoneNetwork,
    SignedPrekey,
)
from tomada.sandbox.network_state import (
    Account,
    StanzaError,
    World,
    answer_to,
    log,
    owner_of,
    refusal_of,
)
from tomada.sandbox.node import Jid, Node
from tomada.sandbox.pairing import Pairings
from tomada.sandbox.presence import change_presence, forget_subscriber, handle_chatstate, handle_presence
from tomada.sandbox.relay import handle_call, handle_message
from tomada.sandbox.relay_receipts import handle_ack, handle_receipt
from tomada.sandbox.storage import Storage

__all__ = [
    "COMPANION_READY",
    "AttachedDevice",
    "BlobStore",
    "Device",
    "LinkCodeBundle",
    "MediaLocation",
    "Network",
    "PairingError",
    "PendingLinkCode",
    "PendingPairing",
    "PhoneNetwork",
    "SignedPrekey",
]

_UNKNOWN_KEPT = 100

IqHandler = Callable[[World, Device, Node], list[Node]]


class Network:
    """One simulated network in a directory; `close` it at the end."""

    def __init__(self, directory: Path, clock: Clock, random: Random) -> None:
        self.storage = Storage(directory)
        self.world = World(self.storage, clock, random)
        self.media = MediaStore(directory / "media")
        self.pairings = Pairings(self.world)
        self.connections: set[Connection] = set()
        self.unknown: deque[str] = deque(maxlen=_UNKNOWN_KEPT)
        """Stanzas nobody handled; they were answered with an empty result."""
        self.blobs: BlobStore = self.storage
        self._iq_handlers: dict[str, IqHandler] = {
            "w:p": lambda world, sender, iq: [],
            "passive": handle_passive,
            "encrypt": handle_encrypt,
            "usync": handle_usync,
            "md": handle_md,
            "privacy": handle_privacy,
            "blocklist": handle_blocklist,
            "status": handle_status,
            "disappearing_mode": lambda world, sender, iq: [],
            "w:mex": handle_mex,
            "w:m": handle_media_connection,
            "w:g2": handle_groups,
            "w:sync:app:state": handle_app_state,
            "w:profile:picture": lambda world, sender, iq: handle_picture(world, self.media, sender, iq),
        }

    async def close(self) -> None:
        """Stop the phones' workers and close the store; connections are their server's to end."""
        links = [link for link in self.world.links.values() if isinstance(link, PhoneLink)]
        await asyncio.gather(*(link.stop() for link in links))
        self.storage.close()

    def handle(self, sender: Device, node: Node, reply: Callable[[Node], None]) -> None:
        """Do what a device's stanza asks for; `reply` gets the answer, if there is one, after the commit."""
        world = self.world
        account = world.accounts.get(sender.number)
        if account is None or account.devices.get(sender.id) is not sender:
            return
        answers: list[Node] = []
        try:
            with world.work():
                world.after_commit(lambda: _reply_all(answers, reply))  # first in turn, filled below
                answer = self._handle(sender, node)
                if answer is not None:
                    answers.append(answer)
        except Exception:  # noqa: BLE001 - a stanza that a handler trips over must not end the connection
            log.exception("handling %s of %s", node, owner_of(sender))
            if node.tag == "iq":
                reply(refusal_of(node, StanzaError(500, "internal-server-error")))

    def _handle(self, sender: Device, node: Node) -> Node | None:
        world = self.world
        match node.tag:
            case "iq":
                return self._handle_iq(sender, node)
            case "message":
                ack = handle_message(world, sender, node)
                return None if world.faults.find("no-ack", sender.number) else ack
            case "receipt":
                return handle_receipt(world, sender, node)
            case "ack":
                handle_ack(world, sender, node)
            case "presence":
                return handle_presence(world, sender, node)
            case "chatstate":
                handle_chatstate(world, sender, node)
            case "call":
                return handle_call(world, sender, node)
            case "ib":
                pass
            case _:
                self.unknown.append(str(node))
        return None

    def _handle_iq(self, sender: Device, iq: Node) -> Node:
        handler = self._iq_handlers.get(iq.text("xmlns"))
        if handler is None:
            self.unknown.append(str(iq))
            return answer_to(iq)
        try:
            return answer_to(iq, handler(self.world, sender, iq) or None)
        except StanzaError as error:
            return refusal_of(iq, error)

    def gone(self, device: Device, connection: Connection) -> None:
        """Note that a device's connection ended, unless a newer one has taken its place."""
        if self.world.link(device) is not connection:
            return
        with self.world.work():
            del self.world.links[owner_of(device)]
            change_presence(self.world, device, available=False)
            forget_subscriber(self.world, device)

    # What simulated phones use (`PhoneNetwork`).

    async def attach(self, phone: AttachedDevice) -> Device:
        """Make the phone reachable as device 0 of its account."""
        account = self.world.accounts.get(phone.number)
        if account is None:
            account = Account(number=phone.number, lid_user=phone.lid_user, name=phone.name)
        device = Device(
            number=phone.number,
            lid_user=phone.lid_user,
            id=0,
            identity=phone.identity,
            registration_id=phone.registration_id,
            signed_prekey=phone.signed_prekey,
            ready=True,
            synced=True,
        )
        account.name = phone.name
        account.devices[0] = device
        self.world.accounts[phone.number] = self.world.by_lid[phone.lid_user] = account
        with self.world.work():
            self.world.save(account)
        earlier = self.world.link(device)
        if isinstance(earlier, PhoneLink):
            if earlier.phone is phone:  # a new name only; the worker may be the caller
                return device
            await earlier.stop()
        self.world.links[owner_of(device)] = PhoneLink(self.world, owner_of(device), phone)
        return device

    async def submit(self, phone: AttachedDevice, node: Node) -> Node | None:
        """Write a stanza as this phone; returns the answer, if there is one."""
        answers: list[Node] = []
        self.handle(self.world.accounts[phone.number].devices[0], node, answers.append)
        return answers[0] if answers else None

    def pending_pairing(self, ref: str) -> PendingPairing:
        """The connection that shows this QR reference."""
        return self.pairings.by_ref(ref)

    def pending_link_code(self, number: str) -> PendingLinkCode:
        """The connection that shows a pairing code for this number."""
        return self.pairings.by_number(number)

    def devices(self, number: str) -> list[Device]:
        """All devices of the account, the phone first."""
        account = self.world.accounts.get(number)
        return [account.devices[key] for key in sorted(account.devices)] if account else []

    def online(self, device: Device) -> bool:
        """Whether the device is logged in now."""
        return self.world.link(device) is not None

    async def unlink(self, number: str, device: int) -> bool:
        """Remove a linked device, tell it and everybody; False if there is no such device."""
        with self.world.work():
            return unlink_device(self.world, number, device)

    def find_number(self, jid: Jid) -> str | None:
        """The phone number behind an address."""
        account = self.world.account(jid)
        return account.number if account else None

    def upload(self, kind: str, ciphertext: bytes) -> MediaLocation:
        """Store an encrypted medium."""
        return self.media.save(kind, ciphertext)

    def download(self, direct_path: str) -> bytes | None:
        """The ciphertext at a path or URL of the media server."""
        path = self.media.path(direct_path)
        return path.read_bytes() if path else None

    # What the control routes use besides.

    def apply_fault(self, body: Any) -> dict[str, Any]:
        """Put a fault in force or carry it out; `FaultError` (a `ValueError`) if the request makes no sense."""
        return apply_fault(self.world, self.connections, body)

    def clear_faults(self) -> None:
        """End all standing faults."""
        self.world.faults.clear()

    def fault_report(self) -> dict[str, Any]:
        """What is in force, the connections now and the connects so far."""
        report = self.world.faults.report(len(self.connections))
        return {**report, "unknown": list(self.unknown)}


def _reply_all(answers: list[Node], reply: Callable[[Node], None]) -> None:
    for answer in answers:
        reply(answer)
