"""Failed log-ins, bounded per peer: whoever tries tokens is told 429 before anything is looked up.

Each address has a bucket of failures that fills by the minute. When it is empty, only credentials that were found good
lately are looked at any more: behind a reverse proxy all clients are one address, and one that goes wrong must not lock
the others out. Nor does a credential count again that failed before from the same address: repeating it guesses
nothing, and a backend that still polls instances that are gone must not spend what its new ones need. Checking costs
two or three hashes and a few look-ups in memory, whatever was sent and however often; what is kept is bounded. IPv6
addresses count by their /64, which is what one customer has.
"""

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager

from tomada.accounts.limits import Buckets
from tomada.errors import ClientTokenWrong, NotFound, SubscriptionNeeded, TooManyRequests, Unauthorized
from tomada.kit.clock import Clock
from tomada.kit.sealing import token_hash

REMEMBERED_MAX = 10_000  # credentials of each sort
_WORDS = "Too many failed log-ins from your address; please wait"


class FailedLogins:
    """The bound. `per_minute` 0: none."""

    def __init__(self, clock: Clock, per_minute: int) -> None:
        self._buckets = Buckets(clock)
        self._per_minute = per_minute
        self._good = _Recent()
        self._bad = _Recent()  # each with the address that it came from

    @contextmanager
    def guarding(self, peer: str, *credential: str, client_token: str | None = None) -> Iterator[None]:
        """Around a check of a credential; counts it if it fails. Raises TooManyRequests."""
        if not self._per_minute:
            yield
            return
        network, alone, used = _network(peer), _hash(*credential), _hash(*credential, client_token or "")
        wait_s = self._buckets.wait_s(network, self._per_minute)
        if wait_s and used not in self._good and alone not in self._good:
            raise TooManyRequests(_WORDS, wait_s)
        try:
            yield
        except (Unauthorized, NotFound, ClientTokenWrong):
            self._good.forget(used)
            self._good.forget(alone)
            self._count(network, used)
            raise
        except SubscriptionNeeded:  # the credential was good
            self._good.add(used)
            raise
        self._good.add(used)

    def made(self, *credential: str) -> None:
        """This credential was made just now, so it is good, whatever Client-Token comes with it first."""
        self._good.add(_hash(*credential))

    def _count(self, network: str, used: bytes) -> None:
        tried = _hash(network, used.hex())
        if tried not in self._bad:
            self._buckets.take(network, self._per_minute)
        self._bad.add(tried)


class _Recent:
    """Hashes, the one that was added longest ago first; beyond REMEMBERED_MAX that one is forgotten."""

    def __init__(self) -> None:
        self._hashes: dict[bytes, None] = {}

    def __contains__(self, hashed: bytes) -> bool:
        return hashed in self._hashes

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, hashed: bytes) -> None:
        self.forget(hashed)
        self._hashes[hashed] = None
        if len(self._hashes) > REMEMBERED_MAX:
            del self._hashes[next(iter(self._hashes))]

    def forget(self, hashed: bytes) -> None:
        self._hashes.pop(hashed, None)


def _hash(*parts: str) -> bytes:
    return token_hash("\0".join(parts))


def _network(peer: str) -> str:
    if ":" not in peer:
        return peer
    try:
        return str(ipaddress.ip_network((peer.partition("%")[0], 64), strict=False))
    except ValueError:
        return peer
