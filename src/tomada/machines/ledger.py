"""Which journal numbers of one slot are told, which are done, and which may be acknowledged.

Events of different instances are handled at the same time and finish in any order, but an acknowledgement says "all up
to this number". So a number is acknowledged when it and every one told before it are done. The ledger lives as long as
the host, across the lives of the machine in its slot: a machine that starts anew tells again what was not acknowledged,
or what it did not hear the acknowledgement of. What we are still working on must then be counted, not queued a second
time; and what is done stays done. Its instance may live in another slot by then, and an outcome of a send that is taken
for a new one there sends that message twice.
"""

from collections import deque


class Ledger:
    """The journal numbers of one slot."""

    def __init__(self) -> None:
        self._told: deque[int] = deque()  # by the present process, in order, not acknowledged
        self._pending: set[int] = set()  # not done, whichever process told them
        self._done: set[int] = set()  # behind one that is not
        self._all_done_to = 0

    def __len__(self) -> int:
        """How many are not done."""
        return len(self._pending)

    def machine_started(self) -> None:
        """A new process: it will tell again what it must."""
        self._told.clear()

    def told(self, number: int, *, again: bool = False) -> bool:
        """Note a number; True if there is work to do, False if it is done (told `again`) or under way already."""
        self._told.append(number)
        if number in self._pending or (again and (number <= self._all_done_to or number in self._done)):
            return False
        self._pending.add(number)
        return True

    def done(self, number: int) -> int | None:
        """The work is done; the number up to which may be acknowledged now, if that has moved."""
        self._pending.discard(number)
        self._done.add(number)
        return self.to_acknowledge()

    def to_acknowledge(self) -> int | None:
        """The number up to which may be acknowledged now, if that has moved."""
        acknowledge = None
        while self._told and self._told[0] not in self._pending:
            acknowledge = self._told.popleft()
            self._done.discard(acknowledge)
            self._all_done_to = max(self._all_done_to, acknowledge)
        return acknowledge
