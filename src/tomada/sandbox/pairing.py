"""Linking a new companion to an account, by QR code or by a code typed on the phone.

The network's part is small: it hands out references, holds the two ends together and checks what the companion
signs; the signing and the key exchange are the phone's. A QR text carries a reference and the companion's public
keys; six references are handed out, of which the client shows the first for 60 seconds and the others for 20. A typed
code works on the same unregistered connection: the companion sends its wrapped ephemeral key for a number, the phone
answers through us, and then the link is finished exactly like by QR.

A device exists from the moment its signature is checked; it is stored before the companion is told to reconnect.
"""

from __future__ import annotations

import asyncio
import base64

from tomada.sandbox.connection import Connection, Hello
from tomada.sandbox.curve import verify
from tomada.sandbox.network_devices import announce_devices
from tomada.sandbox.network_ports import Device, LinkCodeBundle, PairingError, SignedPrekey
from tomada.sandbox.network_state import World, answer_to, log
from tomada.sandbox.node import SERVER, Attrs, Jid, Node, element
from tomada.sandbox.protos import adv, companion

WINDOW_S = 160.0
_FIRST_REF_S, _NEXT_REF_S = 60.0, 20.0
_REFS = 6
_GRACE_S = 5.0
_KEY_EXCHANGE_TIMEOUT_S = 20.0
_DEVICES_MAX = 250


class Pairings:
    """All connections that wait to be linked, by QR reference and by number."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._refs: dict[str, tuple[Pairing, float]] = {}
        self._codes: dict[str, LinkCode] = {}

    def by_ref(self, ref: str) -> Pairing:
        """The connection that shows this reference; `PairingError` if it is unknown or no longer shown."""
        found = self._refs.get(ref)
        if found is None:
            raise PairingError("this QR code is unknown: the client that showed it is gone")
        pairing, ends_s = found
        if self.world.clock.monotonic_s() > ends_s:
            raise PairingError("this QR code has expired")
        return pairing

    def by_number(self, number: str) -> LinkCode:
        """The latest connection that shows a code for this number; `PairingError` if there is none."""
        found = self._codes.get(number)
        if found is None:
            raise PairingError("no client waits for a code with this number")
        return found

    def open(self, connection: Connection, hello: Hello) -> Pairing:
        """Register a connection and make its references."""
        pairing = Pairing(self.world, connection, hello)
        now = self.world.clock.monotonic_s()
        for index, ref in enumerate(pairing.refs):
            ends_s = now + _FIRST_REF_S + index * _NEXT_REF_S + _GRACE_S
            self._refs[ref] = (pairing, ends_s)
        return pairing

    def close(self, pairing: Pairing) -> None:
        """Forget a connection."""
        for ref in pairing.refs:
            self._refs.pop(ref, None)
        for number in [number for number, code in self._codes.items() if code.pairing is pairing]:
            del self._codes[number]

    def handle(self, pairing: Pairing, iq: Node) -> Node:
        """Answer a link-code request of an unregistered connection."""
        request = iq.child("link_code_companion_reg")
        jid = request.jid("jid") if request else None
        if request is None or jid is None:
            return answer_to(iq)
        if request.text("stage") == "companion_hello":
            code = LinkCode(self.world, pairing, jid, request)
            self._codes[jid.user] = code
            ref = element("link_code_pairing_ref", {}, code.ref)
            return answer_to(iq, [element("link_code_companion_reg", {"stage": "companion_hello"}, [ref])])
        code_or_none = self._codes.get(jid.user)
        if request.text("stage") == "companion_finish" and code_or_none:
            code_or_none.companion_finished(request)
        return answer_to(iq)


class Pairing:
    """One unregistered connection; see `PendingPairing`."""

    def __init__(self, world: World, connection: Connection, hello: Hello) -> None:
        data = hello.payload.devicePairingData
        props = companion.DeviceProps.FromString(data.deviceProps)
        self.identity: bytes = data.eIdent
        self.noise_key = hello.static
        self.registration_id = int.from_bytes(data.eRegid, "big")
        self.device_name: str = props.os
        self.platform = int(props.platformType)
        self.refs = [base64.b64encode(world.random.randbytes(24)).decode() for _ in range(_REFS)]
        self.connection = connection
        self._world = world
        self._finishing = False
        self._signed_prekey = SignedPrekey(
            int.from_bytes(data.eSkeyID, "big"), bytes(data.eSkeyVal), bytes(data.eSkeySig)
        )
        if not verify(self.identity, b"\x05" + self._signed_prekey.key, self._signed_prekey.signature):
            raise PairingError("the signed prekey has a wrong signature")

    def offer(self) -> Node:
        """The request that makes the client show QR codes."""
        refs = [element("ref", {}, ref.encode()) for ref in self.refs]
        return element("iq", {"from": SERVER, "type": "set", "xmlns": "md"}, [element("pair-device", {}, refs)])

    async def finish(self, number: str, signed_identity_hmac: bytes, key_index: int) -> Device:
        """Link the device; see `PendingPairing.finish`."""
        account = self._world.accounts.get(number)
        if account is None:
            raise PairingError("this phone is not on the network")
        if self._finishing:
            raise PairingError("this code was used already")
        if account.next_device > _DEVICES_MAX:
            raise PairingError("this phone has linked too many devices")
        self._finishing = True
        device = self._new_device(number, account.lid_user, account.next_device, key_index)
        account.next_device += 1
        try:
            reply = await self.connection.request(self._success(device, signed_identity_hmac))
        except ConnectionError as error:
            raise PairingError(str(error)) from error
        self._check(reply, key_index, account.devices[0].identity)
        with self._world.work():
            account.devices[device.id] = device
            self._world.save(account)
            announce_devices(self._world, account, device)
            self._world.after_commit(lambda: self.connection.close(element("stream:error", {"code": "515"})))
        log.info("phone %s linked device %d, name %r", number, device.id, device.name)
        return device

    def _new_device(self, number: str, lid_user: str, device_id: int, key_index: int) -> Device:
        return Device(
            number=number,
            lid_user=lid_user,
            id=device_id,
            identity=bytes(self.identity),
            registration_id=self.registration_id,
            signed_prekey=self._signed_prekey,
            noise_key=self.noise_key,
            name=self.device_name,
            platform=self.platform,
            key_index=key_index,
        )

    def _success(self, device: Device, signed_identity_hmac: bytes) -> Node:
        body = [
            element("device-identity", {}, signed_identity_hmac),
            element("biz", {"name": ""}),
            element("device", {"jid": device.pn, "lid": device.lid}),
            element("platform", {"name": "android"}),
        ]
        head: Attrs = {"from": SERVER, "type": "set", "xmlns": "md", "t": self._world.now_s()}
        return element("iq", head, [element("pair-success", {}, body)])

    def _check(self, reply: Node, key_index: int, phone_identity: bytes) -> None:
        if reply.text("type") == "error":
            problem = reply.child("error")
            raise PairingError(f"the client refused: {problem.text('text') if problem else 'no reason given'}")
        signed = reply.child("pair-device-sign", "device-identity")
        if signed is None or signed.text("key-index") != str(key_index):
            raise PairingError("the client signed for another link")
        identity = adv.ADVSignedDeviceIdentity.FromString(signed.data)
        message = b"\x06\x01" + identity.details + self.identity + phone_identity
        if not verify(self.identity, message, identity.deviceSignature):
            raise PairingError("the client's signature is wrong")


class LinkCode:
    """One connection that shows a code; see `PendingLinkCode`."""

    def __init__(self, world: World, pairing: Pairing, jid: Jid, request: Node) -> None:
        wrapped = request.child("link_code_pairing_wrapped_companion_ephemeral_pub")
        display = request.child("companion_platform_display")
        self.number = jid.user
        self.pairing = pairing
        self.wrapped_companion_ephemeral = wrapped.data if wrapped else b""
        self.platform_display = display.data.decode(errors="replace") if display else ""
        self.ref = base64.b64encode(world.random.randbytes(16))
        self._world = world
        self._finished: asyncio.Future[LinkCodeBundle] | None = None

    async def exchange(self, wrapped_primary_ephemeral: bytes, primary_identity: bytes) -> LinkCodeBundle:
        """Send the phone's half and wait for the companion's; see `PendingLinkCode.exchange`."""
        self._finished = asyncio.get_running_loop().create_future()
        body = [
            element("link_code_pairing_ref", {}, self.ref),
            element("link_code_pairing_wrapped_primary_ephemeral_pub", {}, wrapped_primary_ephemeral),
            element("primary_identity_pub", {}, primary_identity),
        ]
        head: Attrs = {
            "from": SERVER,
            "type": "link_code_companion_reg",
            "id": self._world.fresh_id(),
            "t": self._world.now_s(),
        }
        request = element("link_code_companion_reg", {"stage": "primary_hello"}, body)
        self.pairing.connection.push(element("notification", head, [request]))
        try:
            async with asyncio.timeout(_KEY_EXCHANGE_TIMEOUT_S):
                return await self._finished
        except TimeoutError as error:
            raise PairingError("the client did not answer: the code is wrong, or it is gone") from error

    def companion_finished(self, request: Node) -> None:
        """Take the companion's half."""
        bundle = request.child("link_code_pairing_wrapped_key_bundle")
        identity = request.child("companion_identity_public")
        if bundle and identity and self._finished and not self._finished.done():
            self._finished.set_result(LinkCodeBundle(bundle.data, identity.data))
