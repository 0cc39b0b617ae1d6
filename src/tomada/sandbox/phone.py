"""A simulated phone: a person's main device, attached to the simulated network in process.

This module holds what a phone *is* (its keys, its memory, its way to the network); what it does lies beside it as plain
functions over a `Phone`: `phone_pairing`, `phone_outbox`, `phone_inbox`, `phone_settings`. `receive` is handed in, so
that none of them needs to be known here.

Making one costs two key pairs and a signature, about 1 ms, so that hundreds are possible. A phone has no one-time
prekeys on the network (they are optional in the protocol); it makes one when it asks for a message again.
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import Awaitable, Callable

import msgspec

from tomada.kit.clock import Clock
from tomada.sandbox.curve import KeyPair
from tomada.sandbox.network_ports import PhoneNetwork
from tomada.sandbox.node import Jid, Node, lid_jid, user_jid
from tomada.sandbox.phone_log import MessageLog
from tomada.sandbox.phone_store import PhoneStore
from tomada.sandbox.signal_sessions import SignalSessions, sign_prekey

RECORD_KEY = "phone"
SIGHTINGS_MAX = 200
_LID_DIGITS = 15


class PhoneRecord(msgspec.Struct, frozen=True):
    """What is stored of a phone itself; keys are private halves, 32 bytes each."""

    name: str
    identity: bytes
    signed_prekey: bytes
    registration_id: int
    raw_id: int
    key_index: int = 0


class Sighting(msgspec.Struct, frozen=True):
    """Something this phone saw of another account: `what` is available, unavailable, composing, recording or paused."""

    by: str
    what: str
    at: int


class NetworkRefused(Exception):
    """The network answered a stanza with an error"""


class Phone:
    """One simulated phone; an `AttachedDevice` of the network."""

    def __init__(
        self,
        number: str,
        record: PhoneRecord,
        *,
        network: PhoneNetwork,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
        receive: "Callable[[Phone, Node], Awaitable[None]]",
    ) -> None:
        self.number = number
        self.lid_user = lid_user(number)
        self.record = record
        self.keys = KeyPair(record.identity)
        self.name = record.name
        self.identity = self.keys.public
        self.registration_id = record.registration_id
        self.network = network
        self.clock = clock
        self.random_bytes = random_bytes
        self.store = PhoneStore(network.blobs, number)
        self.log = MessageLog(self.store)
        prekey = KeyPair(record.signed_prekey)
        self.signed_prekey = sign_prekey(self.keys, prekey)
        self.sessions = SignalSessions(self.store, self.keys, prekey, record.registration_id)
        self.fetching = asyncio.Lock()
        self.settings_lock = asyncio.Lock()
        self.sightings: deque[Sighting] = deque(maxlen=SIGHTINGS_MAX)
        self._receive = receive

    @property
    def lid(self) -> Jid:
        """The account's hidden-number address."""
        return lid_jid(self.lid_user)

    @property
    def pn(self) -> Jid:
        """The account's address by number."""
        return user_jid(self.number)

    async def deliver(self, node: Node) -> None:
        """Take one stanza from the network."""
        await self._receive(self, node)

    async def submit(self, node: Node) -> Node | None:
        """Write one stanza; its answer, None if there is none. `NetworkRefused` if it is an error."""
        answer = await self.network.submit(self, node)
        if answer is not None and (answer.text("type") == "error" or "error" in answer.attrs):
            raise NetworkRefused(f"the network refused: {answer}")
        return answer

    async def ask(self, node: Node) -> Node:
        """Write a stanza that must be answered (an `iq`); `NetworkRefused` also if nothing comes back."""
        answer = await self.submit(node)
        if answer is None:
            raise NetworkRefused(f"the network did not answer <{node.tag}>")
        return answer

    def update(self, record: PhoneRecord) -> None:
        """Replace the stored record; durable when this returns."""
        self.record = record
        self.name = record.name
        self.store.put(RECORD_KEY, msgspec.msgpack.encode(record))
        self.store.commit()

    def new_id(self) -> str:
        """A stanza id in the form phones use: `3A` and 18 hex digits."""
        return "3A" + self.random_bytes(9).hex().upper()

    def now_s(self) -> str:
        """The time as stanzas carry it: seconds, in digits."""
        return str(self.clock.now_ms() // 1000)


def lid_user(number: str) -> str:
    """The hidden number of an account: 15 digits that follow from the number, so that they survive everything."""
    digest = int.from_bytes(hashlib.sha256(number.encode()).digest()[:8], "big")
    return str(10 ** (_LID_DIGITS - 1) + digest % (9 * 10 ** (_LID_DIGITS - 1)))


def new_record(name: str, random_bytes: Callable[[int], bytes]) -> PhoneRecord:
    """The record of a phone just unpacked."""
    return PhoneRecord(
        name=name,
        identity=KeyPair().private,
        signed_prekey=KeyPair().private,
        registration_id=int.from_bytes(random_bytes(2), "big") % 16380 + 1,
        raw_id=int.from_bytes(random_bytes(4), "big") >> 1,
    )
