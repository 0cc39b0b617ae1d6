"""Secrets at rest: sealed with AES-256-GCM under a key that does not lie in the database; looked up by hash.

The wire must show instance tokens again (list, create), so hashes alone are not enough. Tokens are random and long, so
one SHA-256 is enough to look them up; a stolen database without the key file shows none of them. The key is a file of
32 bytes in the data directory (mode 0600), or comes from TOMADA_SECRET_KEY where no secret may lie on a disk.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12


def token_hash(token: str) -> bytes:
    """SHA-256 of a token, for look-up. Comparing happens in the database's index, on the hash of a random value."""
    return hashlib.sha256(token.encode()).digest()


class Sealer:
    """Seals and opens small secrets; `context` binds a sealed value to its place, so that it opens nowhere else."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"the sealing key must have {KEY_BYTES} bytes")
        self._key = key
        self._aead = AESGCM(key)

    def derived(self, purpose: str) -> str:
        """A secret of 64 hex digits that follows from the key, another one for each purpose."""
        return hmac.new(self._key, purpose.encode(), hashlib.sha256).hexdigest()

    def seal(self, secret: str, context: str) -> bytes:
        """Nonce and ciphertext."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, secret.encode(), context.encode())

    def open(self, sealed: bytes, context: str) -> str:
        """The secret; cryptography's InvalidTag if the key or the context is another."""
        return self._aead.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context.encode()).decode()


def load_key(path: Path) -> bytes:
    """The key in `path`, made there on first use.

    Written aside and linked into place: a crash leaves no half key, and of two programs starting at once one wins.
    """
    if not path.exists():
        draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
        draft.unlink()
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise ValueError(f"{path} does not hold {KEY_BYTES} bytes; restore it from your backup")
    return key
