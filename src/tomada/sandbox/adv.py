"""How a phone vouches for a device it links, and how a pairing code carries the secret for that.

A linked device is believed by everybody because the phone signed its identity key (`sign_companion`), and the device
believes the phone because the whole is authenticated with a secret (`adv secret`) that only travelled in the QR code,
or was agreed upon with the help of the typed pairing code (`LinkCodeExchange`).

Facts: the signature is XEdDSA over 06 00, the details and the companion's identity; wrapped keys are salt 32, vector
16, AES-256-CTR under PBKDF2-SHA256 of the code with 131,072 rounds; the companion's bundle is AES-GCM under HKDF of the
ephemeral secret with the info text below and holds companion identity, phone identity and 32 random bytes.
"""

import hashlib
import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tomada.sandbox import protos
from tomada.sandbox.curve import KeyPair, hkdf
from tomada.sandbox.network_ports import LinkCodeBundle, PairingError

CODE_ROUNDS = 131_072
_ACCOUNT_PREFIX = b"\x06\x00"
_SALT_BYTES = 32
_VECTOR_BYTES = 16
_NONCE_BYTES = 12
_BUNDLE_INFO = b"link_code_pairing_key_bundle_encryption_key"


def sign_companion(
    phone: KeyPair, companion_identity: bytes, adv_secret: bytes, *, raw_id: int, key_index: int, timestamp_s: int
) -> bytes:
    """The phone's word for a companion: an `ADVSignedDeviceIdentityHMAC`, ready to be handed to it."""
    details = protos.adv.ADVDeviceIdentity(rawID=raw_id, timestamp=timestamp_s, keyIndex=key_index).SerializeToString()
    signed = protos.adv.ADVSignedDeviceIdentity(
        details=details,
        accountSignatureKey=phone.public,
        accountSignature=phone.sign(_ACCOUNT_PREFIX + details + companion_identity),
    ).SerializeToString()
    sealed = protos.adv.ADVSignedDeviceIdentityHMAC(details=signed, HMAC=hmac.digest(adv_secret, signed, "sha256"))
    return bytes(sealed.SerializeToString())


class LinkCodeExchange:
    """The phone's side of pairing by code: one object per code that is entered."""

    def __init__(self, code: str, wrapped_companion_ephemeral: bytes) -> None:
        """Takes 60 ms or so (PBKDF2, twice): run it in a thread. `PairingError` if the bytes are no wrapped key."""
        if len(wrapped_companion_ephemeral) != _SALT_BYTES + _VECTOR_BYTES + 32:
            raise PairingError("the companion's half of the pairing code is malformed")
        salt, vector = os.urandom(_SALT_BYTES), os.urandom(_VECTOR_BYTES)
        self._ephemeral = KeyPair()
        their_salt, rest = wrapped_companion_ephemeral[:_SALT_BYTES], wrapped_companion_ephemeral[_SALT_BYTES:]
        self._theirs = _ctr(code, their_salt, rest[:_VECTOR_BYTES], rest[_VECTOR_BYTES:])
        self.wrapped_ephemeral = salt + vector + _ctr(code, salt, vector, self._ephemeral.public)

    def adv_secret(self, phone: KeyPair, bundle: LinkCodeBundle) -> bytes:
        """The agreed secret; `PairingError` if the code was not the one the companion shows."""
        wrapped = bundle.wrapped_key_bundle
        salt, rest = wrapped[:_SALT_BYTES], wrapped[_SALT_BYTES:]
        try:
            shared = self._ephemeral.agree(self._theirs)
            key = hkdf(shared, 32, salt=salt, info=_BUNDLE_INFO)
            content = AESGCM(key).decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], None)
        except (InvalidTag, ValueError) as error:
            raise PairingError("wrong pairing code") from error
        companion, known_phone, secret = content[:32], content[32:64], content[64:96]
        if companion != bundle.companion_identity or known_phone != phone.public:
            raise PairingError("the companion answered for other keys")
        return hkdf(shared + phone.agree(companion) + secret, 32, info=b"adv_secret")


def _ctr(code: str, salt: bytes, vector: bytes, data: bytes) -> bytes:
    key = hashlib.pbkdf2_hmac("sha256", code.encode(), salt, CODE_ROUNDS, 32)
    cipher = Cipher(algorithms.AES(key), modes.CTR(vector)).encryptor()
    return cipher.update(data) + cipher.finalize()
