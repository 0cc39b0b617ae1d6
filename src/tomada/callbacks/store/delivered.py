"""Settling what almost every lane comes to: all that was sent was taken, and nothing had given way before.

The same as `settling.settle` for these, in one statement that is its own transaction: one round trip instead of six,
and a third of the work in PostgreSQL. Fence and locks are the same. What one statement cannot see is what it writes
itself and what others commit while it waits for a lock; so it looks at nothing of that kind but the locked rows, which
PostgreSQL reads anew. What is set aside (`aside_due_ms`) is changed by the lane's holder alone, which is the caller.
"""

from collections.abc import Sequence

from tomada.callbacks.store.settling import Settled, attempt_columns
from tomada.callbacks.types import Delivered, Settlement
from tomada.postgres.pool import Connection

_SETTLE = """
with ours as materialized (
    select lane.id, t.seen, t.again_in_ms, t.done
    from lane join unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
        as t(id, epoch, seen, again_in_ms, done) on lane.id = t.id
    where lane.lease_epoch = t.epoch order by lane.instance_id, lane.url for update of lane
), tried as (
    select t.* from unnest($6::text[], $7::bigint[], $8::bigint[], $9::bigint[], $10::int[], $11::bigint[], $12::int[],
        $13::int[], $14::text[])
        as t(instance_id, event_number, lane_id, position, n, at_ms, status, duration_ms, error)
    join ours on ours.id = t.lane_id
), gone as (
    delete from callback where ctid = any(array(
        select c.ctid from tried t cross join lateral (
            select ctid from callback where lane_id = t.lane_id and position = t.position offset 0) c))
), noted as (
    insert into attempt (instance_id, event_number, lane_id, position, n, at_ms, status, duration_ms, error)
    select * from tried on conflict do nothing
)
update lane set
    lease_epoch = lane.lease_epoch + 1,
    unsettled = 0,
    due_ms = least(
        ours.again_in_ms + real_now_ms(),
        case when lane.last_position > ours.seen then real_now_ms() end,
        (select min(a.aside_due_ms) from callback a where a.lane_id = lane.id and a.aside_due_ms is not null)
    ),
    done_position = greatest(lane.done_position, ours.done),
    not_before_ms = real_now_ms(),
    failing_since_ms = null,
    last_error = null
from ours where lane.id = ours.id
returning lane.id, coalesce(lane.due_ms <= real_now_ms(), false) as due
"""


def is_delivered(settlement: Settlement) -> bool:
    """Whether `settle_delivered` may be used."""
    if settlement.interrupted:
        return False
    return settlement.disable is None and bool(settlement.outcomes) and all(map(_is_plain, settlement.outcomes))


def _is_plain(outcome: object) -> bool:
    return isinstance(outcome, Delivered) and not outcome.callback.aside


async def settle_delivered(connection: Connection, settlements: Sequence[Settlement]) -> Settled:
    """Write what came of lanes for all of which `is_delivered`; committed when it returns."""
    rows = await connection.fetch(
        _SETTLE,
        [s.lane.id for s in settlements],
        [s.lane.epoch for s in settlements],
        [s.lane.seen for s in settlements],
        [s.again_in_ms for s in settlements],
        [s.outcomes[-1].callback.position for s in settlements],
        *attempt_columns([(s.lane, outcome) for s in settlements for outcome in s.outcomes]),
    )
    return Settled({row["id"] for row in rows}, any(row["due"] for row in rows))
