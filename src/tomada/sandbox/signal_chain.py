"""A chain of message seeds that only runs forward: what ratchet sessions and sender keys have in common.

Each place of the chain gives one seed, once. A message that comes early passes over the places before it, whose seeds
are kept for the messages still under way (at most `SKIPPED_MAX`; the oldest are forgotten). Values are frozen.
"""

import hmac

import msgspec

SKIPPED_MAX = 2000


class CannotDecrypt(Exception):
    """This message cannot be decrypted with the keys at hand"""


class DuplicateMessage(CannotDecrypt):
    """This message has been decrypted before"""


class KeyChain(msgspec.Struct, frozen=True, array_like=True):
    """Where the chain stands: the next place is `index`; `skipped` holds the seeds of places passed over."""

    key: bytes
    index: int = 0
    skipped: dict[int, bytes] = {}


def step(chain: KeyChain) -> tuple[bytes, KeyChain]:
    """The seed of the next place, and the chain behind it."""
    following = hmac.digest(chain.key, b"\x02", "sha256")
    return hmac.digest(chain.key, b"\x01", "sha256"), KeyChain(following, chain.index + 1, chain.skipped)


def take(chain: KeyChain, place: int) -> tuple[bytes, KeyChain]:
    """The seed of any place not used yet, and the chain without it; `DuplicateMessage` if it was used."""
    if place < chain.index:
        if place not in chain.skipped:
            raise DuplicateMessage(f"place {place} was used")
        rest = {other: seed for other, seed in chain.skipped.items() if other != place}
        return chain.skipped[place], KeyChain(chain.key, chain.index, rest)
    if place - chain.index > SKIPPED_MAX:
        raise CannotDecrypt("too many messages were passed over")
    if place == chain.index:
        return step(chain)
    skipped = dict(chain.skipped)
    while chain.index < place:
        skipped[chain.index], chain = step(chain)
    while len(skipped) > SKIPPED_MAX:
        del skipped[min(skipped)]
    seed, chain = step(chain)
    return seed, KeyChain(chain.key, chain.index, skipped)
