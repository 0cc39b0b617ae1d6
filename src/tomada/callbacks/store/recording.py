"""Events in: numbered, kept, and queued for delivery in the transaction of the caller.

The instance's row is locked first. That gives numbers in commit order, makes the look-up of dedupe keys exact (nobody
else can be adding events of this instance), and freezes the URLs while they are chosen.
"""

from collections.abc import Sequence
from typing import Any

from tomada.callbacks.targets import url_for
from tomada.callbacks.types import NewEvent, Recorded
from tomada.kit import ids
from tomada.kit.addresses import destination
from tomada.postgres.pool import Connection

WAKE_CHANNEL = "tomada_callbacks"

# Sorted locking: two batches with the same instances wait for each other instead of deadlocking. An instance whose
# token was erased is none any more, and its events are erased too; until then its deletion has something to tell.
LOCK_INSTANCES = """
select id, delivery_callback_url, received_callback_url, received_and_delivery_callback_url, disconnected_callback_url,
       connected_callback_url, message_status_callback_url, presence_chat_callback_url, notify_sent_by_me
from instance where id = any($1::text[]) and (state <> 'deleted' or token_sealed <> '')
order by id for no key update
"""

# One statement: drop what is known, number what is new, keep it, make or wake the lanes, queue it there (or, where the
# URL is disabled, put it with the dead letters at once).
_INSERT = """
with input as (
    select * from unnest($1::int[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
        $9::text[]) as t(ordinal, instance_id, dedupe_key, id, type, target, payload, url, destination)
), fresh as (
    select distinct on (i.instance_id, i.dedupe_key) i.* from input i
    where not exists (select from event e where e.instance_id = i.instance_id and e.dedupe_key = i.dedupe_key)
    order by i.instance_id, i.dedupe_key, i.ordinal
), bumped as (
    update instance set event_number = event_number + f.n
    from (select instance_id, count(*) as n from fresh group by instance_id) f where instance.id = f.instance_id
    returning instance.id, instance.account_id, instance.event_number - f.n as base
), numbered as (
    select f.*, b.account_id, b.base + row_number() over (partition by f.instance_id order by f.ordinal) as number
    from fresh f join bumped b on b.id = f.instance_id
), kept as (
    insert into event (instance_id, number, id, account_id, type, target, payload, dedupe_key)
    select instance_id, number, id, account_id, type, target, payload, dedupe_key from numbered
), woken as (
    insert into lane (instance_id, account_id, url, destination, due_ms, last_position)
    select instance_id, account_id, url, destination, real_now_ms(), count(*) from numbered where url is not null
    group by instance_id, account_id, url, destination order by instance_id, url
    on conflict (instance_id, url) do update set
        last_position = lane.last_position + excluded.last_position,
        due_ms = case when lane.disabled_ms is null then
            least(lane.due_ms, greatest(lane.not_before_ms, excluded.due_ms)) end
    returning id, instance_id, account_id, url, last_position, disabled_ms is not null as disabled
), placed as (
    select w.id as lane_id, w.disabled, w.account_id, n.instance_id, n.number,
        w.last_position - count(*) over (partition by w.id)
            + row_number() over (partition by w.id order by n.number) as position
    from numbered n join woken w on w.instance_id = n.instance_id and w.url = n.url
), queued as (
    insert into callback (lane_id, position, instance_id, event_number)
    select lane_id, position, instance_id, number from placed where not disabled
), refused as (
    insert into dead_letter (lane_id, position, instance_id, event_number, account_id, attempts, reason)
    select lane_id, position, instance_id, number, account_id, 0, 'url disabled' from placed where disabled
)
select ordinal, id, number,
    (select pg_notify($10, '') from (select 1 from woken where $11 limit 1) w) as hint
from numbered
"""

_KNOWN = """
select e.instance_id, e.dedupe_key, e.id, e.number
from event e join unnest($1::text[], $2::text[]) as t(instance_id, dedupe_key) using (instance_id, dedupe_key)
"""


async def write_events(
    connection: Connection, events: Sequence[NewEvent], *, notify: bool = True
) -> list[Recorded | None]:
    """Record events in the caller's transaction, in the order given; one result each.

    An event known by its dedupe key changes nothing and gives what is there. None: there is no such instance any more.
    `notify`: wake the dispatchers at commit (a hint: they look once a second anyway). All such commits stand in one
    line in PostgreSQL, so whoever wakes a dispatcher by a call does without.
    """
    rows = await connection.fetch(LOCK_INSTANCES, sorted({event.instance_id for event in events}))
    instances = {row["id"]: row for row in rows}
    columns = _columns(events, instances)
    if not columns[0]:
        return [None] * len(events)
    results: list[Recorded | None] = [None] * len(events)
    for row in await connection.fetch(_INSERT, *columns, WAKE_CHANNEL, notify):
        results[row["ordinal"]] = Recorded(row["id"], row["number"], fresh=True)
    await _fill_known(connection, events, instances, results)
    return results


def _columns(events: Sequence[NewEvent], instances: dict[str, Any]) -> tuple[list[Any], ...]:
    """The events of known instances as columns for unnest, each with its URL."""
    columns: tuple[list[Any], ...] = ([], [], [], [], [], [], [], [], [])
    for ordinal, event in enumerate(events):
        instance = instances.get(event.instance_id)
        if instance is None:
            continue
        url = url_for(event.target, instance)
        place = destination(url) if url else None
        row = (ordinal, event.instance_id, event.dedupe_key, ids.event_id(), event.type, event.target.value)
        for column, value in zip(columns, (*row, event.payload, url, place), strict=True):
            column.append(value)
    return columns


async def _fill_known(
    connection: Connection, events: Sequence[NewEvent], instances: dict[str, Any], results: list[Recorded | None]
) -> None:
    """Look up what was recorded before, for the events that gave nothing new."""
    missing = [i for i, event in enumerate(events) if results[i] is None and event.instance_id in instances]
    if not missing:
        return
    rows = await connection.fetch(
        _KNOWN, [events[i].instance_id for i in missing], [events[i].dedupe_key for i in missing]
    )
    known = {(row["instance_id"], row["dedupe_key"]): row for row in rows}
    for i in missing:
        row = known[events[i].instance_id, events[i].dedupe_key]
        results[i] = Recorded(row["id"], row["number"], fresh=False)
