"""Media: what is encrypted comes back, and damage is noticed."""

import pytest

from tomada.sandbox.media_crypto import MAC_BYTES, UPLOAD_KINDS, BrokenMedia, decrypt_media, encrypt_media


@pytest.mark.parametrize("kind", sorted(UPLOAD_KINDS))
@pytest.mark.parametrize("size", [0, 1, 15, 16, 100_000])
def test_every_kind_and_size_comes_back(kind: str, size: int) -> None:
    """Content of any length survives; the upload is the padded ciphertext and the MAC."""
    content = bytes(index % 256 for index in range(size))
    media = encrypt_media(kind, content)
    assert decrypt_media(kind, media.key, media.upload, media.plain_hash) == content
    assert len(media.upload) == (size // 16 + 1) * 16 + MAC_BYTES
    assert media.plain_bytes == size


def test_damage_a_wrong_kind_and_a_wrong_hash_are_noticed() -> None:
    """A changed byte, another kind's keys or another content's hash."""
    media = encrypt_media("image", b"picture")
    broken = bytes([media.upload[0] ^ 1]) + media.upload[1:]
    for kind, upload, plain_hash in [
        ("image", broken, media.plain_hash),
        ("video", media.upload, media.plain_hash),
        ("image", media.upload, bytes(32)),
        ("image", b"", media.plain_hash),
    ]:
        with pytest.raises(BrokenMedia):
            decrypt_media(kind, media.key, upload, plain_hash)


def test_stickers_count_as_images() -> None:
    """They share key text and upload folder."""
    media = encrypt_media("sticker", b"s")
    assert decrypt_media("image", media.key, media.upload, media.plain_hash) == b"s"
    assert UPLOAD_KINDS["sticker"] == "image"
