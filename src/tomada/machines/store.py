"""The SQL of the `session` table: what is known of each instance's live connection.

Only the node that hosts an instance writes its row, and only through `save`, for the machine that the instance has.
Reads for a caller of the API go through the host, which knows more; authorization has taken place before (the wire
finds an instance by account and token).
"""

from typing import Any

import msgspec

from tomada.machines.database import Database
from tomada.machines.keys import SCHEMA
from tomada.machines.session_state import WORDS, SessionState


class StoredSession(msgspec.Struct, frozen=True):
    """A session as its row says; `epoch` is that of the machine which the instance has, or had last.

    While `leaving`, an earlier machine is not removed yet, here or on the phone: it goes first.
    """

    instance_id: str
    epoch: int
    state: SessionState
    serving: bool  # its instance may be connected: its time is not over
    leaving: bool = False


COLUMNS = (
    "wanted", "condition", "reason", "phone", "lid", "push_name", "is_business", "platform", "retry_after_ms",
)  # fmt: skip
_SERVING = "i.state in ('trial', 'active', 'in_cancellation')"
# The instance's epoch grows by one when it loses its machine, and once more when it is deleted for good.
_EPOCH = f"i.epoch - case when {_SERVING} then 0 when i.state = 'deleted' then 2 else 1 end"
_LEAVING = f"""{_SERVING} and exists (select from deletion d where d.instance_id = i.id and d.finished_ms is null
    and not d.done @> '[{{"step": "erase_files"}}]')"""
_SELECT = f"""
select i.id, {_EPOCH} as epoch, {_SERVING} as serving, {_LEAVING} as leaving,
    {", ".join("s." + name for name in COLUMNS)}
from instance i"""

# An instance whose time is over is not connected again, even if its deletion has not come to its session yet.
_WANTED = f"""
{_SELECT} join session s on s.instance_id = i.id
where s.wanted and {_SERVING}
"""

# A kill between a pairing or a log-out and our note of it. What a former machine left is for its deletion.
_FOUND = f"""
{_SELECT} left join session s on s.instance_id = i.id
join {SCHEMA}.tomada_session k on k.key = i.id || '.' || ({_EPOCH})
where not coalesce(s.wanted, false) and {_SERVING}
"""

_ONE = f"{_SELECT} left join session s on s.instance_id = i.id where i.id = $1"

_IS_MACHINE = f"select {_SERVING} as serving from instance i where i.id = $1 and {_EPOCH} = $2"

# Writes nothing when nothing changed (so `changed_ms` is the time of a change), or if the instance is gone or was given
# another machine since: the row is that one's.
_SAVE = f"""
insert into session as s (instance_id, {", ".join(COLUMNS)})
select id, $3::boolean, $4, $5, $6, $7, $8, $9::boolean, $10, $11::bigint from instance i
where id = $1 and {_EPOCH} = $2
on conflict (instance_id) do update
set {", ".join(f"{name} = excluded.{name}" for name in COLUMNS)}, changed_ms = real_now_ms()
where ({", ".join("s." + name for name in COLUMNS)})
   is distinct from ({", ".join("excluded." + name for name in COLUMNS)})
"""


async def read_wanted(database: Database) -> list[StoredSession]:
    """Every paired session that should be connected."""
    return [_session(row) for row in await database.fetch(_WANTED)]


async def read_found(database: Database) -> list[StoredSession]:
    """Every session that has keys, and is not paired by what its row says."""
    return [_session(row) for row in await database.fetch(_FOUND)]


async def read_one(database: Database, instance_id: str) -> StoredSession | None:
    """The session of one instance, unpaired if it has no row yet; None if there is no such instance."""
    row = await database.fetchrow(_ONE, instance_id)
    return _session(row) if row is not None else None


async def is_machine(database: Database, instance_id: str, epoch: int, *, serving: bool = False) -> bool:
    """Whether that is the machine which the instance has, or had last; with `serving`: has."""
    row = await database.fetchrow(_IS_MACHINE, instance_id, epoch)
    return row is not None and (row["serving"] or not serving)


async def save(database: Database, instance_id: str, epoch: int, state: SessionState) -> None:
    """Bring the row into line with the state of that machine's session; idempotent."""
    await database.execute(_SAVE, instance_id, epoch, *row_of(state))


def row_of(state: SessionState) -> tuple[object, ...]:
    """The part of a state that the table keeps, in the order of COLUMNS; texts without NUL, which it would refuse."""
    values = (getattr(state, name) for name in COLUMNS)
    return tuple(value.replace("\0", "") if isinstance(value, str) else value for value in values)


def _session(row: Any) -> StoredSession:
    """A row says how things were when it was written; nothing is connected just because a row says so."""
    state = SessionState()
    if row["condition"] is not None:
        state = msgspec.convert({name: row[name] for name in COLUMNS}, SessionState)
    if state.condition in ("connected", "connecting"):
        state = msgspec.structs.replace(state, condition="disconnected", reason=WORDS["not_hosted"])
    return StoredSession(row["id"], row["epoch"], state, row["serving"], row["leaving"])
