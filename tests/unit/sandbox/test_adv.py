"""The phone's word for a companion, and the secret agreed on by a typed code."""

import hashlib
import hmac
import os

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tomada.sandbox import protos
from tomada.sandbox.adv import CODE_ROUNDS, LinkCodeExchange, sign_companion
from tomada.sandbox.curve import KeyPair, hkdf, verify
from tomada.sandbox.network_ports import LinkCodeBundle, PairingError


def test_a_companion_can_check_the_phones_word() -> None:
    """The HMAC is under the secret, the signature over 06 00, details and the companion's identity."""
    phone, companion, secret = KeyPair(), KeyPair(), os.urandom(32)
    blob = sign_companion(phone, companion.public, secret, raw_id=5, key_index=3, timestamp_s=1_700_000_000)
    sealed = protos.adv.ADVSignedDeviceIdentityHMAC.FromString(blob)
    assert hmac.digest(secret, sealed.details, "sha256") == sealed.HMAC
    signed = protos.adv.ADVSignedDeviceIdentity.FromString(sealed.details)
    assert signed.accountSignatureKey == phone.public
    assert verify(phone.public, b"\x06\x00" + signed.details + companion.public, signed.accountSignature)
    details = protos.adv.ADVDeviceIdentity.FromString(signed.details)
    assert (details.rawID, details.keyIndex, details.timestamp) == (5, 3, 1_700_000_000)


class Companion:
    """The companion's half of a pairing by code, written from the protocol's description."""

    def __init__(self, code: str) -> None:
        self.code, self.identity, self.ephemeral = code, KeyPair(), KeyPair()
        salt, vector = os.urandom(32), os.urandom(16)
        self.wrapped = salt + vector + self._ctr(salt, vector, self.ephemeral.public)

    def answer(self, wrapped_primary: bytes, phone_identity: bytes) -> tuple[LinkCodeBundle, bytes]:
        """The bundle for the phone, and the secret as the companion computes it."""
        theirs = self._ctr(wrapped_primary[:32], wrapped_primary[32:48], wrapped_primary[48:])
        shared, random, salt, nonce = self.ephemeral.agree(theirs), os.urandom(32), os.urandom(32), os.urandom(12)
        key = hkdf(shared, 32, salt=salt, info=b"link_code_pairing_key_bundle_encryption_key")
        content = self.identity.public + phone_identity + random
        bundle = LinkCodeBundle(salt + nonce + AESGCM(key).encrypt(nonce, content, None), self.identity.public)
        secret = shared + self.identity.agree(phone_identity) + random
        return bundle, hkdf(secret, 32, info=b"adv_secret")

    def _ctr(self, salt: bytes, vector: bytes, data: bytes) -> bytes:
        key = hashlib.pbkdf2_hmac("sha256", self.code.encode(), salt, CODE_ROUNDS, 32)
        cipher = Cipher(algorithms.AES(key), modes.CTR(vector)).encryptor()
        return cipher.update(data) + cipher.finalize()


def test_the_right_code_gives_both_sides_one_secret() -> None:
    """Phone and companion arrive at the same bytes."""
    phone, companion = KeyPair(), Companion("ABCD1234")
    exchange = LinkCodeExchange("ABCD1234", companion.wrapped)
    bundle, secret = companion.answer(exchange.wrapped_ephemeral, phone.public)
    assert exchange.adv_secret(phone, bundle) == secret


def test_another_code_is_refused() -> None:
    """The bundle does not open."""
    phone, companion = KeyPair(), Companion("ABCD1234")
    exchange = LinkCodeExchange("ABCD1235", companion.wrapped)
    bundle, _ = companion.answer(exchange.wrapped_ephemeral, phone.public)
    with pytest.raises(PairingError, match="wrong pairing code"):
        exchange.adv_secret(phone, bundle)


def test_an_answer_for_another_phone_is_refused() -> None:
    """The bundle names both identities."""
    phone, companion = KeyPair(), Companion("ABCD1234")
    exchange = LinkCodeExchange("ABCD1234", companion.wrapped)
    bundle, _ = companion.answer(exchange.wrapped_ephemeral, KeyPair().public)
    with pytest.raises(PairingError, match="other keys"):
        exchange.adv_secret(phone, bundle)


def test_a_malformed_half_is_refused() -> None:
    """Anything but 80 bytes is no wrapped key."""
    with pytest.raises(PairingError, match="malformed"):
        LinkCodeExchange("ABCD1234", bytes(79))
