"""The lifecycle's store in memory: what `PostgresLifecycle` does in SQL, said in plain Python.

It knows nothing of faults and takes every method as one atomic step, as a transaction is.
tests/integration/lifecycle runs one suite on both stores and drives them with the same random calls, so that they
cannot drift apart.
"""

from collections.abc import Callable

from msgspec.structs import replace

from tomada.errors import LimitReached, NotFound
from tomada.instances.deletion import FORCE_AFTER_MS, LEASE_MS, OUTSIDE, PLANS, Deletion, Done, Receipt, Step
from tomada.instances.lifecycle import LIVE, Change, Standing, State, next_ms, suspension_ms
from tomada.instances.lifecycle_port import Snapshot


class Account:
    """An account's row."""

    def __init__(self, instances_max: int = 25) -> None:
        self.instances_max = instances_max
        self.suspended_until_ms: int | None = None


class Paper:
    """What hangs on an instance's row in other tables: counts of rows, and whether its tokens are there."""

    def __init__(self) -> None:
        self.session = False
        self.queued = 0
        self.events: list[str] = []  # dedupe keys
        self.tokens = True
        self.name = True


class _Row:
    def __init__(self, deletion: Deletion) -> None:
        self.deletion = deletion
        self.ready_ms = 0
        self.not_before_ms = 0
        self.force_ms: int | None = None
        self.digest: str | None = None


class MemoryLifecycle:
    """`LifecycleStore` in memory. `lifecycle_ms` and `real_ms` tell the database's two times."""

    def __init__(self, lifecycle_ms: Callable[[], int], real_ms: Callable[[], int], lease_ms: int = LEASE_MS) -> None:
        self._lifecycle_ms = lifecycle_ms
        self._real_ms = real_ms
        self._lease_ms = lease_ms
        self.accounts: dict[str, Account] = {}
        self.standings: dict[str, Standing] = {}
        self.papers: dict[str, Paper] = {}
        self.rows: dict[tuple[str, int], _Row] = {}
        self.audit: list[tuple[int, str, str, str]] = []  # when, actor, action, subject
        self.sent: list[tuple[str, str]] = []  # every callback ever recorded: instance, dedupe key

    def create(self, standing: Standing) -> None:
        """A new instance, as the create call makes it."""
        account = self.accounts.setdefault(standing.account_id, Account())
        assert account.suspended_until_ms is None
        self.standings[standing.id] = standing
        self.papers[standing.id] = Paper()

    async def read(self, account_id: str, instance_id: str) -> Snapshot | None:
        """See LifecycleStore."""
        standing = self.standings.get(instance_id)
        if standing is None or standing.account_id != account_id:
            return None
        return Snapshot(standing, self._lifecycle_ms())

    async def due(self, limit: int, after: tuple[int, str]) -> list[Snapshot]:
        """See LifecycleStore."""
        now_ms = self._lifecycle_ms()
        keys = ((next_ms(standing), standing.id) for standing in self.standings.values())
        ready = sorted((at_ms, name) for at_ms, name in keys if at_ms is not None and at_ms <= now_ms)
        return [Snapshot(self.standings[key[1]], now_ms) for key in ready if key > after][:limit]

    async def ms_to_next_due(self) -> int | None:
        """See LifecycleStore."""
        times = [at_ms for standing in self.standings.values() if (at_ms := next_ms(standing)) is not None]
        return min(times) - self._lifecycle_ms() if times else None

    async def swap(self, change: Change, actor: str) -> bool:
        """See LifecycleStore."""
        before, after = change.before, change.after
        current = self.standings.get(before.id)
        if current is None or current.account_id != before.account_id or current.revision != before.revision:
            return False
        if not change.from_ms <= self._lifecycle_ms() < change.until_ms:
            return False
        if change.gains_machine and self._live(after.account_id) >= self.accounts[after.account_id].instances_max:
            raise LimitReached(f"This account may have {self.accounts[after.account_id].instances_max} instances")
        self.standings[after.id] = replace(after, suspended_until_ms=current.suspended_until_ms)
        scope = change.deletes
        earlier = self._earlier(after)
        self._clear_earlier(after, earlier)
        if change.gains_machine:
            for row in earlier:
                row.force_ms = None if row.force_ms is None else 0
                row.ready_ms = min(row.ready_ms, self._real_ms() + self._lease_ms)
            self.papers[after.id].session = False
            self.papers[after.id].queued = 0
        if scope is not None:
            deletion = Deletion(
                instance_id=after.id,
                account_id=after.account_id,
                epoch=after.epoch,
                scope=scope,
                cause=change.action,
                asked_ms=self._lifecycle_ms(),
            )
            assert (after.id, after.epoch) not in self.rows
            row = self.rows[after.id, after.epoch] = _Row(deletion)
            if after.state is State.DELETED:  # it takes the earlier ones over
                row.force_ms = min((it.force_ms for it in earlier if it.force_ms is not None), default=None)
                row.deletion = replace(deletion, forced=any(it.deletion.forced for it in earlier))
        self._log(actor, change.action, after.id)
        return True

    def _live(self, account_id: str) -> int:
        return sum(s.account_id == account_id and s.state in LIVE for s in self.standings.values())

    def _earlier(self, after: Standing) -> list[_Row]:
        return [
            row
            for (instance_id, epoch), row in self.rows.items()
            if instance_id == after.id and epoch < after.epoch and not row.deletion.finished
        ]

    def leaving(self, instance_id: str) -> bool:
        """Whether a former machine of the instance may not be removed yet; what the host asks before it pairs."""
        open_ones = [deletion for deletion in self.unfinished() if deletion.instance_id == instance_id]
        return any(all(item.step != Step.FILES for item in deletion.done) for deletion in open_ones)

    def _clear_earlier(self, after: Standing, earlier: list[_Row]) -> None:
        for row in earlier:
            for step in PLANS[row.deletion.scope]:
                if step not in OUTSIDE and all(item.step != step for item in row.deletion.done):
                    self._do(row, step, {}, "with the next change", 0)
            if after.state is State.DELETED:
                row.deletion = replace(row.deletion, finished=True, number=row.deletion.number + 1)

    async def claim(self, lease_ms: int) -> tuple[Deletion, int] | None:
        """See LifecycleStore."""
        lifecycle_ms, real_ms = self._lifecycle_ms(), self._real_ms()
        ready = [
            (row.not_before_ms, row.ready_ms, key)
            for key, row in self.rows.items()
            if not row.deletion.finished and row.not_before_ms <= lifecycle_ms and row.ready_ms <= real_ms
        ]
        if not ready:
            return None
        row = self.rows[min(ready)[2]]
        due = row.force_ms is not None and row.force_ms <= real_ms
        row.deletion = replace(row.deletion, number=row.deletion.number + 1, forced=row.deletion.forced or due)
        row.ready_ms = real_ms + lease_ms
        return row.deletion, lifecycle_ms

    def _held(self, deletion: Deletion) -> _Row | None:
        row = self.rows[deletion.instance_id, deletion.epoch]
        return None if row.deletion.finished or row.deletion.number != deletion.number else row

    async def settle(self, deletion: Deletion, step: Step, removed: dict[str, int], note: str) -> Deletion | None:
        """See Record."""
        row = self._held(deletion)
        if row is None:
            return None
        if all(item.step != step for item in row.deletion.done):
            self._do(row, step, removed, note, self._lease_ms)
        return row.deletion

    def _do(self, row: _Row, step: Step, removed: dict[str, int], note: str, lease_ms: int) -> None:
        deletion = row.deletion
        paper = self.papers[deletion.instance_id]
        if step is Step.SESSION:
            removed, paper.session = {"session": int(paper.session)}, False
        elif step is Step.QUEUE:
            removed, paper.queued = {"queued_messages": paper.queued}, 0
        elif step is Step.NOTIFY:
            key = f"deletion:{deletion.epoch}"
            assert key not in paper.events
            paper.events.append(key)
            self.sent.append((deletion.instance_id, key))
        elif step is Step.EVENTS:
            removed, paper.events = {"event": len(paper.events)}, []
        elif step is Step.TOKENS:
            paper.tokens = False
        elif step is Step.TOMBSTONE:
            paper.name = False
        done = (*deletion.done, Done(step, self._lifecycle_ms(), removed, note))
        row.deletion = replace(deletion, done=done, failures=0)
        row.ready_ms = max(row.ready_ms, self._real_ms() + lease_ms)

    async def postpone(self, deletion: Deletion, pause_ms: int, not_before_ms: int = 0, *, failed: bool = True) -> None:
        """See Record."""
        row = self._held(deletion)
        if row is not None:
            row.ready_ms, row.not_before_ms = self._real_ms() + pause_ms, not_before_ms
            row.deletion = replace(row.deletion, failures=row.deletion.failures + failed)
            if failed and row.force_ms is None:
                superseded = self.standings[deletion.instance_id].epoch > deletion.epoch
                row.force_ms = self._real_ms() + (0 if superseded else FORCE_AFTER_MS)

    async def finish(self, deletion: Deletion, receipt: Receipt) -> bool:
        """See Record."""
        row = self._held(deletion)
        if row is None:
            return False
        row.deletion = replace(row.deletion, finished=True)
        row.digest = receipt.digest
        self._log("sweeper", "erased", deletion.instance_id)
        return True

    async def suspend(self, account_id: str, days: float, actor: str) -> int:
        """See LifecycleStore."""
        account = self._account(account_id)
        if account.suspended_until_ms is None:
            account.suspended_until_ms = self._lifecycle_ms() + suspension_ms(days)
        self._spread(account_id, account.suspended_until_ms)
        self._log(actor, "suspended", account_id)
        return account.suspended_until_ms

    async def resume(self, account_id: str, actor: str) -> None:
        """See LifecycleStore."""
        self._account(account_id).suspended_until_ms = None
        self._spread(account_id, None)
        self._log(actor, "resumed", account_id)

    def _account(self, account_id: str) -> Account:
        if account_id not in self.accounts:
            raise NotFound("Account not found")
        return self.accounts[account_id]

    def _spread(self, account_id: str, until_ms: int | None) -> None:
        for standing in list(self.standings.values()):
            touched = standing.account_id == account_id and standing.state is not State.DELETED
            if touched and standing.suspended_until_ms != until_ms:
                self.standings[standing.id] = replace(
                    standing, suspended_until_ms=until_ms, revision=standing.revision + 1
                )

    def _log(self, actor: str, action: str, subject: str) -> None:
        self.audit.append((self._lifecycle_ms(), actor, action, subject))

    def unfinished(self) -> list[Deletion]:
        """Deletions that may go on now or later."""
        return [row.deletion for row in self.rows.values() if not row.deletion.finished]
