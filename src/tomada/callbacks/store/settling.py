"""What came of lanes, written: events delivered, failed or dead, when each lane is due again, URLs disabled.

`settle` says it for any lanes, in the caller's transaction; delivered.py says the common case in one statement. Both
begin with the fence (taking.py): of a lane that another dispatcher has taken since, nothing is changed.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from tomada.callbacks.types import Attempt, Delivered, Failed, Lane, Settlement
from tomada.postgres.pool import Connection

# Which of the lanes are still ours; locked in the order that everybody uses.
_FENCE = """
select lane.id from lane join unnest($1::bigint[], $2::bigint[]) as t(id, epoch) on lane.id = t.id
where lane.lease_epoch = t.epoch order by lane.instance_id, lane.url for update of lane
"""

_DELETE_SETTLED = """
delete from callback where ctid = any(array(
    select c.ctid from unnest($1::bigint[], $2::bigint[]) as t(lane_id, position) cross join lateral (
        select ctid from callback where lane_id = t.lane_id and position = t.position offset 0) c))
"""

# A failed callback that stays: head of its lane, or set aside with a due time of its own.
_UPDATE_FAILED = """
update callback c set attempts = t.attempts, failing_since_ms = coalesce(c.failing_since_ms, t.at_ms),
    aside_due_ms = real_now_ms() + t.aside_for_ms
from (
    select c.ctid, t.attempts, t.at_ms, t.aside_for_ms
    from unnest($1::bigint[], $2::bigint[], $3::int[], $4::bigint[], $5::bigint[])
        as t(lane_id, position, attempts, at_ms, aside_for_ms)
    cross join lateral (
        select ctid from callback where lane_id = t.lane_id and position = t.position offset 0) c
) t where c.ctid = t.ctid
"""

_INSERT_DEAD = """
insert into dead_letter (lane_id, position, instance_id, event_number, account_id, attempts, reason)
select * from unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[], $5::text[], $6::int[], $7::text[])
"""

_INSERT_ATTEMPTS = """
insert into attempt (instance_id, event_number, lane_id, position, n, at_ms, status, duration_ms, error)
select * from unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::int[], $6::bigint[], $7::int[],
    $8::int[], $9::text[])
on conflict do nothing
"""

# When the lane is due again. What came while it was held (last_position is beyond what was seen when it was taken)
# makes it due as soon as new events may; so does what was set aside, when its time comes. The epoch ends with the
# lease, so that a renewal that is late does not lengthen what nobody holds.
_UPDATE_LANES = """
update lane set
    lease_epoch = lane.lease_epoch + 1,
    unsettled = t.interrupted::int,
    due_ms = least(
        t.again_in_ms + real_now_ms(),
        case when lane.last_position > t.seen then real_now_ms() + t.not_before_ms end,
        (select min(a.aside_due_ms) from callback a where a.lane_id = lane.id and a.aside_due_ms is not null)
    ),
    done_position = greatest(lane.done_position, t.done),
    not_before_ms = real_now_ms() + t.not_before_ms,
    failing_since_ms = case when t.succeeded and not t.failing then null
        when t.succeeded then t.failed_at_ms
        else coalesce(lane.failing_since_ms, t.failed_at_ms) end,
    last_error = case when t.succeeded and not t.failing then null else coalesce(t.error, lane.last_error) end
from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bool[], $6::bool[], $7::bigint[], $8::text[],
    $9::bigint[], $10::bool[])
    as t(id, again_in_ms, seen, not_before_ms, succeeded, failing, failed_at_ms, error, done, interrupted)
where lane.id = t.id
returning coalesce(lane.due_ms <= real_now_ms(), false) as due
"""

_DISABLE = """
update lane set disabled_ms = real_now_ms(), disabled_reason = $2, due_ms = null, done_position = last_position
where id = $1
"""

# What waited in a disabled lane goes to the dead letters, so many at a time: a million at once would hold the locks of
# lane and instance for as long as a statement may take.
_BURY = """
with gone as (
    delete from callback where ctid = any(array(
        select ctid from callback where lane_id = $1 order by position limit $2))
    returning *
)
insert into dead_letter (lane_id, position, instance_id, event_number, account_id, attempts, reason)
select g.lane_id, g.position, g.instance_id, g.event_number, l.account_id, g.attempts,
    'url disabled: ' || l.disabled_reason
from gone g join lane l on l.id = g.lane_id
"""
_STILL_TO_BURY = """
select id from lane l where disabled_ms is not null and exists (select from callback c where c.lane_id = l.id offset 0)
limit 1 for no key update skip locked
"""
_IS_LEFT = "select exists (select from callback where lane_id = $1)"
BURIED_AT_ONCE = 2000

_LOCK_INSTANCES = "select from instance where id = any($1::text[]) order by id for no key update"


class Settled(msgspec.Struct, frozen=True):
    """The lanes that were still ours, by id; and whether one of them is due again at once."""

    ours: set[int]
    due: bool


async def settle(connection: Connection, settlements: Sequence[Settlement]) -> Settled:
    """Write what came of lanes, in the caller's transaction."""
    disabling = [s for s in settlements if s.disable]
    if disabling:  # their instances are locked first, because an event will be recorded: the common order of locks
        await connection.fetch(_LOCK_INSTANCES, sorted({s.lane.instance_id for s in disabling}))
    rows = await connection.fetch(_FENCE, [s.lane.id for s in settlements], [s.lane.epoch for s in settlements])
    ours = {row["id"] for row in rows}
    kept = [s for s in settlements if s.lane.id in ours]
    pairs = [(s.lane, outcome) for s in kept for outcome in s.outcomes]
    await _write_outcomes(connection, pairs)
    lanes = await connection.fetch(_UPDATE_LANES, *_lane_columns(kept))
    for settlement in kept:
        if settlement.disable:
            lane = settlement.lane
            await connection.execute(_DISABLE, lane.id, settlement.disable)
            await connection.execute(_BURY, lane.id, BURIED_AT_ONCE)
    return Settled(ours, any(row["due"] for row in lanes))


async def bury_next(connection: Connection) -> bool:
    """Some of what still waits in a disabled lane goes to the dead letters; False if nothing does."""
    lane_id = await connection.fetchval(_STILL_TO_BURY)
    if lane_id is not None:
        await connection.execute(_BURY, lane_id, BURIED_AT_ONCE)
    return lane_id is not None


async def bury(connection: Connection, lane_id: int) -> bool:
    """The next part of what waits in this disabled lane goes to the dead letters; whether more is left."""
    await connection.execute(_BURY, lane_id, BURIED_AT_ONCE)
    is_left: bool = await connection.fetchval(_IS_LEFT, lane_id)
    return is_left


async def _write_outcomes(connection: Connection, pairs: list[tuple[Lane, Delivered | Failed]]) -> None:
    if not pairs:
        return
    gone = [(lane, o) for lane, o in pairs if isinstance(o, Delivered) or o.dead]
    if gone:
        await connection.execute(_DELETE_SETTLED, [lane.id for lane, _ in gone], [o.callback.position for _, o in gone])
    failed = [(lane, o) for lane, o in pairs if isinstance(o, Failed) and not o.dead]
    if failed:
        await connection.execute(
            _UPDATE_FAILED,
            [lane.id for lane, _ in failed],
            [o.callback.position for _, o in failed],
            [o.callback.attempts + 1 for _, o in failed],
            [o.attempt.at_ms for _, o in failed],
            [o.aside_for_ms for _, o in failed],
        )
    dead = [(lane, o) for lane, o in pairs if isinstance(o, Failed) and o.dead]
    if dead:
        await connection.execute(_INSERT_DEAD, *_dead_columns(dead))
    await connection.execute(_INSERT_ATTEMPTS, *attempt_columns(pairs))


def _done(settlement: Settlement) -> int:
    """The position up to which all is settled or set aside: that before the first event still held back."""
    done = 0
    for outcome in settlement.outcomes:
        if isinstance(outcome, Failed) and not outcome.dead and outcome.aside_for_ms is None:
            break
        if not outcome.callback.aside:
            done = outcome.callback.position
    return done


def _dead_columns(pairs: list[tuple[Lane, Failed]]) -> list[list[Any]]:
    rows = [
        (
            lane.id,
            o.callback.position,
            lane.instance_id,
            o.callback.event_number,
            lane.account_id,
            o.callback.attempts + 1,
            f"attempts used up: {o.attempt.error}",
        )
        for lane, o in pairs
    ]
    return [list(column) for column in zip(*rows, strict=True)]


def attempt_columns(pairs: Sequence[tuple[Lane, Delivered | Failed]]) -> list[list[Any]]:
    """One row of `attempt` per outcome, as columns."""
    rows = [
        (
            lane.instance_id,
            o.callback.event_number,
            lane.id,
            o.callback.position,
            o.callback.attempts + 1,
            o.attempt.at_ms,
            o.attempt.status,
            o.attempt.duration_ms,
            o.attempt.error,
        )
        for lane, o in pairs
    ]
    return [list(column) for column in zip(*rows, strict=True)]


def _lane_columns(settlements: list[Settlement]) -> list[list[Any]]:
    """One row per lane: when next, and whether it succeeded or is failing now."""
    columns: list[list[Any]] = [[] for _ in range(10)]
    for s in settlements:
        last = s.outcomes[-1] if s.outcomes else None
        failure: Attempt | None = last.attempt if isinstance(last, Failed) else None
        row = (
            s.lane.id,
            s.again_in_ms,
            s.lane.seen,
            s.not_before_ms,
            any(isinstance(o, Delivered) for o in s.outcomes),
            failure is not None,
            failure.at_ms if failure else None,
            failure.error if failure else None,
            _done(s),
            s.interrupted,
        )
        for column, value in zip(columns, row, strict=True):
            column.append(value)
    return columns
