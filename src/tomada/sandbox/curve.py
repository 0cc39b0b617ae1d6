"""Curve25519 as WhatsApp and Signal use it: key agreement, XEdDSA signatures and HKDF.

Why our own signing: WhatsApp signs with *Diffie-Hellman* keys (XEdDSA), and no library of the set-up can:
`cryptography` offers X25519 and Ed25519, but an Ed25519 key there starts from a seed, never from a given
scalar. So everything that can be done by `cryptography` is (agreement, and verification after moving the key
from the Montgomery to the Edwards curve); only the one multiplication of the base point that signing needs is
plain Python. A table of multiples of the base point (64 windows of 4 bits, built at the first signature in a
few milliseconds) brings a signature to about 0.4 ms.

Not constant in time, on purpose: these are keys of simulated phones. Nothing outside the sandbox may use it.

Facts: signatures are 64 bytes R || s, and the sign bit of the Edwards public key travels in bit 7 of the last
byte (the variant of libsignal's first versions, which WhatsApp kept); the nonce hash is prefixed with 0xfe
and 31 times 0xff.
"""

import hashlib
import hmac
import os
from functools import cache
from typing import TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D2 = 2 * (-121665 * pow(121666, -1, _P)) % _P
_BASE_X = 15112221349535400772501151409588531511454012693041857206046113283949847762202
_BASE_Y = 4 * pow(5, -1, _P) % _P
_NONCE_PREFIX = b"\xfe" + b"\xff" * 31

KEY_BYTES = 32
SIGNATURE_BYTES = 64

# A point in extended coordinates: x = X/Z, y = Y/Z, T = XY/Z.
_Point: TypeAlias = tuple[int, int, int, int]


class KeyPair:
    """One Curve25519 key pair; `private` and `public` are the raw 32 bytes."""

    __slots__ = ("_key", "_signing", "private", "public")

    def __init__(self, private: bytes | None = None) -> None:
        """Take a raw private key, or make a fresh one from the system's randomness."""
        self._key = X25519PrivateKey.from_private_bytes(private) if private else X25519PrivateKey.generate()
        self.private: bytes = private or self._key.private_bytes_raw()
        self.public: bytes = self._key.public_key().public_bytes_raw()
        self._signing: tuple[int, bytes] | None = None

    def agree(self, public: bytes) -> bytes:
        """The 32-byte X25519 secret shared with the owner of `public`; ValueError for a key of low order."""
        return self._key.exchange(X25519PublicKey.from_public_bytes(public))

    def sign(self, message: bytes) -> bytes:
        """XEdDSA signature over `message`, 64 bytes."""
        scalar, edwards = self._signing_key()
        nonce_hash = hashlib.sha512(_NONCE_PREFIX + self.private + message + os.urandom(64)).digest()
        nonce = int.from_bytes(nonce_hash, "little") % _ORDER
        commitment = _compress(_times_base(nonce))
        challenge = int.from_bytes(hashlib.sha512(commitment + edwards + message).digest(), "little") % _ORDER
        answer = bytearray(((nonce + challenge * scalar) % _ORDER).to_bytes(32, "little"))
        answer[31] |= edwards[31] & 0x80
        return commitment + bytes(answer)

    def _signing_key(self) -> tuple[int, bytes]:
        if self._signing is None:
            clamped = bytearray(self.private)
            clamped[0] &= 248
            clamped[31] = clamped[31] & 127 | 64
            scalar = int.from_bytes(clamped, "little") % _ORDER
            self._signing = scalar, _compress(_times_base(scalar))
        return self._signing


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is the XEdDSA signature of `public`'s owner over `message`; False if malformed."""
    if len(public) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    u = int.from_bytes(public, "little") & (2**255 - 1)
    if (u + 1) % _P == 0:
        return False
    y = (u - 1) * pow(u + 1, -1, _P) % _P
    edwards = (y | (signature[63] >> 7) << 255).to_bytes(32, "little")
    plain = signature[:63] + bytes([signature[63] & 0x7F])
    try:
        Ed25519PublicKey.from_public_bytes(edwards).verify(plain, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def hkdf(secret: bytes, length: int, *, salt: bytes = b"", info: bytes = b"") -> bytes:
    """HKDF-SHA256 (RFC 5869): `length` bytes from `secret`; an empty salt means 32 zero bytes."""
    key = hmac.digest(salt or bytes(32), secret, "sha256")
    out = block = b""
    counter = 1
    while len(out) < length:
        block = hmac.digest(key, block + info + bytes([counter]), "sha256")
        out += block
        counter += 1
    return out[:length]


def _add(a: _Point, b: _Point) -> _Point:
    p = (a[1] - a[0]) * (b[1] - b[0]) % _P
    q = (a[1] + a[0]) * (b[1] + b[0]) % _P
    r = a[3] * b[3] * _D2 % _P
    s = 2 * a[2] * b[2] % _P
    e, f, g, h = q - p, s - r, s + r, q + p
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


@cache
def _base_table() -> list[list[_Point]]:
    """Row i holds 0..15 times 16**i times the base point."""
    rows = []
    step: _Point = (_BASE_X, _BASE_Y, 1, _BASE_X * _BASE_Y % _P)
    for _ in range(64):
        row: list[_Point] = [(0, 1, 1, 0)]
        for _ in range(15):
            row.append(_add(row[-1], step))
        rows.append(row)
        step = _add(row[-1], step)
    return rows


def _times_base(scalar: int) -> _Point:
    result: _Point = (0, 1, 1, 0)
    for row in _base_table():
        if digit := scalar & 15:
            result = _add(result, row[digit])
        scalar >>= 4
    return result


def _compress(point: _Point) -> bytes:
    inverse = pow(point[2], -1, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")
