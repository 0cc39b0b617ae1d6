"""Events sent again: requests for it, and the steps that work them off.

A step takes the next events of one request and puts them into their lanes as new callbacks of the same events, so they
go out under their original webhook-id. Its place is kept in the request's row, in the same transaction: a crash repeats
nothing and forgets nothing, and a request may be of any size.
"""

from collections.abc import Sequence
from typing import Any

from tomada.callbacks.store.lanes import bury_all
from tomada.callbacks.store.recording import LOCK_INSTANCES
from tomada.callbacks.targets import url_for
from tomada.callbacks.types import Target
from tomada.kit.addresses import destination
from tomada.postgres.pool import Connection

STEP_EVENTS = 500

# Account and instance are checked here: a foreign instance inserts nothing.
_START = """
insert into replay (id, account_id, instance_id, url, selection, after_number, until_number, since_ms)
select $1, i.account_id, i.id, $4, $5, $6::bigint - 1, least($7, i.event_number), $8
from instance i where i.id = $3 and i.account_id = $2 returning id
"""

_NEXT = """
select id, instance_id, url, selection, after_number, until_number, since_ms from replay
where finished_ms is null order by created_ms limit 1 for update skip locked
"""

# What is not delivered, not waiting, and has somewhere to go. Locked: what is queued must not be removed meanwhile.
_EVENTS = """
select e.number, e.target,
    (select l.url from dead_letter d join lane l on l.id = d.lane_id
     where d.instance_id = e.instance_id and d.event_number = e.number order by d.position desc limit 1) as dead_url
from event e
where e.instance_id = $1 and e.number > $2 and e.number <= $3 and e.created_ms >= $4
    and ($5 <> 'dead' or exists (
        select from dead_letter d where d.instance_id = e.instance_id and d.event_number = e.number))
    and ($5 <> 'missing' or not exists (
        select from attempt a where a.instance_id = e.instance_id and a.event_number = e.number and a.error is null
    ) and not exists (
        select from callback c where c.instance_id = e.instance_id and c.event_number = e.number))
order by e.number limit $6 for key share of e
"""

# What is queued is dead no more: in the lane it goes to, or (when dead letters were asked for) wherever it lay.
_QUEUE = """
with input as (
    select * from unnest($2::bigint[], $3::text[], $4::text[]) as t(number, url, destination)
), buried as (
    delete from dead_letter d using input i, lane l
    where d.instance_id = $1 and d.event_number = i.number and l.id = d.lane_id and ($5 or l.url = i.url)
), woken as (
    insert into lane (instance_id, account_id, url, destination, due_ms, last_position)
    select $1, (select account_id from instance where id = $1), url, destination, real_now_ms(), count(*) from input
    group by url, destination order by url
    on conflict (instance_id, url) do update set
        last_position = lane.last_position + excluded.last_position,
        due_ms = case when lane.disabled_ms is null then
            least(lane.due_ms, greatest(lane.not_before_ms, excluded.due_ms)) end
    returning id, account_id, url, last_position, disabled_ms is not null as disabled
), placed as (
    select w.id as lane_id, w.disabled, w.account_id, i.number,
        w.last_position - count(*) over (partition by w.id)
            + row_number() over (partition by w.id order by i.number) as position
    from input i join woken w on w.url = i.url
), queued as (
    insert into callback (lane_id, position, instance_id, event_number, replay)
    select lane_id, position, $1, number, true from placed where not disabled
)
insert into dead_letter (lane_id, position, instance_id, event_number, account_id, attempts, reason)
select lane_id, position, $1, number, account_id, 0, 'url disabled' from placed where disabled
"""

_ADVANCE = """
update replay set after_number = $2, queued = queued + $3,
    finished_ms = case when $4 then real_now_ms() end where id = $1
"""

_PROGRESS = """
select id, instance_id, url, selection, after_number, until_number, queued, created_ms, finished_ms
from replay where account_id = $1 and id = $2
"""

_DISABLED = """
select id from lane where account_id = $1 and instance_id = $2 and url = $3 and disabled_ms is not null
for no key update
"""

_REENABLE = """
update lane set disabled_ms = null, disabled_reason = null, failing_since_ms = null, not_before_ms = 0,
    done_position = last_position,
    due_ms = real_now_ms()
where id = $1
"""

_PURGE = """
delete from dead_letter where account_id = $1 and instance_id = $2 and died_ms < $3
    and ($4::bigint[] is null or event_number = any($4))
"""


async def start(
    connection: Connection,
    replay_id: str,
    account_id: str,
    instance_id: str,
    *,
    url: str | None,
    selection: str,
    from_number: int,
    until_number: int,
    since_ms: int,
) -> bool:
    """Note a request; False if the account has no such instance."""
    row = await connection.fetchrow(
        _START, replay_id, account_id, instance_id, url, selection, from_number, until_number, since_ms
    )
    return row is not None


async def step(connection: Connection) -> bool:
    """Work off the next part of the oldest unfinished request; False if there is none that is free."""
    replay = await connection.fetchrow(_NEXT)
    if replay is None:
        return False
    instance_id = replay["instance_id"]
    (instance,) = await connection.fetch(LOCK_INSTANCES, [instance_id])
    rows = await connection.fetch(
        _EVENTS,
        instance_id,
        replay["after_number"],
        replay["until_number"],
        replay["since_ms"],
        replay["selection"],
        STEP_EVENTS,
    )
    wanted = _with_urls(rows, instance, replay)
    if wanted:
        numbers, urls = [number for number, _ in wanted], [url for _, url in wanted]
        places = [destination(url) for url in urls]
        await connection.execute(_QUEUE, instance_id, numbers, urls, places, replay["selection"] == "dead")
    after = rows[-1]["number"] if rows else replay["until_number"]
    await connection.execute(_ADVANCE, replay["id"], after, len(wanted), len(rows) < STEP_EVENTS)
    return True


def _with_urls(rows: Sequence[Any], instance: Any, replay: Any) -> list[tuple[int, str]]:
    """Events with where they go: the URL asked for, the dead letter's own, or what the settings say now."""
    pairs = []
    for row in rows:
        own = row["dead_url"] if replay["selection"] == "dead" else None
        url = replay["url"] or own or url_for(Target(row["target"]), instance)
        if url:
            pairs.append((row["number"], url))
    return pairs


async def progress(connection: Connection, account_id: str, replay_id: str) -> Any:
    """The row of a request, or None."""
    return await connection.fetchrow(_PROGRESS, account_id, replay_id)


async def reenable(connection: Connection, account_id: str, instance_id: str, url: str) -> bool:
    """Switch a disabled URL on again; False if it is not there or not disabled. In the caller's transaction."""
    lane_id = await connection.fetchval(_DISABLED, account_id, instance_id, url)
    if lane_id is None:
        return False
    await bury_all(connection, lane_id)
    await connection.execute(_REENABLE, lane_id)
    return True


async def purge_dead(
    connection: Connection, account_id: str, instance_id: str, before_ms: int, numbers: Sequence[int] | None
) -> int:
    """Delete dead letters for good; how many."""
    status: str = await connection.execute(_PURGE, account_id, instance_id, before_ms, numbers)
    return int(status.rsplit(maxsplit=1)[-1])
