"""Lanes taken and renewed. Times are the database's real time, so that several dispatchers agree on them.

The fence: a lane is taken with `lease_epoch + 1`; renewing and settling name that epoch and change nothing if another
dispatcher has taken the lane since.

An attempt is counted before it is made: taking a lane notes up to which position its holder may send, and settling it
takes the note back. What is taken again with the note still there may have been sent by a holder that died, as often as
there were such leases, and its attempts are counted so (`tomada-attempt`). That may count what was not sent after all;
it never calls a repeat the first.

Taking does not wait for the disk, which settling does: of a lease that a crash of the database takes back, nothing is
lost but the lease, and the note for what was sent within some tenths of a second. The lane is due again, and what its
holder had not settled is sent again, as after any crash; two holders under one epoch can repeat an event, and only the
first one's result is written.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tomada.callbacks.types import Lane, Waiting
from tomada.postgres.pool import Connection

# Take due lanes: oldest first, but one per account in turn, and no more per destination and account than there is room
# for ($4/$5 and $6/$7 name those that are not empty; $8/$9 is the room of all others). Full ones ($2, $3) are left out
# before the limit (1000 candidates), so that they cannot hide the rest. A locked lane is another dispatcher's: skipped.
# Of each lane: what was set aside and is due again, and the next $11 positions; ranges, so that the size of a backlog
# costs nothing. `seen` comes from the statement's snapshot, as the callbacks do, and not from the locked row, which may
# be newer; `done_position` is the locked row's, so that what was settled since the snapshot is not sent again.
# Payloads come until they have reached $12 bytes, and then one more; what follows is taken later. So there are always
# two: whether a failing head has to give way is found out by sending the next one (sending.py).
_TAKE = """
with now as materialized (
    select real_now_ms() as ms, set_config('synchronous_commit', 'off', true) as unsynced
), candidate as materialized (
    select id, account_id, destination, due_ms, last_position from lane
    where due_ms <= (select ms from now) and destination <> all($2::text[]) and account_id <> all($3::text[])
    order by due_ms limit 1000
), ranked as (
    select id, account_id, destination, due_ms, last_position,
        row_number() over (partition by destination order by due_ms) as in_destination,
        row_number() over (partition by account_id order by due_ms) as in_account
    from candidate
), chosen as (
    select r.id, r.last_position from ranked r
    left join unnest($4::text[], $5::int[]) as d(destination, room) on d.destination = r.destination
    left join unnest($6::text[], $7::int[]) as a(account_id, room) on a.account_id = r.account_id
    where r.in_destination <= coalesce(d.room, $8) and r.in_account <= coalesce(a.room, $9)
    order by r.in_account, r.due_ms limit $1
), locked as (
    select id, unsettled, offered_position from lane
    where id in (select id from chosen) and due_ms <= (select ms from now) for update skip locked
), taken as (
    update lane set lease_epoch = lease_epoch + 1, due_ms = now.ms + $10, not_before_ms = now.ms + $10,
        unsettled = lane.unsettled + 1,
        offered_position = greatest(lane.offered_position, least(lane.last_position, lane.done_position + $11))
    from locked, now where lane.id = locked.id
    returning lane.*, locked.unsettled as repeats, locked.offered_position as repeated
), described as materialized (
    select t.*, now.ms as now_ms, chosen.last_position as seen, chosen.last_position > t.done_position + $11 as more,
        i.token_sealed, account.signing_secret_sealed,
        (select array[a.instance_id, a.event_number::text] from callback a
         where a.lane_id = t.id and a.aside_due_ms > now.ms order by a.position limit 1) as overtaken
    from taken t
    join chosen on chosen.id = t.id
    join instance i on i.id = t.instance_id
    join account on account.id = t.account_id
    cross join now
)
select t.id, t.lease_epoch, t.instance_id, t.account_id, t.url, t.destination, t.seen, t.more,
    coalesce(t.now_ms - t.failing_since_ms, 0) as lane_failing_for_ms, t.token_sealed, t.signing_secret_sealed,
    (select e.id from event e where e.instance_id = t.overtaken[1] and e.number = t.overtaken[2]::bigint) as overtaken,
    coalesce(sum(octet_length(e.payload)) over but_last, 0) >= $12 as later,
    w.position, e.id as event_id, w.event_number,
    case when coalesce(sum(octet_length(e.payload)) over but_last, 0) < $12 then e.payload end as payload,
    e.created_ms, w.attempts + case when w.position <= t.repeated then t.repeats else 0 end as attempts,
    coalesce(t.now_ms - w.failing_since_ms, 0) as failing_for_ms, w.aside_due_ms is not null as aside, w.replay
from described t
left join lateral (
    (select * from callback a where a.lane_id = t.id and a.aside_due_ms <= t.now_ms order by a.position limit $11)
    union all
    select * from callback c where c.lane_id = t.id and c.aside_due_ms is null
        and c.position > t.done_position and c.position <= t.done_position + $11
) w on true
left join event e on e.instance_id = w.instance_id and e.number = w.event_number
window but_last as (partition by t.id order by w.position rows between unbounded preceding and 2 preceding)
order by t.id, w.position
"""
_WAITING = len(Waiting.__struct_fields__)  # the last columns, in their order

_RENEW = """
with ours as (
    select lane.id from lane join unnest($1::bigint[], $2::bigint[]) as t(id, epoch) on lane.id = t.id
    where lane.lease_epoch = t.epoch order by lane.instance_id, lane.url for update of lane
)
update lane set due_ms = real_now_ms() + $3, not_before_ms = real_now_ms() + $3
from ours where lane.id = ours.id and lane.disabled_ms is null returning lane.id
"""


async def take(
    connection: Connection,
    *,
    lanes_max: int,
    batch: int,
    batch_bytes: int,
    lease_ms: int,
    destination_room: Mapping[str, int],
    account_room: Mapping[str, int],
    destination_room_default: int,
    account_room_default: int,
) -> list[Lane]:
    """Take up to `lanes_max` due lanes under a lease, each with up to `batch` events to send in order.

    Fewer where they are large: only one follows that with which they have reached `batch_bytes`.
    """
    rows = await connection.fetch(
        _TAKE,
        lanes_max,
        [name for name, room in destination_room.items() if room <= 0],
        [name for name, room in account_room.items() if room <= 0],
        list(destination_room.keys()),
        list(destination_room.values()),
        list(account_room.keys()),
        list(account_room.values()),
        destination_room_default,
        account_room_default,
        lease_ms,
        batch,
        batch_bytes,
    )
    by_lane: dict[int, list[Any]] = {}
    for row in rows:
        by_lane.setdefault(row["id"], []).append(row)
    return [_lane(group) for group in by_lane.values()]


def _lane(rows: list[Any]) -> Lane:
    first = rows[0]
    return Lane(
        id=first["id"],
        epoch=first["lease_epoch"],
        instance_id=first["instance_id"],
        account_id=first["account_id"],
        url=first["url"],
        destination=first["destination"],
        seen=first["seen"],
        more=first["more"] or rows[-1]["later"],
        failing_for_ms=first["lane_failing_for_ms"],
        overtaken=first["overtaken"],
        token_sealed=first["token_sealed"],
        secrets_sealed=first["signing_secret_sealed"],
        waiting=tuple(Waiting(*row[-_WAITING:]) for row in rows if row["position"] is not None and not row["later"]),
    )


async def renew(connection: Connection, held: Sequence[tuple[int, int]], lease_ms: int) -> set[int]:
    """Lengthen the leases of (lane, epoch) pairs; the ids that are still ours."""
    rows = await connection.fetch(_RENEW, [lane for lane, _ in held], [epoch for _, epoch in held], lease_ms)
    return {row["id"] for row in rows}
