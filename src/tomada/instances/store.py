"""The SQL of instances. Every statement on behalf of a tenant takes the account; `AUTHORIZE` is what finds the account.

Times are those of the lifecycle's clock (`lifecycle_now_ms()`), in epoch milliseconds.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from tomada.instances.model import Instance
from tomada.postgres.group_commit import Statement
from tomada.postgres.pool import Pool

# The session belongs to the machines; its condition is read here so that a call costs one round trip.
_COMPUTED = {
    # lifecycle.check_serves says the same; tests/integration/lifecycle/test_shown.py compares them.
    "overdue": "(i.suspended_until_ms is not null"
    " or (i.state in ('trial', 'in_cancellation') and i.due_ms <= lifecycle_now_ms()))",
    "condition": "coalesce(s.condition, 'unpaired')",
    "phone": "s.phone",
}
_COLUMNS = ", ".join(
    f"{_COMPUTED[name]} as {name}" if name in _COMPUTED else f"i.{name}" for name in Instance.__struct_fields__
)
_FROM = "from instance i left join session s on s.instance_id = i.id"

# One statement, so that it can share a transaction with others (group commit) and be repeated after a broken
# connection: a row that is there already is given back and not counted twice. Null: refused, with the reason.
# How many there are holds in a race, by the account's row; how many were created in 24 hours, deleted ones included,
# may be exceeded by as many as are created at the same moment.
CREATE = Statement(
    "create instance",
    """
with already as (
    select due_ms from instance where id = $1
), clock as (
    select lifecycle_now_ms() as now_ms
), room as (
    update account set instances_live = instances_live + 1
    where id = $2 and instances_live < instances_max and suspended_until_ms is null
      and not exists (select 1 from already)
      and case when created_per_day_max is null then true else created_per_day_max > (
          select count(*) from instance, clock where account_id = $2 and created_ms > now_ms - 86400000) end
    returning id
), made as (
    insert into instance (id, account_id, token_hash, token_sealed, created_ms, due_ms, name, session_name,
        delivery_callback_url, received_callback_url, received_and_delivery_callback_url, disconnected_callback_url,
        connected_callback_url, message_status_callback_url, presence_chat_callback_url, notify_sent_by_me,
        call_reject_auto, call_reject_message, auto_read_message, auto_read_status, is_device, business_device,
        enqueue_when_disconnected)
    select $1, $2, $3, $4, now_ms, now_ms + $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,
        $10::text is not null, $15, $16, $17, $18, $19, $20, $21
    from room, clock
    returning due_ms
)
select coalesce((select due_ms from made), (select due_ms from already)) as due_ms,
    case when not exists (select 1 from made) then (
        select case when suspended_until_ms is not null then 'suspended' when instances_live >= instances_max
            then 'instances' else 'day' end from account where id = $2) end as refused
""",
    idempotent=True,
)

# By id alone: the token's hash is compared by the caller, so that a wrong id and a wrong token look the same.
_AUTHORIZE = f"""
select i.token_hash, a.client_token_hash, a.messages_per_minute_max, {_COLUMNS}
{_FROM} join account a on a.id = i.account_id
where i.id = $1 and i.state <> 'deleted'
"""

_SESSION_NAME = "select session_name from instance where id = $1"

_MATCHES = """
i.account_id = $1 and i.state <> 'deleted'
  and ($2::text is null or i.id = upper($2) or strpos(lower(i.name), lower($2)) > 0)
  and ($3::boolean is null or i.is_device = $3)
"""
_COUNT = f"select count(*) from instance i where {_MATCHES}"
# Oldest first: whoever walks the pages while instances are created sees each of them once.
_PAGE = f"""
select i.token_sealed, {_COLUMNS} {_FROM}
where {_MATCHES} order by i.created_ms, i.id desc limit $4 offset $5
"""

_SETTABLE = frozenset(Instance.__struct_fields__) - {"id", "account_id", "state", "created_ms", "due_ms", *_COMPUTED}


class Found(msgspec.Struct, frozen=True):
    """An instance with what its caller's credentials are compared with, and its account's limit (None: none)."""

    instance: Instance
    token_hash: bytes
    client_token_hash: bytes | None
    messages_per_minute_max: int | None


class InstanceStore:
    """Instances in PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find(self, instance_id: str) -> Found | None:
        """An instance that is not deleted, by id, for authorization only."""
        row = await self._pool.fetchrow(_AUTHORIZE, instance_id)
        if row is None:
            return None
        return Found(_instance(row), row["token_hash"], row["client_token_hash"], row["messages_per_minute_max"])

    async def session_name(self, instance_id: str) -> str | None:
        """What the phone shows of an instance, for its host; deleted ones included (a tombstone's is empty)."""
        name: str | None = await self._pool.fetchval(_SESSION_NAME, instance_id)
        return name

    async def count(self, account_id: str, query: str | None, is_device: bool | None) -> int:
        """How many of the account's instances match (name part or whole id; kind)."""
        return int(await self._pool.fetchval(_COUNT, account_id, query, is_device))

    async def page(
        self, account_id: str, query: str | None, is_device: bool | None, size: int, offset: int
    ) -> list[tuple[Instance, bytes]]:
        """Matching instances, oldest first, each with its sealed token."""
        rows = await self._pool.fetch(_PAGE, account_id, query, is_device, size, offset)
        return [(_instance(row), row["token_sealed"]) for row in rows]

    async def update(self, account_id: str, instance_id: str, values: Mapping[str, object]) -> bool:
        """Set columns of one instance; False if it is gone. Names are checked against the settable ones."""
        unknown = set(values) - _SETTABLE
        if unknown:
            raise ValueError(f"not settable: {sorted(unknown)}")
        assignments = ", ".join(f"{name} = ${number}" for number, name in enumerate(values, start=3))
        statement = (
            f"update instance set {assignments} where id = $1 and account_id = $2 and state <> 'deleted' returning id"
        )
        return await self._pool.fetchval(statement, instance_id, account_id, *values.values()) is not None


def _instance(row: Any) -> Instance:
    return Instance(**{name: row[name] for name in Instance.__struct_fields__})
