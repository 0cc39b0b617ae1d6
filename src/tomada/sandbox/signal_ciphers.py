"""AES-CBC with PKCS 7 padding, and WhatsApp's own padding of messages: shared by all of a phone's parts."""

import os

from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_BLOCK_BITS = 128


def cbc_encrypt(key: bytes, iv: bytes, plaintext: bytes) -> bytes:
    """AES-256-CBC; `key` 32 bytes, `iv` 16."""
    padder = padding.PKCS7(_BLOCK_BITS).padder()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return encryptor.update(padder.update(plaintext) + padder.finalize()) + encryptor.finalize()


def cbc_decrypt(key: bytes, iv: bytes, ciphertext: bytes) -> bytes:
    """The reverse; ValueError if the length or the padding is wrong."""
    decryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
    unpadder = padding.PKCS7(_BLOCK_BITS).unpadder()
    return unpadder.update(decryptor.update(ciphertext) + decryptor.finalize()) + unpadder.finalize()


def pad_message(content: bytes) -> bytes:
    """Append n bytes of value n, n random in 1..15, so that the length tells less."""
    count = os.urandom(1)[0] % 15 + 1
    return content + bytes([count]) * count


def unpad_message(content: bytes) -> bytes:
    """Undo `pad_message`; ValueError if the padding is not what it must be."""
    if not content or not 1 <= content[-1] <= len(content) or len(set(content[-content[-1] :])) != 1:
        raise ValueError("the padding of the message is wrong")
    return content[: -content[-1]]
