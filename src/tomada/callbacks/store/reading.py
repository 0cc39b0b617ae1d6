"""What /v1 shows: events, attempts, lanes and dead letters of one account, in pages by key (no offsets, no cap)."""

from typing import Any

from tomada.postgres.pool import Connection

LOOK_EVENTS = 5000
PAGE_BYTES = 4 << 20  # of payloads; the one with which they reach it is the last of its page

# Of the rows of a page, those that it has room for. `found`: how many there were.
_WITHIN = """
select * from (
    select page.*, count(*) over () as found, coalesce(sum(octet_length(payload)) over before, 0) as bytes_before
    from ({page}) page window before as (order by {order} rows between unbounded preceding and 1 preceding)
) p where bytes_before < {bytes_max} order by {order}
"""

# The instance, if it is the account's; else nothing is read at all.
_OWN = "(select i.id from instance i where i.account_id = $1 and i.id = $2)"

# The newest event that a page does not look at any more; null: it looks at all.
_STRETCH_END = f"""
select e.number from event e where e.instance_id = {_OWN} and e.number < $3 order by e.number desc offset $4 limit 1
"""  # noqa: S608 - constants

# Newest first. The state is derived, so it cannot disagree with the rows: waiting beats dead beats delivered.
_EVENTS = _WITHIN.format(
    order="number desc",
    bytes_max="$10",
    page=f"""
select * from (
    select e.id, e.number, e.instance_id, e.type, e.payload, e.created_ms,
        case when exists (select from callback c
                where c.instance_id = e.instance_id and c.event_number = e.number offset 0)
                then 'waiting'
            when exists (select from dead_letter d where d.account_id = e.account_id
                and d.instance_id = e.instance_id and d.event_number = e.number offset 0)
                then 'dead'
            when exists (select from attempt a
                where a.instance_id = e.instance_id and a.event_number = e.number and a.error is null)
                then 'delivered'
            else 'kept' end as state,
        (select count(*) from attempt a where a.instance_id = e.instance_id and a.event_number = e.number) as attempts
    from event e
    where e.instance_id = {_OWN} and e.number < $3 and e.number > $9 and ($4::text is null or e.type = $4)
        and e.created_ms >= $5 and e.created_ms < $6
) x where ($7::text is null or x.state = $7) order by x.number desc limit $8
""",  # noqa: S608 - constants
)

_ATTEMPTS = """
select a.n, l.url, a.at_ms, a.status, a.duration_ms, a.error
from event e
join attempt a on a.instance_id = e.instance_id and a.event_number = e.number
left join lane l on l.id = a.lane_id
where e.account_id = $1 and e.id = $2 order by a.at_ms, a.n limit 1000
"""

_LANES = """
select l.id, l.url, l.due_ms, l.failing_since_ms, l.disabled_ms, l.disabled_reason, l.last_error,
    (select count(*) from callback c where c.lane_id = l.id) as waiting,
    (select count(*) from dead_letter d where d.lane_id = l.id) as dead_letters
from lane l where l.account_id = $1 and l.instance_id = $2 order by l.id
"""

# A page is cut out of an index before anything is joined to it: what lies there may be millions, of this account and of
# others. Of an account in the order of dead_letter_by_lane (with `account_id = $1` the primary key would give that
# order too, and walk through those of others); of an instance from each of its few lanes.
_DEAD_COLUMNS = """
select d.instance_id, d.event_number, e.id as event_id, e.type, e.payload, l.url, d.attempts, d.died_ms, d.reason,
    d.lane_id, d.position
"""
_DEAD = _WITHIN.format(
    order="lane_id, position",
    bytes_max="$5",
    page=f"""{_DEAD_COLUMNS}
from (
    select * from dead_letter where (account_id, lane_id, position) > ($1, $2, $3) and account_id <= $1
    order by account_id, lane_id, position limit $4
) d
join lane l on l.id = d.lane_id
join event e on e.instance_id = d.instance_id and e.number = d.event_number
order by d.lane_id, d.position
""",  # noqa: S608 - constants
)
_DEAD_OF_INSTANCE = _WITHIN.format(
    order="lane_id, position",
    bytes_max="$5",
    page=f"""{_DEAD_COLUMNS}
from lane l cross join lateral (
    select * from dead_letter where lane_id = l.id and (lane_id, position) > ($2, $3) order by position limit $4
) d
join event e on e.instance_id = d.instance_id and e.number = d.event_number
where l.account_id = $1 and l.instance_id = $6
order by d.lane_id, d.position limit $4
""",  # noqa: S608 - constants
)

_INSTANCE = """
select i.id, i.account_id, i.token_sealed, a.signing_secret_sealed, s.phone
from instance i join account a on a.id = i.account_id left join session s on s.instance_id = i.id
where i.id = $2 and i.account_id = $1 and (i.state <> 'deleted' or i.token_sealed <> '')
"""


_IS_INSTANCE = "select exists (select from instance where account_id = $1 and id = $2)"
_IS_EVENT = "select exists (select from event where account_id = $1 and id = $2)"


async def is_instance(connection: Connection, account_id: str, instance_id: str) -> bool:
    """Whether the account has or had such an instance: its history may outlive it."""
    found: bool = await connection.fetchval(_IS_INSTANCE, account_id, instance_id)
    return found


async def is_event(connection: Connection, account_id: str, event_id: str) -> bool:
    """Whether the account has such an event."""
    found: bool = await connection.fetchval(_IS_EVENT, account_id, event_id)
    return found


async def events(
    connection: Connection,
    account_id: str,
    instance_id: str,
    *,
    before_number: int,
    type_: str | None,
    since_ms: int,
    until_ms: int,
    state: str | None,
    limit: int,
) -> tuple[list[Any], int | None]:
    """Events of an instance, newest first; and what `before_number` is to be next, None at the end.

    At most LOOK_EVENTS are looked at, however few of them are wanted, and PAGE_BYTES of payloads fill a page.
    """
    beyond = await connection.fetchval(_STRETCH_END, account_id, instance_id, before_number, LOOK_EVENTS)
    wanted = (type_, since_ms, until_ms, state, limit, beyond or 0, PAGE_BYTES)
    rows = await connection.fetch(_EVENTS, account_id, instance_id, before_number, *wanted)
    if _is_full(rows, limit):
        return rows, rows[-1]["number"]
    return rows, None if beyond is None else beyond + 1


async def attempts(connection: Connection, account_id: str, event_id: str) -> list[Any]:
    """The attempts at one event, oldest first."""
    return await connection.fetch(_ATTEMPTS, account_id, event_id)


async def lanes(connection: Connection, account_id: str, instance_id: str) -> list[Any]:
    """The lanes of an instance."""
    return await connection.fetch(_LANES, account_id, instance_id)


async def dead_letters(
    connection: Connection, account_id: str, instance_id: str | None, after: tuple[int, int], limit: int
) -> tuple[list[Any], tuple[int, int] | None]:
    """Dead letters of an account or of one instance, by lane and position; and what `after` is to be next."""
    page = (account_id, *after, limit, PAGE_BYTES)
    if instance_id is None:
        rows = await connection.fetch(_DEAD, *page)
    else:
        rows = await connection.fetch(_DEAD_OF_INSTANCE, *page, instance_id)
    return rows, (rows[-1]["lane_id"], rows[-1]["position"]) if _is_full(rows, limit) else None


def _is_full(rows: list[Any], limit: int) -> bool:
    """Whether a page ended because it had no room for more, by number or by bytes."""
    return len(rows) == limit or (bool(rows) and rows[0]["found"] > len(rows))


async def instance(connection: Connection, account_id: str, instance_id: str) -> Any:
    """The sealed credentials of an instance of the account; None also if they were erased."""
    return await connection.fetchrow(_INSTANCE, account_id, instance_id)
