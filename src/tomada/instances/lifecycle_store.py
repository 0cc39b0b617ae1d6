"""The lifecycle's SQL: every change of state is one conditional UPDATE; what must come with it is in its transaction.

Rows are locked in one order everywhere, so that no two transactions wait for each other: account, instances by id,
deletion, the rows of the other domains, the audit log's head. The time is read by the statement that depends on it.
Comparing with an index goes through `(select lifecycle_now_ms())`, once per statement: a volatile function would scan
the table.
"""

from typing import Any, Protocol

import msgspec

from tomada.errors import AccountNotFound, LimitReached, NotFound
from tomada.instances import erasure, lifecycle
from tomada.instances.deletion import FORCE_AFTER_MS, LEASE_MS, OUTSIDE, PLANS, Deletion, Done, Receipt, Step
from tomada.instances.lifecycle import Change, Scope, Standing
from tomada.instances.lifecycle_port import Snapshot
from tomada.postgres.pool import Connection, Pool

_STANDING = ", ".join(Standing.__struct_fields__)
_READ = f"select {_STANDING}, lifecycle_now_ms() as now_ms from instance where account_id = $1 and id = $2"

_DUE = f"""
select {_STANDING}, lifecycle_now_ms() as now_ms from instance
where next_ms <= (select lifecycle_now_ms()) and (next_ms, id) > ($2, $3) order by next_ms, id limit $1
"""
_TO_NEXT_DUE = "select min(next_ms) - lifecycle_now_ms() from instance where next_ms is not null"

# Whoever changes an account's instances takes turns here: it orders suspension, limit and audit log.
_LOCK_ACCOUNT = """
select instances_live, instances_max, suspended_until_ms from account where id = $1 for no key update
"""

# The referee: it finds the row only as the decision saw it, and only while the decision holds.
_SWAP = """
update instance
set state = $4, due_ms = $5, epoch = $6, revision = $7, with_calls = $8, ended_ms = $9, retire_ms = $10
where account_id = $1 and id = $2 and revision = $3
  and (select lifecycle_now_ms()) >= $11 and (select lifecycle_now_ms()) < $12
returning 1
"""

# That of an instance takes its earlier ones over, and with them what they may have left untold.
_START = """
insert into deletion (instance_id, account_id, epoch, scope, cause, force_ms, forced)
select $1, $2, $3, $4, $5, min(force_ms), coalesce(bool_or(forced), false) from deletion
where instance_id = $1 and finished_ms is null and $4 = 'instance'
"""
# The instance has another machine: its place is waited for. A claim that is held now is left its lease.
_HURRY = """
update deletion
set force_ms = case when force_ms is not null then 0 end, ready_ms = least(ready_ms, real_now_ms() + $3)
where instance_id = $1 and epoch < $2 and finished_ms is null
"""
_DELETION = (
    "instance_id, account_id, epoch, scope, cause, asked_ms, done, partly, failures, number, forced,"
    " finished_ms is not null"
)
_UNFINISHED = f"""
select {_DELETION} as finished from deletion
where instance_id = $1 and epoch < $2 and finished_ms is null order by epoch for update
"""
_TAKE_OVER = """
update deletion set finished_ms = lifecycle_now_ms(), number = number + 1 where instance_id = $1 and epoch = $2
"""

_CLAIM = f"""
with picked as (
    select instance_id, epoch from deletion
    where finished_ms is null and not_before_ms <= (select lifecycle_now_ms()) and ready_ms <= (select real_now_ms())
    order by not_before_ms, ready_ms, instance_id, epoch limit 1 for update skip locked
)
update deletion d set number = number + 1, ready_ms = real_now_ms() + $1,
    forced = forced or coalesce(force_ms <= (select real_now_ms()), false)
from picked p where d.instance_id = p.instance_id and d.epoch = p.epoch
returning {_DELETION.replace("instance_id", "d.instance_id").replace(" epoch", " d.epoch")} as finished,
    lifecycle_now_ms() as now_ms
"""
# Waits for messages that were accepted before the instance's end and are not committed yet: each holds a key-share
# lock on it. A transaction of its own: kept while events are written, this lock would deadlock with dispatchers, whose
# rows refer to the instance.
_AWAIT_ACCEPTED = "select from instance where id = $1 for update"

_LOCK_INSTANCE = "select 1 from instance where id = $1 for no key update"
_LOCK_DELETION = f"""
select {_DELETION} as finished from deletion
where instance_id = $1 and epoch = $2 and number = $3 and finished_ms is null for update
"""
_NOTE = f"""
update deletion
set done = done || jsonb_build_array(jsonb_build_object('step', $3::text, 'atMs', lifecycle_now_ms(),
        'removed', $4::jsonb, 'note', $5::text)),
    partly = '{{}}', failures = 0, ready_ms = greatest(ready_ms, real_now_ms() + $6)
where instance_id = $1 and epoch = $2
returning {_DELETION} as finished
"""
_NOTE_PART = """
update deletion set partly = $3, ready_ms = greatest(ready_ms, real_now_ms() + $4)
where instance_id = $1 and epoch = $2
"""
_POSTPONE = """
update deletion set ready_ms = real_now_ms() + $4, not_before_ms = $5, failures = failures + $6,
    force_ms = coalesce(force_ms, case when $6 > 0 then real_now_ms()
        + case when (select epoch from instance where id = $1) > $2 then 0 else $7 end end)
where instance_id = $1 and epoch = $2 and number = $3 and finished_ms is null
"""
_RELEASE = "update deletion set ready_ms = 0 where finished_ms is null"
_FINISH = """
update deletion set finished_ms = $4, digest = $5
where instance_id = $1 and epoch = $2 and number = $3 and finished_ms is null returning 1
"""
_RECEIPT = f"""
select {_DELETION} as finished, finished_ms, digest from deletion
where account_id = $1 and instance_id = $2 and digest is not null order by epoch desc limit 1
"""

_SUSPEND_ACCOUNT = """
update account set suspended_until_ms = coalesce(suspended_until_ms, lifecycle_now_ms() + $2)
where id = $1 returning suspended_until_ms
"""
_RESUME_ACCOUNT = "update account set suspended_until_ms = null where id = $1 returning 1"
_IS_SPREAD_TO = "account_id = $1 and state <> 'deleted' and suspended_until_ms is distinct from $2"
# By id, as the recorder of events locks them: an UPDATE takes rows as it finds them.
_LOCK_SPREAD = f"select from instance where {_IS_SPREAD_TO} order by id for no key update"
_SPREAD = f"update instance set suspended_until_ms = $2, revision = revision + 1 where {_IS_SPREAD_TO}"


class Neighbours(Protocol):
    """What other domains do within the lifecycle's transactions; wired in app.py."""

    async def audit(
        self, connection: Connection, account_id: str, actor: str, action: str, subject: str, detail: object = None
    ) -> None:
        """Appends to the account's audit log (accounts.audit.append)."""

    async def cancel_queue(self, connection: Connection, instance_id: str) -> int:
        """Fails every message that waits, so that each is reported; returns how many."""

    async def record_disconnected(self, connection: Connection, instance_id: str, dedupe_key: str) -> None:
        """Records a DisconnectedCallback; nothing if the key was recorded before."""


class PostgresLifecycle:
    """`LifecycleStore` in PostgreSQL. `lease_ms`: how long a claim holds after each recorded step."""

    def __init__(self, pool: Pool, neighbours: Neighbours, lease_ms: int = LEASE_MS) -> None:
        self._pool = pool
        self._neighbours = neighbours
        self._lease_ms = lease_ms

    async def read(self, account_id: str, instance_id: str) -> Snapshot | None:
        """See LifecycleStore."""
        row = await self._pool.fetchrow(_READ, account_id, instance_id)
        return _snapshot(row) if row else None

    async def due(self, limit: int, after: tuple[int, str]) -> list[Snapshot]:
        """See LifecycleStore."""
        return [_snapshot(row) for row in await self._pool.fetch(_DUE, limit, *after)]

    async def ms_to_next_due(self) -> int | None:
        """See LifecycleStore."""
        next_ms: int | None = await self._pool.fetchval(_TO_NEXT_DUE)
        return next_ms

    async def swap(self, change: Change, actor: str) -> bool:
        """See LifecycleStore. Raises LimitReached if a new machine would be one too many for the account."""
        before, after = change.before, change.after
        if change.gains_machine:
            await self._pool.execute(_AWAIT_ACCEPTED, after.id)
        async with self._pool.acquire() as connection, connection.transaction():
            account = await connection.fetchrow(_LOCK_ACCOUNT, before.account_id)
            if account is None:
                return False
            if not await connection.fetchval(_SWAP, *_swap_arguments(change)):
                return False
            if change.gains_machine and account["instances_live"] >= account["instances_max"]:
                raise LimitReached(f"This account may have {account['instances_max']} instances")
            scope = change.deletes
            if scope is not None:
                await connection.execute(_START, after.id, after.account_id, after.epoch, scope, change.action)
            if change.gains_machine or scope is not None:
                await self._clear_earlier(connection, after)
            if change.gains_machine:
                await connection.execute(_HURRY, after.id, after.epoch, self._lease_ms)
                await erasure.erase(connection, after.id, Step.SESSION)
                await self._neighbours.cancel_queue(connection, after.id)
            detail = {"from": before.state, "to": after.state, "due": after.due_ms, "epoch": after.epoch}
            await self._neighbours.audit(connection, after.account_id, actor, change.action, after.id, detail)
        return True

    async def _clear_earlier(self, connection: Connection, after: Standing) -> None:
        """Does the local steps of earlier deletions now: later they would meet what the new machine has made.

        If the instance itself is deleted, the new deletion covers all that earlier ones have still to do.
        """
        for row in await connection.fetch(_UNFINISHED, after.id, after.epoch):
            deletion = _deletion(row)
            done = {item.step for item in deletion.done}
            for step in PLANS[deletion.scope]:
                if step not in OUTSIDE and step not in done:
                    await self._do(connection, deletion, step, {}, "with the next change", lease_ms=0)
            if after.state == "deleted":
                await connection.execute(_TAKE_OVER, deletion.instance_id, deletion.epoch)

    async def release(self) -> None:
        """For a server that starts, the only one on this database: nobody holds a claim, and no pause is waited for."""
        await self._pool.execute(_RELEASE)

    async def claim(self, lease_ms: int) -> tuple[Deletion, int] | None:
        """See LifecycleStore."""
        row = await self._pool.fetchrow(_CLAIM, lease_ms)
        return (_deletion(row), row["now_ms"]) if row else None

    async def settle(self, deletion: Deletion, step: Step, removed: dict[str, int], note: str) -> Deletion | None:
        """See Record."""
        if step is Step.QUEUE:
            await self._pool.execute(_AWAIT_ACCEPTED, deletion.instance_id)
        if step is Step.EVENTS:
            while await self._erase_part(deletion):
                pass
        async with self._pool.acquire() as connection, connection.transaction():
            row = await self._lock(connection, deletion)
            if row is None:
                return None
            current = _deletion(row)
            if _is_done(current, step):
                return current
            removed = removed or msgspec.json.decode(row["partly"])
            return await self._do(connection, current, step, removed, note, lease_ms=self._lease_ms)

    async def _erase_part(self, deletion: Deletion) -> bool:
        """Erases the next part of the events, and counts it for the receipt; False if there is none, or no claim."""
        async with self._pool.acquire() as connection, connection.transaction():
            row = await self._lock(connection, deletion)
            if row is None or _is_done(_deletion(row), Step.EVENTS):
                return False
            removed = await erasure.erase_part(connection, deletion.instance_id)
            if removed:
                partly = msgspec.json.encode(_sum(msgspec.json.decode(row["partly"]), removed)).decode()
                await connection.execute(_NOTE_PART, deletion.instance_id, deletion.epoch, partly, self._lease_ms)
        return bool(removed)

    async def _lock(self, connection: Connection, deletion: Deletion) -> Any:
        """The deletion's row, if the claim still holds; the instance is locked before it."""
        await connection.execute(_LOCK_INSTANCE, deletion.instance_id)
        return await connection.fetchrow(_LOCK_DELETION, deletion.instance_id, deletion.epoch, deletion.number)

    async def _do(
        self,
        connection: Connection,
        deletion: Deletion,
        step: Step,
        removed: dict[str, int],
        note: str,
        *,
        lease_ms: int,
    ) -> Deletion:
        instance_id = deletion.instance_id
        if step is Step.QUEUE:
            removed = {"queued_messages": await self._neighbours.cancel_queue(connection, instance_id)}
        elif step is Step.NOTIFY:
            await self._neighbours.record_disconnected(connection, instance_id, f"deletion:{deletion.epoch}")
        elif step not in OUTSIDE:
            removed = _sum(removed, await erasure.erase(connection, instance_id, step))
        row = await connection.fetchrow(
            _NOTE,
            *(instance_id, deletion.epoch, step, msgspec.json.encode(removed).decode(), note, lease_ms),
        )
        assert row is not None
        return _deletion(row)

    async def postpone(self, deletion: Deletion, pause_ms: int, not_before_ms: int = 0, *, failed: bool = True) -> None:
        """See Record."""
        await self._pool.execute(
            _POSTPONE,
            *(deletion.instance_id, deletion.epoch, deletion.number, pause_ms, not_before_ms, int(failed)),
            FORCE_AFTER_MS,
        )

    async def finish(self, deletion: Deletion, receipt: Receipt) -> bool:
        """See Record."""
        async with self._pool.acquire() as connection, connection.transaction():
            closed = await connection.fetchval(
                _FINISH,
                *(deletion.instance_id, deletion.epoch, deletion.number, receipt.finished_ms, receipt.digest),
            )
            if closed:
                await self._neighbours.audit(
                    connection, deletion.account_id, "sweeper", "erased", deletion.instance_id, receipt
                )
        return bool(closed)

    async def receipt(self, account_id: str, instance_id: str) -> Receipt:
        """The newest erasure receipt of the account's instance. Raises NotFound."""
        row = await self._pool.fetchrow(_RECEIPT, account_id, instance_id)
        if row is None:
            raise NotFound(
                "No erasure receipt for this instance",
                hint="There is one as soon as its deletion has ended; ask again.",
            )
        deletion = _deletion(row)
        return Receipt(
            instance_id=instance_id,
            account_id=account_id,
            epoch=deletion.epoch,
            scope=deletion.scope,
            cause=deletion.cause,
            asked_ms=deletion.asked_ms,
            finished_ms=row["finished_ms"],
            removed=deletion.done,
            digest=row["digest"],
        )

    async def suspend(self, account_id: str, days: float, actor: str) -> int:
        """See LifecycleStore. Raises NotFound, BadInput."""
        suspension_ms = lifecycle.suspension_ms(days)
        async with self._pool.acquire() as connection, connection.transaction():
            until_ms: int | None = await connection.fetchval(_SUSPEND_ACCOUNT, account_id, suspension_ms)
            if until_ms is None:
                raise AccountNotFound
            await _spread(connection, account_id, until_ms)
            await self._neighbours.audit(connection, account_id, actor, "suspended", account_id, {"until": until_ms})
        return until_ms

    async def resume(self, account_id: str, actor: str) -> None:
        """See LifecycleStore. Raises NotFound."""
        async with self._pool.acquire() as connection, connection.transaction():
            if not await connection.fetchval(_RESUME_ACCOUNT, account_id):
                raise AccountNotFound
            await _spread(connection, account_id, None)
            await self._neighbours.audit(connection, account_id, actor, "resumed", account_id)


async def _spread(connection: Connection, account_id: str, until_ms: int | None) -> None:
    """The account's suspension, on each of its instances; the account is locked."""
    await connection.execute(_LOCK_SPREAD, account_id, until_ms)
    await connection.execute(_SPREAD, account_id, until_ms)


def _snapshot(row: Any) -> Snapshot:
    values = dict(row)
    now_ms = values.pop("now_ms")
    return Snapshot(msgspec.convert(values, Standing), now_ms)


def _is_done(deletion: Deletion, step: Step) -> bool:
    return any(item.step == step for item in deletion.done)


def _sum(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {table: one.get(table, 0) + other.get(table, 0) for table in one | other}


def _deletion(row: Any) -> Deletion:
    return Deletion(
        instance_id=row["instance_id"],
        account_id=row["account_id"],
        epoch=row["epoch"],
        scope=Scope(row["scope"]),
        cause=row["cause"],
        asked_ms=row["asked_ms"],
        done=msgspec.json.decode(row["done"], type=tuple[Done, ...]),
        failures=row["failures"],
        number=row["number"],
        forced=row["forced"],
        finished=row["finished"],
    )


def _swap_arguments(change: Change) -> tuple[object, ...]:
    before, after = change.before, change.after
    return (
        *(before.account_id, before.id, before.revision),
        *(after.state, after.due_ms, after.epoch, after.revision, after.with_calls, after.ended_ms, after.retire_ms),
        *(change.from_ms, change.until_ms),
    )
