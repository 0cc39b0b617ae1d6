"""The SQL of outgoing messages. Every read for a caller takes the account; the sender works by instance alone.

Times are epoch milliseconds of the database's real clock: pauses and retries do not follow the sandbox's clock.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec

from tomada.engine.port import Content
from tomada.postgres.group_commit import Statement
from tomada.postgres.pool import Connection, Pool


class Outgoing(msgspec.Struct, frozen=True):
    """A message in the queue. `delay_s` None = the server's default pause."""

    instance_id: str
    number: int
    zaap_id: str
    message_id: str
    chat: str
    content: Content
    delay_s: float | None
    state: str
    attempts: int
    created_ms: int
    wa_id: str | None = None  # at WhatsApp, where that is another than message_id
    settled_ms: int | None = None


class Listed(msgspec.Struct, frozen=True):
    """A message that waits, as a page of the queue shows it. `message` None: the page's room for texts was used up."""

    number: int
    zaap_id: str
    message_id: str
    chat: str
    message: str | None
    delay_s: float | None
    typing_s: float
    created_ms: int


class Dropped(msgspec.Struct, frozen=True):
    """What is told of a message that will not be sent, because its instance ended."""

    zaap_id: str
    message_id: str
    chat: str
    settled_ms: int


class Claim(msgspec.Struct, frozen=True):
    """A message was claimed. `behind`: the next one of its instance at that moment, if one was queued."""

    behind: Outgoing | None


Settled = Literal["sent", "failed"]

# Says in the transaction of its caller what became of this message.
Report = Callable[[Connection, Outgoing], Awaitable[None]]

PAGE_BYTES = 4 << 20  # of texts; the one with which they reach it is the last that a page shows

DELETED_WORDS = "The instance was deleted before this message was sent"

_COLUMNS = (
    "instance_id, number, zaap_id, message_id, chat, content, delay_s, state, attempts, created_ms, wa_id, settled_ms"
)

# Null when the queue is full, or when the instance ended after the call was authorized (`live`). The look at the
# instance takes the lock that its foreign key takes anyway: no end that is committed goes unseen, and whoever empties
# the queue then can wait for those that came before it (instances/lifecycle_store.py). The count reads the partial
# index of waiting rows only. Written again under the same ids it finds its own row, so it may be repeated after a lost
# connection.
ACCEPT = Statement(
    "accept message",
    """
    with live as (
        select from instance where id = $1 and state in ('trial', 'active', 'in_cancellation') for key share
    ), done as (
        insert into outgoing_message (instance_id, zaap_id, message_id, chat, content, delay_s)
        select $1, $2, $3, $4, $5::text::jsonb, $6
        where (select count(*) from outgoing_message
               where instance_id = $1 and state in ('queued', 'sending')) < $7
          and exists (select from live)
        on conflict do nothing
        returning number
    )
    select coalesce(
        (select number from done),
        (select number from outgoing_message where instance_id = $1 and zaap_id = $2)
    ) as number,
    exists (select from live) as live
    """,
    idempotent=True,
)

_HEAD = f"""
select {_COLUMNS} from outgoing_message
where instance_id = $1 and state in ('queued', 'sending') order by number limit 1
"""

# Conditional, so that a message removed from the queue meanwhile is not sent, and none through a machine that the
# instance has no more. The message behind it comes with it: that spares the lane a query.
_CLAIM = f"""
with claimed as (
    update outgoing_message set state = 'sending', attempts = attempts + 1
    where instance_id = $1 and number = $2 and state = 'queued'
      and exists (select from instance where id = $1 and epoch = $3)
    returning number
), behind as (
    select {_COLUMNS} from outgoing_message
    where instance_id = $1 and number > $2 and state = 'queued' order by number limit 1
)
select claimed.number as claimed, behind.* from claimed left join behind on true
"""

_GIVE_BACK = """
update outgoing_message set state = 'queued', attempts = attempts - $3
where instance_id = $1 and message_id = $2 and state = 'sending'
"""

# A second telling of the same outcome changes nothing but still returns the row; its events are recorded once.
_SETTLE = f"""
with settled as (
    update outgoing_message
    set state = $3, error = $4, settled_ms = real_now_ms()
    where instance_id = $1 and message_id = $2 and state in ('queued', 'sending')
    returning {_COLUMNS}
)
select {_COLUMNS} from settled
union all
select {_COLUMNS} from outgoing_message
where instance_id = $1 and message_id = $2 and state = $3 and not exists (select 1 from settled)
"""

# Of a version whose ids were WhatsApp's choice: where that differs from the one that was told, it is kept beside it.
_TOOK_OLD_ID = """
update outgoing_message set wa_id = coalesce(wa_id, nullif($3, message_id))
where instance_id = $1 and zaap_id = $2 returning message_id
"""
_SURELY_UNSENT = """
update outgoing_message set state = 'queued', attempts = 0
where instance_id = $1 and message_id = $2 and state in ('queued', 'sending')
"""

# Before its messages, as everybody does who writes both: the lifecycle, and whoever records events.
_LOCK_INSTANCE = "select from instance where id = $1 for no key update"

# Sessions opened anew: whatever was under way has no living holder any more.
_REQUEUE_UNKNOWN = """
update outgoing_message set state = 'queued' where instance_id = $1 and state = 'sending' returning message_id
"""

_WAITING_INSTANCES = """
select distinct instance_id from outgoing_message where state in ('queued', 'sending')
"""

# Messages that an older version sent under ids of WhatsApp's own choice. The index knows them alone.
_OLD_IDS = "select wa_id, message_id from outgoing_message where instance_id = $1 and wa_id = any($2::text[])"
_WITH_OLD_IDS = "select distinct instance_id from outgoing_message where wa_id is not null"

_BY_MESSAGE_ID = f"select {_COLUMNS} from outgoing_message where instance_id = $1 and message_id = $2"

_PAGE = """
select number, zaap_id, message_id, chat,
    case when coalesce(sum(octet_length(content->>'message')) over before, 0) < $6 then content->>'message' end
        as message,
    delay_s, coalesce((content->>'typing_s')::float8, 0) as typing_s, created_ms
from (
    select * from outgoing_message
    where instance_id = $1 and state in ('queued', 'sending') and number > $3
      and exists (select 1 from instance i where i.id = $1 and i.account_id = $2)
    order by number offset $4 limit $5
) m
window before as (order by number rows between unbounded preceding and 1 preceding)
order by number
"""

_COUNT = """
select count(*) from outgoing_message m
where instance_id = $1 and state in ('queued', 'sending')
  and exists (select 1 from instance i where i.id = $1 and i.account_id = $2)
"""

# One that is being sent cannot be taken back any more, so it stays.
_CANCEL = """
update outgoing_message set state = 'cancelled', settled_ms = real_now_ms()
where instance_id = $1 and state = 'queued' and ($3::text is null or zaap_id = $3 or message_id = $3)
  and exists (select 1 from instance i where i.id = $1 and i.account_id = $2)
returning zaap_id
"""

_FAIL_ALL = """
with failed as (
    update outgoing_message set state = 'failed', error = $2, settled_ms = real_now_ms()
    where instance_id = $1 and state in ('queued', 'sending') returning number, zaap_id, message_id, chat, settled_ms
)
select zaap_id, message_id, chat, settled_ms from failed order by number
"""


async def fail_all(connection: Connection, instance_id: str, error: str) -> list[Dropped]:
    """In the caller's transaction: nothing of what waits will be sent; returns it in order, to be reported."""
    return [Dropped(*row) for row in await connection.fetch(_FAIL_ALL, instance_id, error)]


_decode_content = msgspec.json.Decoder(Content).decode


def _outgoing(row: Any) -> Outgoing:
    fields = {name: row[name] for name in Outgoing.__struct_fields__}
    return Outgoing(**fields | {"content": _decode_content(row["content"])})


class MessageStore:
    """Outgoing messages in PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def head(self, instance_id: str) -> Outgoing | None:
        """The oldest message that is not settled."""
        row = await self._pool.fetchrow(_HEAD, instance_id)
        return _outgoing(row) if row else None

    async def claim(self, message: Outgoing, epoch: int) -> Claim | None:
        """Commit that this message is now given to the engine of the machine with this epoch.

        None if it was removed meanwhile, or that is not the instance's machine any more.
        """
        row = await self._pool.fetchrow(_CLAIM, message.instance_id, message.number, epoch)
        return Claim(_outgoing(row) if row["number"] is not None else None) if row else None

    async def give_back(self, instance_id: str, message_id: str, *, counted: bool) -> None:
        """Back to the head of the queue. `counted` False: the machine never took it, so it was no attempt."""
        await self._pool.execute(_GIVE_BACK, instance_id, message_id, 0 if counted else 1)

    async def settle(
        self, instance_id: str, message_id: str, state: Settled, error: str | None, report: Report
    ) -> None:
        """Its outcome, and that it is reported, in one transaction: nobody tells of it a second time.

        Idempotent. Nothing if it was settled otherwise, or is gone with its instance.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(_LOCK_INSTANCE, instance_id)
            row = await connection.fetchrow(_SETTLE, instance_id, message_id, state, error)
            if row:
                await report(connection, _outgoing(row))

    async def requeue_unknown(self, instance_id: str) -> list[str]:
        """Messages whose outcome no machine can tell any more go back to the queue; returns their ids."""
        return [row["message_id"] for row in await self._pool.fetch(_REQUEUE_UNKNOWN, instance_id)]

    async def waiting_instances(self) -> list[str]:
        """Instances with unsettled messages."""
        return [row["instance_id"] for row in await self._pool.fetch(_WAITING_INSTANCES)]

    async def with_old_ids(self) -> set[str]:
        """Instances with messages whose id at WhatsApp is not the one that was told."""
        return {row["instance_id"] for row in await self._pool.fetch(_WITH_OLD_IDS)}

    async def old_ids(self, instance_id: str, wa_ids: tuple[str, ...]) -> dict[str, str]:
        """WhatsApp's id -> the one that was told, for those of these where they differ."""
        return {row["wa_id"]: row["message_id"] for row in await self._pool.fetch(_OLD_IDS, instance_id, list(wa_ids))}

    async def took_old_id(self, instance_id: str, zaap_id: str, wa_id: str | None) -> str | None:
        """Note under which id an older version sent a message; the id that was told, None if there is none."""
        told: str | None = await self._pool.fetchval(_TOOK_OLD_ID, instance_id, zaap_id, wa_id)
        return told

    async def surely_unsent(self, instance_id: str, message_id: str) -> None:
        """Back to the queue as if it had never been tried."""
        await self._pool.execute(_SURELY_UNSENT, instance_id, message_id)

    async def by_message_id(self, instance_id: str, message_id: str) -> Outgoing | None:
        """The message that the wire shows under this id."""
        row = await self._pool.fetchrow(_BY_MESSAGE_ID, instance_id, message_id)
        return _outgoing(row) if row else None

    async def page(
        self, account_id: str, instance_id: str, size: int, *, after_number: int = 0, skip: int = 0
    ) -> list[Listed]:
        """Waiting messages in order, after a number, without the first `skip`; texts up to PAGE_BYTES in all."""
        rows = await self._pool.fetch(_PAGE, instance_id, account_id, after_number, skip, size, PAGE_BYTES)
        return [Listed(**dict(row)) for row in rows]

    async def count(self, account_id: str, instance_id: str) -> int:
        """How many messages wait."""
        return int(await self._pool.fetchval(_COUNT, instance_id, account_id))

    async def cancel(self, account_id: str, instance_id: str, either_id: str | None) -> list[str]:
        """Remove one waiting message, by zaap id or message id, or (None) all of them; the removed zaap ids."""
        return [row["zaap_id"] for row in await self._pool.fetch(_CANCEL, instance_id, account_id, either_id)]
