"""The server's side of the transport handshake, Noise_XX_25519_AESGCM_SHA256, and the frames after it.

Written for one peer only: a client that always starts with its ephemeral key (pattern XX). Every value that travels
is mixed into a running hash, which authenticates the next encrypted one; so a client that pins another root key, or
a man in the middle, ends in `cryptography`'s `InvalidTag` and never in a session.
"""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tomada.sandbox.curve import KeyPair, hkdf

_PROTOCOL = b"Noise_XX_25519_AESGCM_SHA256\0\0\0\0"


class NoiseState:
    """Running hash, chaining key and current cipher of one handshake; `prologue` is the client's 4-byte header."""

    def __init__(self, prologue: bytes) -> None:
        self._hash = self._salt = _PROTOCOL
        self._cipher = AESGCM(_PROTOCOL)
        self._counter = 0
        self.authenticate(prologue)

    def authenticate(self, data: bytes) -> None:
        """Mix public data into the running hash."""
        self._hash = hashlib.sha256(self._hash + data).digest()

    def mix(self, secret: bytes) -> None:
        """Mix a shared secret into the chaining key; the cipher starts anew."""
        out = hkdf(secret, 64, salt=self._salt)
        self._salt, self._cipher, self._counter = out[:32], AESGCM(out[32:]), 0

    def encrypt(self, data: bytes) -> bytes:
        """Encrypt under the current key and authenticate the result."""
        sealed = self._cipher.encrypt(self._nonce(), data, self._hash)
        self.authenticate(sealed)
        return sealed

    def decrypt(self, sealed: bytes) -> bytes:
        """Open what the peer encrypted; `InvalidTag` if it is not from the same conversation."""
        data = self._cipher.decrypt(self._nonce(), sealed, self._hash)
        self.authenticate(sealed)
        return data

    def split(self) -> FrameCipher:
        """End the handshake: the ciphers of the two directions, as the server uses them."""
        out = hkdf(b"", 64, salt=self._salt)
        return FrameCipher(read_key=out[:32], write_key=out[32:])

    def _nonce(self) -> bytes:
        nonce = self._counter.to_bytes(12, "big")
        self._counter += 1
        return nonce


class FrameCipher:
    """Seals and opens the frames of one session; each direction counts its frames."""

    def __init__(self, read_key: bytes, write_key: bytes) -> None:
        self._read, self._write = AESGCM(read_key), AESGCM(write_key)
        self._read_count = self._write_count = 0

    def seal(self, data: bytes) -> bytes:
        """Encrypt the next outgoing frame."""
        sealed = self._write.encrypt(self._write_count.to_bytes(12, "big"), data, None)
        self._write_count += 1
        return sealed

    def open(self, sealed: bytes) -> bytes:
        """Decrypt the next incoming frame; `InvalidTag` if it was altered, repeated or lost its place."""
        data = self._read.decrypt(self._read_count.to_bytes(12, "big"), sealed, None)
        self._read_count += 1
        return data


class ServerHandshake:
    """The two steps of the server: answer the hello, then read who the client is."""

    def __init__(self, prologue: bytes, static: KeyPair, certificate_chain: bytes) -> None:
        self._state = NoiseState(prologue)
        self._static, self._chain = static, certificate_chain
        self._ephemeral = KeyPair()

    def answer(self, client_ephemeral: bytes) -> tuple[bytes, bytes, bytes]:
        """From the client's ephemeral key: our ephemeral key, sealed static key and sealed certificate chain."""
        state = self._state
        state.authenticate(client_ephemeral)
        state.authenticate(self._ephemeral.public)
        state.mix(self._ephemeral.agree(client_ephemeral))
        sealed_static = state.encrypt(self._static.public)
        state.mix(self._static.agree(client_ephemeral))
        return self._ephemeral.public, sealed_static, state.encrypt(self._chain)

    def finish(self, sealed_static: bytes, sealed_payload: bytes) -> tuple[bytes, bytes, FrameCipher]:
        """From the client's last step: its static key (who it is), its payload, and the session's ciphers."""
        client_static = self._state.decrypt(sealed_static)
        self._state.mix(self._ephemeral.agree(client_static))
        payload = self._state.decrypt(sealed_payload)
        return client_static, payload, self._state.split()
