"""Curve25519, XEdDSA and HKDF against published vectors and against an independent library."""

from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tomada.sandbox.curve import KeyPair, hkdf, verify


def test_two_parties_agree_on_one_secret() -> None:
    """Each side gets the same 32 bytes from its own private and the other's public key."""
    alice, bob = KeyPair(), KeyPair()
    assert alice.agree(bob.public) == bob.agree(alice.public) != bytes(32)


def test_a_key_pair_comes_back_from_its_private_half() -> None:
    """A pair stored as 32 private bytes has the same public key when loaded."""
    pair = KeyPair()
    assert KeyPair(pair.private).public == pair.public


def test_a_key_of_low_order_is_refused() -> None:
    """The all-zero public key would give everyone the same secret."""
    with pytest.raises(ValueError, match=r".*"):
        KeyPair().agree(bytes(32))


def test_signatures_verify_for_both_signs_of_the_edwards_key() -> None:
    """Over many keys both sign bits occur and every signature verifies."""
    signs = set()
    for number in range(40):
        pair = KeyPair()
        signature = pair.sign(b"message %d" % number)
        assert verify(pair.public, b"message %d" % number, signature)
        signs.add(signature[63] >> 7)
    assert signs == {0, 1}


def test_any_changed_bit_makes_a_signature_false() -> None:
    """A changed message, key or signature byte is noticed; so is a wrong length."""
    pair = KeyPair()
    signature = pair.sign(b"message")
    for place in range(0, 64, 7):
        changed = bytearray(signature)
        changed[place] ^= 1
        assert not verify(pair.public, b"message", bytes(changed))
    assert not verify(pair.public, b"massage", signature)
    assert not verify(KeyPair().public, b"message", signature)
    assert not verify(pair.public, b"message", signature[:63])


def test_the_same_message_never_gets_the_same_signature_twice() -> None:
    """The nonce is random: a repeated one would give the private key away."""
    pair = KeyPair()
    signatures = [pair.sign(b"m") for _ in range(5)]
    assert all(one[:32] != other[:32] for one, other in pairwise(signatures))


def test_the_edwards_half_is_a_key_an_independent_library_accepts() -> None:
    """Moved to the Edwards curve, the signature is plain Ed25519 for `cryptography`."""
    pair = KeyPair(bytes(range(32)))
    signature = pair.sign(b"message")
    field = 2**255 - 19
    u = int.from_bytes(pair.public, "little")
    y = (u - 1) * pow(u + 1, -1, field) % field
    key = (y | (signature[63] >> 7) << 255).to_bytes(32, "little")
    Ed25519PublicKey.from_public_bytes(key).verify(signature[:63] + bytes([signature[63] & 0x7F]), b"message")


def test_hkdf_matches_rfc_5869() -> None:
    """Test case 1 of RFC 5869, and case 3 (empty salt and info)."""
    secret = b"\x0b" * 22
    salt, info = bytes(range(13)), bytes(range(0xF0, 0xFA))
    assert hkdf(secret, 42, salt=salt, info=info).hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )
    assert hkdf(secret, 42).hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )
