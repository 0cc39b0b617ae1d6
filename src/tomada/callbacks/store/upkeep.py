"""Retention and figures. What is still to be delivered is never removed, however old."""

from typing import Any

from tomada.postgres.pool import Connection, rows_changed

ROWS_MAX = 5000

_OLD_DEAD = """
delete from dead_letter where ctid = any(array(
    select ctid from dead_letter where died_ms < real_now_ms() - $1 limit $2))
"""

# Nothing waits for it any more, and nothing of it lies in the dead letters.
_IS_SETTLED = """
not exists (select from callback c where c.instance_id = e.instance_id and c.event_number = e.number offset 0)
and not exists (select from dead_letter d
    where d.account_id = e.account_id and d.instance_id = e.instance_id and d.event_number = e.number offset 0)
"""

# In two statements: a replay may queue an event between this one's look and its lock, which it does not notice.
_LOCK_OLD_EVENTS = f"""
select e.instance_id, e.number from event e where e.created_ms < real_now_ms() - $1 and {_IS_SETTLED}
limit $2 for update skip locked
"""  # noqa: S608 - constants

# The second looks again while nobody can queue them any more: a replay locks what it queues (store/replaying.py).
_DELETE_EVENTS = f"""
delete from event e using unnest($1::text[], $2::bigint[]) as t(instance_id, number)
where e.instance_id = t.instance_id and e.number = t.number and {_IS_SETTLED}
"""  # noqa: S608 - constants

# Together with the events that they belong to: an attempt is younger than its event.
_OLD_ATTEMPTS = """
delete from attempt where (instance_id, event_number, lane_id, position, n) in (
    select a.instance_id, a.event_number, a.lane_id, a.position, a.n from attempt a
    where a.at_ms < real_now_ms() - $1 and not exists (
        select from event e where e.instance_id = a.instance_id and e.number = a.event_number)
    limit $2)
"""

# A lane that nobody has used since: its instance has another URL now.
_OLD_LANES = """
delete from lane where id in (
    select l.id from lane l where l.due_ms is null and l.disabled_ms is null and l.created_ms < real_now_ms() - $1
        and l.not_before_ms < real_now_ms() - $1
        and not exists (select from callback c where c.lane_id = l.id offset 0)
        and not exists (select from dead_letter d where d.lane_id = l.id offset 0)
    limit $2 for update skip locked)
"""

_OLD_REPLAYS = """
delete from replay where id in (select id from replay where finished_ms < real_now_ms() - $1 limit $2)
"""

_FIGURES = """
select l.account_id, coalesce(sum(w.n), 0)::bigint as waiting,
    coalesce(max(real_now_ms() - w.oldest_ms), 0)::bigint as oldest_age_ms,
    count(*) filter (where l.failing_since_ms is not null) as failing,
    count(*) filter (where l.disabled_ms is not null) as disabled,
    (select count(*) from dead_letter d where d.account_id = l.account_id) as dead
from lane l left join lateral (
    select count(*) as n,
        (select e.created_ms from callback f join event e on e.instance_id = f.instance_id and e.number = f.event_number
         where f.lane_id = l.id order by f.position limit 1) as oldest_ms
    from callback c where c.lane_id = l.id
) w on l.due_ms is not null
group by l.account_id
"""


async def remove_old(connection: Connection, retention_ms: int) -> int:
    """Remove up to some thousand rows of each kind that are past retention; how many were."""
    removed = rows_changed(await connection.execute(_OLD_DEAD, retention_ms, ROWS_MAX))
    async with connection.transaction():
        rows = await connection.fetch(_LOCK_OLD_EVENTS, retention_ms, ROWS_MAX)
        columns = [row["instance_id"] for row in rows], [row["number"] for row in rows]
        removed += rows_changed(await connection.execute(_DELETE_EVENTS, *columns))
    for sql in (_OLD_ATTEMPTS, _OLD_LANES, _OLD_REPLAYS):
        removed += rows_changed(await connection.execute(sql, retention_ms, ROWS_MAX))
    return removed


async def figures(connection: Connection) -> list[Any]:
    """What waits, per account."""
    return await connection.fetch(_FIGURES)
