"""Failed log-ins, bounded per peer: whoever tries tokens is told 429 before anything is looked up.

Each address has a bucket of failures that fills by the minute. When it is empty, only credentials that were found good
lately are looked at any more: behind a reverse proxy all clients are one address, and one that goes wrong must not lock
the others out. Checking costs one hash and two look-ups in memory, whatever was sent and however often; what is kept is
bounded. IPv6 addresses count by their /64, which is what one customer has.
"""

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager

from tomada.accounts.limits import Buckets
from tomada.errors import ClientTokenWrong, NotFound, SubscriptionNeeded, TooManyRequests, Unauthorized
from tomada.kit.clock import Clock
from tomada.kit.sealing import token_hash

GOOD_MAX = 10_000
_WORDS = "Too many failed log-ins from your address; please wait"


class FailedLogins:
    """The bound. `per_minute` 0: none."""

    def __init__(self, clock: Clock, per_minute: int) -> None:
        self._buckets = Buckets(clock)
        self._per_minute = per_minute
        self._good: dict[bytes, None] = {}  # hashes of credentials, the one that was used longest ago first

    @contextmanager
    def guarding(self, peer: str, *credential: str | None) -> Iterator[None]:
        """Around a check of a credential; counts it if it fails. Raises TooManyRequests."""
        if not self._per_minute:
            yield
            return
        key, used = _network(peer), token_hash("\0".join(part or "" for part in credential))
        wait_s = self._buckets.wait_s(key, self._per_minute)
        if wait_s and used not in self._good:
            raise TooManyRequests(_WORDS, wait_s)
        try:
            yield
        except (Unauthorized, NotFound, ClientTokenWrong):
            self._good.pop(used, None)
            self._buckets.take(key, self._per_minute)
            raise
        except SubscriptionNeeded:  # the credential was good
            self._remember(used)
            raise
        self._remember(used)

    def _remember(self, used: bytes) -> None:
        self._good.pop(used, None)
        self._good[used] = None
        if len(self._good) > GOOD_MAX:
            del self._good[next(iter(self._good))]


def _network(peer: str) -> str:
    if ":" not in peer:
        return peer
    try:
        return str(ipaddress.ip_network((peer.partition("%")[0], 64), strict=False))
    except ValueError:
        return peer
