"""How many lanes one destination and one account may hold at a time, so that none can take the place of all others.

A destination (host:port) starts at `destination_max`. Every attempt that got no answer within `quick_s` halves its
limit, down to `destination_min`; every quick answer adds one. So a receiver that hangs soon holds two places, however
many instances point to it, and one that comes back is at full speed after some dozens of answers. An account never
holds more than `account_max` places.
"""

from collections import Counter

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """Bounds of one dispatcher; docs/callbacks.md explains the defaults."""

    lanes_max: int = 256  # held at a time
    destination_max: int = 64
    destination_min: int = 2
    account_max: int = 128  # half of lanes_max: a single account is not slowed, and cannot shut out the others
    destinations_known_max: int = 1000  # that are slow; each is named in every take
    quick_s: float = 5.0  # an answer that takes longer counts as none here


class Places:
    """Who holds how many places just now, and how many more each may have."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._destinations: Counter[str] = Counter()
        self._accounts: Counter[str] = Counter()
        self._lowered: dict[str, float] = {}  # destinations whose limit is below the maximum
        self.held = 0

    @property
    def free(self) -> int:
        """Places not held by anybody."""
        return self._limits.lanes_max - self.held

    def is_full(self, destination: str, account_id: str) -> bool:
        """Whether one of the two has no room, so that a lane of it may be due and was left out."""
        limit = int(self._lowered.get(destination, self._limits.destination_max))
        return self._destinations[destination] >= limit or self._accounts[account_id] >= self._limits.account_max

    def enter(self, destination: str, account_id: str) -> None:
        """A lane was taken."""
        self.held += 1
        self._destinations[destination] += 1
        self._accounts[account_id] += 1

    def leave(self, destination: str, account_id: str) -> None:
        """A lane was settled or lost."""
        self.held -= 1
        for counter, key in ((self._destinations, destination), (self._accounts, account_id)):
            counter[key] -= 1
            if counter[key] <= 0:
                del counter[key]

    def heard(self, destination: str, status: int | None, duration_s: float) -> None:
        """An attempt ended; `status` is None if there was no answer."""
        answered = status is not None and duration_s <= self._limits.quick_s
        if answered and destination not in self._lowered:
            return
        limit = self._lowered.get(destination, self._limits.destination_max)
        limit = limit + 1 if answered else max(limit / 2, self._limits.destination_min)
        self._lowered.pop(destination, None)
        if limit < self._limits.destination_max:
            self._lowered[destination] = limit
            if len(self._lowered) > self._limits.destinations_known_max:
                del self._lowered[next(iter(self._lowered))]  # not heard of for the longest time

    def destination_room(self) -> dict[str, int]:
        """Room of every destination that has not all of it."""
        names = self._destinations.keys() | self._lowered.keys()
        top = self._limits.destination_max
        return {name: int(self._lowered.get(name, top)) - self._destinations[name] for name in names}

    def account_room(self) -> dict[str, int]:
        """Room of every account that holds places."""
        return {name: self._limits.account_max - held for name, held in self._accounts.items()}
