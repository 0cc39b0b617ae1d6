"""Events sent again: requests for it, and the steps that work them off.

A step puts some events of one request into their lanes as new callbacks of the same events, so they go out under their
original webhook-id. The request's place is kept in its row, in the same transaction: a crash repeats nothing and
forgets nothing, and a request may be of any size.

Dead letters are sent again each by itself, to the URL that it was for: an event may be dead in one lane or in several.

Looking comes first and holds no lock: at most LOOK_MAX events or dead letters, however few of them are wanted. Then
come the locks that queueing needs, in the order of all others: the instance, the request (if another process has moved
it on meanwhile, nothing is done), the events (against retention, store/upkeep.py), the lanes.
"""

from collections.abc import Sequence
from typing import Any

from tomada.callbacks.store.recording import LOCK_INSTANCES
from tomada.callbacks.store.settling import bury
from tomada.callbacks.targets import url_for
from tomada.callbacks.types import Target
from tomada.errors import Unavailable
from tomada.kit.addresses import destination
from tomada.postgres.pool import Connection, rows_changed

STEP_EVENTS = 500
LOOK_MAX = 5000
LAST = (1 << 63) - 1

# Account and instance are checked here: a foreign instance, or one that was erased, inserts nothing.
_START = """
insert into replay (id, account_id, instance_id, url, selection, after_number, until_number, since_ms, lane_id)
select $1, i.account_id, i.id, $4, $5, $6::bigint - 1, least($7, i.event_number), $8, $9
from instance i where i.id = $3 and i.account_id = $2 and (i.state <> 'deleted' or i.token_sealed <> '') returning id
"""

_UNFINISHED = "select id from replay where finished_ms is null order by created_ms, id"

_REPLAY = """
select id, account_id, instance_id, url, selection, lane_id, after_number, until_number, since_ms from replay
where id = $1 and finished_ms is null
"""

# Missing: neither delivered nor waiting. ($1: the instance, $2: whether only such are wanted)
_IS_SELECTED = """(not $2 or (
    not exists (select from attempt a where a.instance_id = $1 and a.event_number = e.number and a.error is null)
    and not exists (select from callback c where c.instance_id = $1 and c.event_number = e.number offset 0)))
"""
# ($1: the account, $2: the instance, $3: the lane, null for all)
_DEAD = """
dead_letter d join event e on e.instance_id = d.instance_id and e.number = d.event_number
where d.account_id = $1 and d.instance_id = $2 and ($3::bigint is null or d.lane_id = $3)
"""

# The end of the stretch that a step looks at; null: that of the request.
_STRETCH_END = """
select e.number from event e where e.instance_id = $1 and e.number > $2 and e.number <= $3
order by e.number offset $4 limit 1
"""
_DEAD_STRETCH_END = """
select d.event_number from dead_letter d
where d.account_id = $1 and d.instance_id = $2 and d.event_number > $3 and d.event_number <= $4
order by d.event_number offset $5 limit 1
"""

# What is for nobody (callbacks.types.Target) stays in the history, also when another URL is asked for.
_FIND = f"""
select e.number from event e
where e.instance_id = $1 and e.number > $3 and e.number <= $4 and e.created_ms >= $5 and e.target <> 'nobody'
    and {_IS_SELECTED}
order by e.number limit $6
"""  # noqa: S608 - constants
_FIND_DEAD = f"""
select distinct d.event_number as number from {_DEAD}
and d.event_number > $4 and d.event_number <= $5 and e.created_ms >= $6 order by number limit $7
"""  # noqa: S608 - constants

_LOCK = "select from replay where id = $1 and after_number = $2 and finished_ms is null for update"

# Asked again, for another replay may have queued some of them before our locks were there.
_LOCK_EVENTS = f"""
select e.number, e.target, null as dead_url from event e
where e.instance_id = $1 and e.number = any($3::bigint[]) and {_IS_SELECTED}
order by e.number for key share of e
"""  # noqa: S608 - constants
_LOCK_DEAD = f"""
select e.number, e.target, (select l.url from lane l where l.id = d.lane_id) as dead_url from {_DEAD}
and d.event_number = any($4::bigint[]) order by e.number, d.lane_id for key share of e
"""  # noqa: S608 - constants

# What is queued is dead no more: in the lane it goes to, or (dead letters sent to another URL) wherever it lay.
_QUEUE = """
with input as (
    select * from unnest($2::bigint[], $3::text[], $4::text[]) as t(number, url, destination)
), buried as (
    delete from dead_letter d using input i, lane l
    where d.account_id = (select account_id from instance where id = $1) and d.instance_id = $1
        and d.event_number = i.number and l.id = d.lane_id and ($5 or l.url = i.url)
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
    and event_number > $4 and event_number <= $5
"""
_PURGE_NUMBERS = """
delete from dead_letter where account_id = $1 and instance_id = $2 and died_ms < $3 and event_number = any($4::bigint[])
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
    lane_id: int | None = None,
) -> bool:
    """Note a request; False if the account has no such instance. `lane_id`: only the dead letters of this lane."""
    row = await connection.fetchrow(
        _START, replay_id, account_id, instance_id, url, selection, from_number, until_number, since_ms, lane_id
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
    account_id, since_ms = replay["account_id"], replay["since_ms"]
    if replay["selection"] == "dead":
        end = await connection.fetchval(_DEAD_STRETCH_END, account_id, instance_id, after, until, LOOK_MAX - 1)
        last = until if end is None else end
        of = (account_id, instance_id, replay["lane_id"])
        rows = await connection.fetch(_FIND_DEAD, *of, after, last, since_ms, STEP_EVENTS)
    else:
        end = await connection.fetchval(_STRETCH_END, instance_id, after, until, LOOK_MAX - 1)
        last = until if end is None else end
        missing = replay["selection"] == "missing"
        rows = await connection.fetch(_FIND, instance_id, missing, after, last, since_ms, STEP_EVENTS)
    numbers = [row["number"] for row in rows]
    return numbers, numbers[-1] if len(numbers) == STEP_EVENTS else last


async def _queue(connection: Connection, replay: Any, numbers: list[int]) -> int | None:
    """Put these events into their lanes; how many callbacks that made. None: the request is not where it was."""
    instance_id = replay["instance_id"]
    instances = await connection.fetch(LOCK_INSTANCES, [instance_id])
    place = await connection.fetchrow(_LOCK, replay["id"], replay["after_number"])
    if not instances or place is None:
        return None
    if replay["selection"] == "dead":
        of = (replay["account_id"], instance_id, replay["lane_id"])
        rows = await connection.fetch(_LOCK_DEAD, *of, numbers)
    else:
        rows = await connection.fetch(_LOCK_EVENTS, instance_id, replay["selection"] == "missing", numbers)
    wanted = _with_urls(rows, instances[0], replay["url"])
    if wanted:
        urls = [url for _, url in wanted]
        places = [destination(url) for url in urls]
        elsewhere = replay["selection"] == "dead" and replay["url"] is not None
        await connection.execute(_QUEUE, instance_id, [number for number, _ in wanted], urls, places, elsewhere)
    return len(wanted)


def _with_urls(rows: Sequence[Any], instance: Any, url: str | None) -> list[tuple[int, str]]:
    """Events with where they go, each pair once: the URL asked for, the dead letter's, or what the settings say now."""
    pairs: dict[tuple[int, str], None] = {}
    for row in rows:
        target_url = url or row["dead_url"] or url_for(Target(row["target"]), instance)
        if target_url:
            pairs[row["number"], target_url] = None
    return list(pairs)


async def progress(connection: Connection, account_id: str, replay_id: str) -> Any:
    """The row of a request, or None."""
    return await connection.fetchrow(_PROGRESS, account_id, replay_id)


async def bury_disabled(connection: Connection, account_id: str, instance_id: str, url: str) -> bool:
    """The next part of what waits at a disabled URL goes to the dead letters; whether more is left."""
    lane_id = await connection.fetchval(_DISABLED, account_id, instance_id, url)
    return lane_id is not None and await bury(connection, lane_id)


async def reenable(connection: Connection, account_id: str, instance_id: str, url: str) -> int | None:
    """Switch a disabled URL on again, in the caller's transaction; its lane, None if there is no such disabled one.

    The lane is used from its end, so it must be empty. Raises Unavailable if more waits than is buried at once.
    """
    lane_id: int | None = await connection.fetchval(_DISABLED, account_id, instance_id, url)
    if lane_id is not None:
        if await bury(connection, lane_id):
            raise Unavailable
        await connection.execute(_REENABLE, lane_id)
    return lane_id


async def purge_dead(
    connection: Connection, account_id: str, instance_id: str, before_ms: int, after_number: int
) -> tuple[int, int | None]:
    """Delete dead letters for good, of those behind `after_number` the next LOOK_MAX; how many, and up to where.

    None: there are no more.
    """
    of = (account_id, instance_id)
    end: int | None = await connection.fetchval(_DEAD_STRETCH_END, *of, after_number, LAST, LOOK_MAX - 1)
    status = await connection.execute(_PURGE, *of, before_ms, after_number, LAST if end is None else end)
    return rows_changed(status), end


async def purge_dead_events(
    connection: Connection, account_id: str, instance_id: str, before_ms: int, numbers: Sequence[int]
) -> int:
    """Delete the dead letters of these events, LOOK_MAX at most, for good; how many."""
    return rows_changed(await connection.execute(_PURGE_NUMBERS, account_id, instance_id, before_ms, numbers))
