"""What simulated phones and the simulated network know of each other.

A simulated phone is device 0 of its account, attached in process: it writes the stanzas a real phone would write to
its socket (`Network.submit`) and is handed those it would read (`AttachedDevice.deliver`). So phones and companions
(the devices an engine links) share one router, one store and one order of events.

What rests on what: a stanza for a phone is stored before its sender gets an acknowledgement, and forgotten only
after `deliver` returned. A crash in between delivers it again, so a phone must know the message ids it has seen.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from tomada.sandbox.node import Jid, Node, lid_jid, user_jid

COMPANION_READY = "companion_ready"
"""Type of the notification a phone gets once per linked device, when its prekeys are there.

`<notification from=S type=companion_ready id t device=JID/>` is ours, not WhatsApp's (a real phone learns it from
its own server traffic): the phone answers it with the app state keys, by a message with category `peer`. `device` is
the companion's hidden-number address.
"""


class SignedPrekey(msgspec.Struct, frozen=True):
    """A medium-term key: `key` is 32 bytes, `signature` 64 bytes by the identity over 05 and the key."""

    id: int
    key: bytes
    signature: bytes


class AttachedDevice(Protocol):
    """A simulated phone as the network sees it."""

    number: str
    """Phone number, digits only."""
    name: str
    """Push name; copied into the messages it sends (`notify`)."""
    lid_user: str
    """User part of the hidden-number address; never changes for a number."""
    identity: bytes
    """Public identity key, 32 bytes."""
    registration_id: int
    signed_prekey: SignedPrekey

    async def deliver(self, node: Node) -> None:
        """Take one stanza (message, receipt, notification, presence, chatstate). Called one at a time, in order.

        May be called twice with one stanza after a crash. An exception is logged and the stanza forgotten.
        """


class Device(msgspec.Struct):
    """One device of an account: 0 is the phone, the others were linked."""

    number: str
    lid_user: str
    id: int
    identity: bytes
    registration_id: int
    signed_prekey: SignedPrekey
    noise_key: bytes = b""
    name: str = ""
    """Linked devices only: the name the phone shows under linked devices."""
    platform: int = 0
    """Linked devices only: number of the platform type (1 = Chrome)."""
    key_index: int = 0
    ready: bool = False
    """Whether it has logged in and uploaded its prekeys at least once."""
    synced: bool = False
    """Whether it has asked for app state at least once."""

    @property
    def pn(self) -> Jid:
        """Its address by phone number."""
        return user_jid(self.number, self.id)

    @property
    def lid(self) -> Jid:
        """Its address by hidden number."""
        return lid_jid(self.lid_user, self.id)


class PendingPairing(Protocol):
    """A connection that shows a QR code and waits to be linked."""

    identity: bytes
    """The companion's public identity key, 32 bytes."""
    noise_key: bytes
    """The companion's public key of the transport handshake, 32 bytes; the QR code repeats it."""
    registration_id: int
    device_name: str
    platform: int

    async def finish(self, number: str, signed_identity_hmac: bytes, key_index: int) -> Device:
        """Hand the companion its `ADVSignedDeviceIdentityHMAC`, check its answer and link the device.

        Raises `PairingError` if the companion refuses, its signature is wrong or it does not answer in time.
        """


class PendingLinkCode(Protocol):
    """A companion that shows a pairing code for a number and waits for the phone to enter it."""

    number: str
    wrapped_companion_ephemeral: bytes
    """80 bytes: salt 32, initialisation vector 16, encrypted public key 32."""
    platform_display: str

    @property
    def pairing(self) -> PendingPairing:
        """The connection it belongs to."""

    async def exchange(self, wrapped_primary_ephemeral: bytes, primary_identity: bytes) -> LinkCodeBundle:
        """Send the phone's half of the key exchange and wait for the companion's; `PairingError` if none comes."""


class LinkCodeBundle(msgspec.Struct, frozen=True):
    """The companion's half: `wrapped_key_bundle` is salt 32, nonce 12, ciphertext; the identity is 32 bytes."""

    wrapped_key_bundle: bytes
    companion_identity: bytes


class MediaLocation(msgspec.Struct, frozen=True):
    """Where an uploaded ciphertext lies: what goes into a media message."""

    url: str
    direct_path: str


class PairingError(Exception):
    """A code is unknown or expired, or the companion refused the link; the text says which."""


class BlobStore(Protocol):
    """Durable bytes by (number, key); written before the call returns, and alive after `kill -9`."""

    def get(self, number: str, key: str) -> bytes | None:
        """The bytes, or None."""

    def put(self, number: str, key: str, value: bytes) -> None:
        """Store, replacing what was there."""

    def put_many(self, number: str, values: dict[str, bytes]) -> None:
        """Store several at once, all or none."""

    def delete(self, number: str, key: str) -> None:
        """Forget; nothing happens if it is not there."""

    def scan(self, number: str, prefix: str) -> list[tuple[str, bytes]]:
        """All (key, bytes) whose key starts with the prefix, sorted by key."""

    def owners(self, key: str) -> list[tuple[str, bytes]]:
        """All (number, bytes) that hold this key, sorted by number: how stored phones are found at start."""


class PhoneNetwork(Protocol):
    """The network as a simulated phone uses it."""

    blobs: BlobStore

    async def attach(self, phone: AttachedDevice) -> Device:
        """Make the phone reachable as device 0 of its account, creating the account if need be.

        Attaching again replaces the record (name, keys). Stanzas stored for it are delivered from now on.
        """

    async def submit(self, phone: AttachedDevice, node: Node) -> Node | None:
        """Write a stanza as this phone. An `iq` gives its result or error, a `message` or `receipt` its ack."""

    def pending_pairing(self, ref: str) -> PendingPairing:
        """The connection that shows this QR reference; `PairingError` if it is unknown or expired."""

    def pending_link_code(self, number: str) -> PendingLinkCode:
        """The connection that shows a pairing code for this number; `PairingError` if there is none."""

    def devices(self, number: str) -> list[Device]:
        """All devices of the account, the phone first; empty if the number is unknown."""

    def online(self, device: Device) -> bool:
        """Whether the device is logged in now."""

    async def unlink(self, number: str, device: int) -> bool:
        """Remove a linked device, tell it and everybody; False if there is no such device."""

    def find_number(self, jid: Jid) -> str | None:
        """The phone number behind an address by number or hidden number; None if it is unknown."""

    def upload(self, kind: str, ciphertext: bytes) -> MediaLocation:
        """Store an encrypted medium (`kind`: image, video, audio, document, ...)."""

    def download(self, direct_path: str) -> bytes | None:
        """The ciphertext at a path or URL of the media server; None if it is not there."""
