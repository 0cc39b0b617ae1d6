"""How media are encrypted before they go to the media server, and read back.

A medium has a random key of its own that travels inside the message; the server sees ciphertext only. Facts: 112 bytes
of HKDF under an info text per kind give the vector (16), cipher key (32) and MAC key (32); the upload is the AES-CBC
ciphertext and the first 10 bytes of HMAC-SHA256 over vector and ciphertext. Stickers count as images.
"""

import hashlib
import hmac
import os

import msgspec

from tomada.sandbox.curve import hkdf
from tomada.sandbox.signal_ciphers import cbc_decrypt, cbc_encrypt

MAC_BYTES = 10
_INFO = {
    "image": b"WhatsApp Image Keys",
    "sticker": b"WhatsApp Image Keys",
    "video": b"WhatsApp Video Keys",
    "audio": b"WhatsApp Audio Keys",
    "document": b"WhatsApp Document Keys",
}
UPLOAD_KINDS = {kind: "image" if kind == "sticker" else kind for kind in _INFO}


class EncryptedMedia(msgspec.Struct, frozen=True):
    """A medium ready for upload, and what its message must say of it. The hashes are SHA-256, raw."""

    upload: bytes
    key: bytes
    plain_hash: bytes
    upload_hash: bytes
    plain_bytes: int


class BrokenMedia(ValueError):
    """These bytes are not what the message announced"""


def encrypt_media(kind: str, content: bytes) -> EncryptedMedia:
    """Encrypt under a fresh key; `kind` is one of `UPLOAD_KINDS`."""
    key = os.urandom(32)
    vector, cipher_key, mac_key = _keys(kind, key)
    ciphertext = cbc_encrypt(cipher_key, vector, content)
    upload = ciphertext + _mac(mac_key, vector, ciphertext)
    return EncryptedMedia(upload, key, hashlib.sha256(content).digest(), hashlib.sha256(upload).digest(), len(content))


def decrypt_media(kind: str, key: bytes, upload: bytes, plain_hash: bytes) -> bytes:
    """Decrypt what was downloaded; `BrokenMedia` if the MAC or the hash of the content is wrong."""
    vector, cipher_key, mac_key = _keys(kind, key)
    ciphertext, mac = upload[:-MAC_BYTES], upload[-MAC_BYTES:]
    if not hmac.compare_digest(_mac(mac_key, vector, ciphertext), mac):
        raise BrokenMedia("the authentication code is wrong")
    content = cbc_decrypt(cipher_key, vector, ciphertext)
    if hashlib.sha256(content).digest() != plain_hash:
        raise BrokenMedia("the content has another hash than the message says")
    return content


def _keys(kind: str, key: bytes) -> tuple[bytes, bytes, bytes]:
    made = hkdf(key, 112, info=_INFO[kind])
    return made[:16], made[16:48], made[48:80]


def _mac(key: bytes, vector: bytes, ciphertext: bytes) -> bytes:
    return hmac.digest(key, vector + ciphertext, "sha256")[:MAC_BYTES]
