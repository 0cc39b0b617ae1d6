"""Idempotency keys: a create that is sent twice with the same key makes one instance, whatever crashed in between.

    claim      the key is noted, in a transaction of its own, before anything else
    complete   inside the transaction that creates the instance: the reply is kept, and the claim must still hold
    release    the request was refused (bad body, limit reached): nothing is kept, the key is free

Someone who comes with the same key and another request is refused; while the first is at work, a second one is told so
(409). If the first died, its claim is over after CLAIM_S: then a second one takes the key, and should the first wake
after all, its complete() finds the claim lost and its transaction, instance included, rolls back.

Keys are kept for KEEP_H hours of real time after they were claimed.
"""

import hashlib

from msgspec import Struct

from tomada.errors import Conflict, Refused
from tomada.postgres.pool import Connection, Pool, rows_changed

CLAIM_S = 60
KEEP_H = 48

# A new key is claimed, and so is one whose claim is over without a reply. Otherwise no row.
_CLAIM = """
insert into idempotency as kept (account_id, key, request_hash) values ($1, $2, $3)
on conflict (account_id, key) do update set claim = kept.claim + 1, claimed_ms = real_now_ms()
where kept.completed_ms is null and kept.request_hash = excluded.request_hash
  and kept.claimed_ms < real_now_ms() - $4
returning claim
"""

_KEPT = "select request_hash, reply_sealed from idempotency where account_id = $1 and key = $2"

_COMPLETE = """
update idempotency set completed_ms = real_now_ms(), reply_sealed = $4
where account_id = $1 and key = $2 and claim = $3 and completed_ms is null
"""

_RELEASE = "delete from idempotency where account_id = $1 and key = $2 and claim = $3 and completed_ms is null"

_PURGE = "delete from idempotency where claimed_ms < real_now_ms() - $1"


class Claim(Struct, frozen=True):
    """The right to answer the request with this key."""

    account_id: str
    key: str
    number: int


class Replay(Struct, frozen=True):
    """The request was answered before; the reply as it was sealed then."""

    reply_sealed: bytes


def request_hash(method: str, path: str, body: bytes) -> bytes:
    """What makes two requests the same."""
    return hashlib.sha256(b"\0".join((method.encode(), path.encode(), body))).digest()


async def claim(pool: Pool, account_id: str, key: str, hashed: bytes) -> Claim | Replay:
    """The right to answer, or the answer that was given.

    Raises Refused if the key was used for another request, Conflict while the first one is being answered.
    """
    number = await pool.fetchval(_CLAIM, account_id, key, hashed, CLAIM_S * 1000)
    if number is not None:
        return Claim(account_id, key, number)
    kept = await pool.fetchrow(_KEPT, account_id, key)
    if kept is None:  # it was released in between
        raise Conflict
    if bytes(kept["request_hash"]) != hashed:
        raise Refused("This Idempotency-Key was used for another request")
    if kept["reply_sealed"] is None:
        raise Conflict
    return Replay(bytes(kept["reply_sealed"]))


async def complete(connection: Connection, held: Claim, reply_sealed: bytes) -> None:
    """Keeps the reply, within the transaction that does the work. Raises Conflict if the claim was lost: roll back."""
    status = await connection.execute(_COMPLETE, held.account_id, held.key, held.number, reply_sealed)
    if status != "UPDATE 1":
        raise Conflict


async def release(pool: Pool, held: Claim) -> None:
    """Frees the key of a request that was refused. Harmless if the claim was lost."""
    await pool.execute(_RELEASE, held.account_id, held.key, held.number)


async def purge(pool: Pool) -> int:
    """Forgets keys older than KEEP_H hours; returns how many."""
    return rows_changed(await pool.execute(_PURGE, KEEP_H * 3_600_000))
