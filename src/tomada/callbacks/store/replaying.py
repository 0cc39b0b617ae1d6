"""Events sent again: requests for it, and the steps that work them off.

A step puts some events of one request into their lanes as new callbacks of the same events, so they go out under their
original webhook-id. The request's place is kept in its row, in the same transaction: a crash repeats nothing and
forgets nothing, and a request may be of any size.

Looking for them comes first and holds no lock: at most LOOK_EVENTS, however few of them are wanted. Then come the locks
that queueing needs, in the order of all others: the instance, the request (if another process has moved it on
meanwhile, nothing is done), the events (against retention, store/upkeep.py), the lanes.
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
LOOK_EVENTS = 5000

# Account and instance are checked here: a foreign instance inserts nothing.
_START = """
insert into replay (id, account_id, instance_id, url, selection, after_number, until_number, since_ms)
select $1, i.account_id, i.id, $4, $5, $6::bigint - 1, least($7, i.event_number), $8
from instance i where i.id = $3 and i.account_id = $2 returning id
"""

_UNFINISHED = "select id from replay where finished_ms is null order by created_ms, id"

_REPLAY = """
select id, instance_id, url, selection, after_number, until_number, since_ms from replay
where id = $1 and finished_ms is null
"""

# The end of the stretch that a step looks at; null: that of the request.
_STRETCH_END = """
select e.number from event e where e.instance_id = $1 and e.number > $2 and e.number <= $3
order by e.number offset $4 limit 1
"""

# Dead, or missing: neither delivered nor waiting. ($1: the instance)
_IS_DEAD = "exists (select from dead_letter d where d.instance_id = $1 and d.event_number = e.number)"
_IS_MISSING = """(
    not exists (select from attempt a where a.instance_id = $1 and a.event_number = e.number and a.error is null)
    and not exists (select from callback c where c.instance_id = $1 and c.event_number = e.number))
"""
_IS_SELECTED = f"($2 <> 'dead' or {_IS_DEAD}) and ($2 <> 'missing' or {_IS_MISSING})"

_FIND = f"""
select e.number from event e
where e.instance_id = $1 and e.number > $3 and e.number <= $4 and e.created_ms >= $5 and {_IS_SELECTED}
order by e.number limit $6
"""  # noqa: S608 - constants

_LOCK = "select from replay where id = $1 and after_number = $2 and finished_ms is null for update"

# Asked again, for another replay may have queued some of them before our locks were there.
_LOCK_EVENTS = f"""
select e.number, e.target,
    (select l.url from dead_letter d join lane l on l.id = d.lane_id
     where d.instance_id = e.instance_id and d.event_number = e.number order by d.position desc limit 1) as dead_url
from event e where e.instance_id = $1 and e.number = any($3::bigint[]) and {_IS_SELECTED}
order by e.number for key share of e
"""  # noqa: S608 - constants

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
update replay set after_number = $3, queued = queued + $4,
    finished_ms = case when $3 >= until_number then real_now_ms() end
where id = $1 and after_number = $2 and finished_ms is null
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


async def unfinished(connection: Connection) -> list[str]:
    """The ids of requests that are not worked off, oldest first."""
    return [row["id"] for row in await connection.fetch(_UNFINISHED)]


async def step(connection: Connection, replay_id: str) -> None:
    """Work off the next part of a request, in the caller's transaction; nothing if it is finished."""
    replay = await connection.fetchrow(_REPLAY, replay_id)
    if replay is None:
        return
    numbers, last = await _find(connection, replay)
    queued = await _queue(connection, replay, numbers) if numbers else 0
    if queued is not None:
        await connection.execute(_ADVANCE, replay_id, replay["after_number"], last, queued)


async def _find(connection: Connection, replay: Any) -> tuple[list[int], int]:
    """The numbers of the next events to be sent again, STEP_EVENTS at most; and up to where all have been found."""
    instance_id, after, until = replay["instance_id"], replay["after_number"], replay["until_number"]
    end = await connection.fetchval(_STRETCH_END, instance_id, after, until, LOOK_EVENTS - 1)
    last = until if end is None else end
    rows = await connection.fetch(_FIND, instance_id, replay["selection"], after, last, replay["since_ms"], STEP_EVENTS)
    numbers = [row["number"] for row in rows]
    return numbers, numbers[-1] if len(numbers) == STEP_EVENTS else last


async def _queue(connection: Connection, replay: Any, numbers: list[int]) -> int | None:
    """Put these events into their lanes; how many went there. None: the request is not where it was."""
    instance_id = replay["instance_id"]
    instances = await connection.fetch(LOCK_INSTANCES, [instance_id])
    place = await connection.fetchrow(_LOCK, replay["id"], replay["after_number"])
    if not instances or place is None:
        return None
    rows = await connection.fetch(_LOCK_EVENTS, instance_id, replay["selection"], numbers)
    wanted = _with_urls(rows, instances[0], replay)
    if wanted:
        urls = [url for _, url in wanted]
        places = [destination(url) for url in urls]
        numbers = [number for number, _ in wanted]
        await connection.execute(_QUEUE, instance_id, numbers, urls, places, replay["selection"] == "dead")
    return len(wanted)


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
