"""A simulated person links a device: by pointing the phone at a QR code, or by typing a pairing code.

Both end in the same: the phone signs the companion's identity and the network hands it over. `PairingError` says why
not, in words for a tester.
"""

import asyncio
import base64
import binascii

import msgspec

from tomada.sandbox.adv import LinkCodeExchange, sign_companion
from tomada.sandbox.network_ports import Device, PairingError, PendingPairing
from tomada.sandbox.phone import Phone

_CODE_CHARACTERS = 8


async def scan(phone: Phone, qr: str) -> Device:
    """Link the device that shows this QR text (with or without the address before the `#`)."""
    parts = qr.strip().rpartition("#")[2].split(",")
    if len(parts) < 4:
        raise PairingError("this is not the text of a linking QR code")
    ref, noise_key, identity, secret = parts[0], *map(_decoded, parts[1:4])
    pairing = phone.network.pending_pairing(ref)
    if noise_key != pairing.noise_key or identity != pairing.identity:
        raise PairingError("the QR code carries other keys than the device that showed it")
    return await _finish(phone, pairing, secret)


async def enter_code(phone: Phone, code: str) -> Device:
    """Link the device that shows this pairing code (`ABCD-1234`; dash, spaces and case do not matter)."""
    plain = code.replace("-", "").replace(" ", "").upper()
    if len(plain) != _CODE_CHARACTERS:
        raise PairingError("a pairing code has eight characters")
    pending = phone.network.pending_link_code(phone.number)
    exchange = await asyncio.to_thread(LinkCodeExchange, plain, pending.wrapped_companion_ephemeral)
    bundle = await pending.exchange(exchange.wrapped_ephemeral, phone.identity)
    return await _finish(phone, pending.pairing, exchange.adv_secret(phone.keys, bundle))


async def _finish(phone: Phone, pairing: PendingPairing, secret: bytes) -> Device:
    record = msgspec.structs.replace(phone.record, key_index=phone.record.key_index + 1)
    phone.update(record)
    signed = sign_companion(
        phone.keys,
        pairing.identity,
        secret,
        raw_id=record.raw_id,
        key_index=record.key_index,
        timestamp_s=phone.clock.now_ms() // 1000,
    )
    return await pairing.finish(phone.number, signed, record.key_index)


def _decoded(text: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise PairingError("the QR code is damaged") from error
    if len(key) != 32:
        raise PairingError("the QR code is damaged")
    return key
