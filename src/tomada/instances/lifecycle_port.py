"""What the lifecycle's decisions need of a store: read a row with the time, and swap it on condition.

Two stores implement it: `lifecycle_store.PostgresLifecycle`, and the one in memory under `tests/simulation`. One suite
(`tests/integration/lifecycle`) runs on both, so that what simulated schedules prove of one holds for the other.
"""

from typing import Protocol

from msgspec import Struct

from tomada.instances.deletion import Deletion, Record
from tomada.instances.lifecycle import Change, Standing


class Snapshot(Struct, frozen=True):
    """A row, and the database's lifecycle time when it was read."""

    standing: Standing
    now_ms: int


class LifecycleStore(Record, Protocol):
    """The lifecycle's rows. Every method is one transaction, done wholly or not at all; erasing events may be more."""

    async def read(self, account_id: str, instance_id: str) -> Snapshot | None:
        """The account's instance; None if there is none of that id, or it is another account's."""

    async def swap(self, change: Change, actor: str) -> bool:
        """Applies a change if its row and its span of time still hold, and what comes with it; False if not.

        With it come: the entry in the audit log; the row of the deletion that it starts; what earlier deletions of this
        instance have still to do in rows (wholly taken over if it is deleted); and, if the instance gains a machine, an
        empty queue, no session from before, and hurry for the deletion of the former machine. Raises LimitReached if
        that is one too many for the account.
        """

    async def due(self, limit: int, after: tuple[int, str]) -> list[Snapshot]:
        """Up to `limit` instances for which time alone may decide something now, oldest first, after (due, id)."""

    async def ms_to_next_due(self) -> int | None:
        """Milliseconds until the next instance is due, negative if one is overdue; None if there is none at all."""

    async def claim(self, lease_ms: int) -> tuple[Deletion, int] | None:
        """Claims one deletion that may go on now, for `lease_ms`; with the lifecycle time. None: nothing to do.

        It is `forced` from here on if a try has failed and its time to be has come.
        """

    async def suspend(self, account_id: str, days: float, actor: str) -> int:
        """The account does not pay: all its instances serve nobody, and end after `days` unless it is resumed before.

        Returns when (lifecycle milliseconds). Repeating it keeps the first time. Creating is refused meanwhile.
        """

    async def resume(self, account_id: str, actor: str) -> None:
        """The account has paid. Instances that ended meanwhile stay ended, and can be subscribed again."""
