"""Sender keys: how one ciphertext serves a whole group.

Each sender makes one key per group and gives it to every device of the group inside a one-to-one message
(`SenderKeyDistribution`); then each group message is encrypted once with the next key of a chain and signed. Values
are frozen: `encrypt` and `decrypt` return the next one.

Guarantees: a message decrypts once and may come out of order, within the bounds of `signal_chain`. A sender may start
anew with another key id; the last `GENERATIONS_MAX` ids stay readable.

Facts of the wire: a message key is 48 bytes of "WhisperGroup" (initialisation vector, cipher key); the signature is
XEdDSA by the sender key's own signing key.
"""

import os

import msgspec

from tomada.sandbox.curve import KeyPair, hkdf, verify
from tomada.sandbox.signal_chain import CannotDecrypt, KeyChain, step, take
from tomada.sandbox.signal_ciphers import cbc_decrypt, cbc_encrypt
from tomada.sandbox.signal_wire import SIGNATURE_BYTES, SenderKeyDistribution, SenderKeyMessage

GENERATIONS_MAX = 5


class OwnSenderKey(msgspec.Struct, frozen=True, array_like=True):
    """Our key for one group; `given_to` are the addresses of the devices that have it."""

    key_id: int
    chain: KeyChain
    signing_private: bytes
    signing_public: bytes
    given_to: frozenset[str] = frozenset()


class RemoteSenderKey(msgspec.Struct, frozen=True, array_like=True):
    """Another device's key for one group."""

    key_id: int
    chain: KeyChain
    signing_public: bytes


def create() -> OwnSenderKey:
    """A fresh key that nobody has yet."""
    signing = KeyPair()
    key_id = int.from_bytes(os.urandom(4), "big") >> 1
    return OwnSenderKey(key_id, KeyChain(os.urandom(32)), signing.private, signing.public)


def distribution(key: OwnSenderKey) -> bytes:
    """The message that lets a device read from the next group message on."""
    return SenderKeyDistribution(key.key_id, key.chain.index, key.chain.key, key.signing_public).pack()


def encrypt(key: OwnSenderKey, signing: KeyPair, plaintext: bytes) -> tuple[OwnSenderKey, bytes]:
    """Encrypt for the group. `signing` is the pair of `signing_private`, kept by the caller because making it costs."""
    seed, chain = step(key.chain)
    iv, cipher_key = _message_keys(seed)
    body = SenderKeyMessage(key.key_id, key.chain.index, cbc_encrypt(cipher_key, iv, plaintext)).pack()
    return msgspec.structs.replace(key, chain=chain), body + signing.sign(body)


def accept(keys: tuple[RemoteSenderKey, ...], data: bytes) -> tuple[RemoteSenderKey, ...]:
    """The keys of a sender after its distribution message; a key we hold already is kept as it stands."""
    message = SenderKeyDistribution.unpack(data)
    for known in keys:
        if known.key_id == message.key_id and known.signing_public == message.signing_key:
            return keys
    new = RemoteSenderKey(message.key_id, KeyChain(message.chain_key, message.iteration), message.signing_key)
    return (new, *(known for known in keys if known.key_id != new.key_id))[:GENERATIONS_MAX]


def decrypt(keys: tuple[RemoteSenderKey, ...], data: bytes) -> tuple[tuple[RemoteSenderKey, ...], bytes]:
    """Decrypt a group message; `CannotDecrypt` if its key was never given to us or it was changed."""
    message = SenderKeyMessage.unpack(data)
    key = next((known for known in keys if known.key_id == message.key_id), None)
    if key is None:
        raise CannotDecrypt("no sender key for this message")
    if not verify(key.signing_public, data[:-SIGNATURE_BYTES], data[-SIGNATURE_BYTES:]):
        raise CannotDecrypt("the signature is wrong")
    seed, chain = take(key.chain, message.iteration)
    iv, cipher_key = _message_keys(seed)
    try:
        plaintext = cbc_decrypt(cipher_key, iv, message.ciphertext)
    except ValueError as error:
        raise CannotDecrypt("the ciphertext is broken") from error
    after = RemoteSenderKey(key.key_id, chain, key.signing_public)
    return tuple(after if known is key else known for known in keys), plaintext


def _message_keys(seed: bytes) -> tuple[bytes, bytes]:
    made = hkdf(seed, 48, info=b"WhisperGroup")
    return made[:16], made[16:]
