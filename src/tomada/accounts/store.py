"""The SQL of accounts. Every change and its entry in the account's audit log are one transaction."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from tomada.accounts import audit
from tomada.accounts.model import Account
from tomada.errors import AccountNotFound
from tomada.postgres.pool import Connection, Pool

_COMPUTED = {
    "has_client_token": "client_token_hash is not null",
    "previous_token_until_ms": "case when previous_token_until_ms > real_now_ms() then previous_token_until_ms end",
}
_COLUMNS = ", ".join(
    f"{_COMPUTED[name]} as {name}" if name in _COMPUTED else name for name in Account.__struct_fields__
)

_INSERT = """
insert into account (id, name, partner_token_hash, partner_token_sealed, client_token_hash, client_token_sealed,
                     signing_secret_sealed, instances_max)
values ($1, $2, $3, $4, $5, $6, $7, $8)
"""

# The account of the first start. The lock makes two nodes that start at once see each other's row.
_LOCK_ACCOUNTS = "lock table account in share row exclusive mode"
_ANY = "select exists (select 1 from account)"

_LIST = f"select {_COLUMNS} from account order by created_ms, id"

# A partner token beats a Client-Token, should the two belong to different accounts.
_BY_CREDENTIAL = f"""
select {_COLUMNS} from account
where partner_token_hash = $1 or client_token_hash = $2
   or (previous_token_hash = $1 and previous_token_until_ms > real_now_ms())
order by (partner_token_hash = $1 or previous_token_hash = $1) desc nulls last limit 1
"""

# With an overlap the present token becomes the previous one; whichever was the previous one ends.
_ROTATE = """
update account
set previous_token_hash = case when $4::bigint > 0 then partner_token_hash end,
    previous_token_until_ms = case when $4::bigint > 0 then real_now_ms() + $4::bigint end,
    partner_token_hash = $2, partner_token_sealed = $3
where id = $1 returning previous_token_until_ms
"""
_END_PREVIOUS = """
update account set previous_token_hash = null, previous_token_until_ms = null where id = $1 returning 1
"""

_LOCK_SECRETS = """
select signing_secret_sealed, client_token_sealed, real_now_ms() as now_ms from account where id = $1
for no key update
"""
_SET_SIGNING = "update account set signing_secret_sealed = $2 where id = $1"
_SET_CLIENT = "update account set client_token_hash = $2, client_token_sealed = $3 where id = $1"

# Any will do: all are sealed with the same key.
_ONE_SEALED = "select id, partner_token_sealed from account limit 1"

_LIMITS = frozenset({"instances_max", "created_per_day_max", "messages_per_minute_max"})


class NewAccountRow(msgspec.Struct, frozen=True):
    """A row to insert, in the order of the columns above."""

    id: str
    name: str
    partner_token_hash: bytes
    partner_token_sealed: bytes
    client_token_hash: bytes | None
    client_token_sealed: bytes | None
    signing_secret_sealed: bytes
    instances_max: int


class AccountStore:
    """Accounts in PostgreSQL. `actor` is who shall stand in the audit log. Changes raise NotFound."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def insert(self, row: NewAccountRow, actor: str) -> None:
        """Add an account."""
        async with self._pool.acquire() as connection, connection.transaction():
            await _insert(connection, row, actor)

    async def insert_first(self, row: NewAccountRow, actor: str) -> bool:
        """Add an account if there is none at all; False if there is one."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(_LOCK_ACCOUNTS)
            if await connection.fetchval(_ANY):
                return False
            await _insert(connection, row, actor)
        return True

    async def list(self) -> list[Account]:
        """Every account, oldest first."""
        return [Account(**row) for row in await self._pool.fetch(_LIST)]

    async def one_sealed(self) -> tuple[str, bytes] | None:
        """Some account's id and sealed partner token; None without accounts."""
        row = await self._pool.fetchrow(_ONE_SEALED)
        return (row["id"], row["partner_token_sealed"]) if row else None

    async def by_credential(self, partner_token_hash: bytes | None, client_token_hash: bytes | None) -> Account | None:
        """The account that one of these hashes belongs to."""
        row = await self._pool.fetchrow(_BY_CREDENTIAL, partner_token_hash, client_token_hash)
        return Account(**row) if row else None

    async def set_limits(self, account_id: str, values: Mapping[str, int | None], actor: str) -> Account:
        """Set some limits; returns the account as it is then."""
        if not values or set(values) - _LIMITS:
            raise ValueError(f"not limits: {sorted(values)}")
        assignments = ", ".join(f"{name} = ${number}" for number, name in enumerate(values, start=2))
        statement = f"update account set {assignments} where id = $1 returning {_COLUMNS}"
        async with self._pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(statement, account_id, *values.values())
            await _log(connection, row, account_id, actor, "limits_set", dict(values))
        assert row is not None
        return Account(**row)

    async def rotate_token(
        self, account_id: str, token_hash: bytes, token_sealed: bytes, overlap_ms: int, actor: str
    ) -> int | None:
        """Replace the partner token; returns until when the one before works too."""
        async with self._pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(_ROTATE, account_id, token_hash, token_sealed, overlap_ms)
            until_ms: int | None = row["previous_token_until_ms"] if row else None
            await _log(connection, row, account_id, actor, "partner_token_rotated", {"previousUntil": until_ms})
        return until_ms

    async def change_signing_secret(
        self, account_id: str, change: Callable[[bytes, int], bytes], actor: str, action: str, detail: object
    ) -> None:
        """Replace the sealed secrets by what `change` makes of them and of the (real) time."""
        async with self._pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(_LOCK_SECRETS, account_id)
            if row is not None:
                sealed = change(row["signing_secret_sealed"], row["now_ms"])
                await connection.execute(_SET_SIGNING, account_id, sealed)
            await _log(connection, row, account_id, actor, action, detail)

    async def end_previous_token(self, account_id: str, actor: str) -> None:
        """The partner token from before the latest rotation ends now."""
        async with self._pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(_END_PREVIOUS, account_id)
            await _log(connection, row, account_id, actor, "previous_partner_token_ended")

    async def set_client_token(
        self, account_id: str, hash_and_sealed: tuple[bytes, bytes] | None, actor: str
    ) -> bytes | None:
        """Switch the Client-Token on (if it is on already, the present one stays) or off (None); returns it sealed."""
        token_hash, token_sealed = hash_and_sealed or (None, None)
        async with self._pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(_LOCK_SECRETS, account_id)
            present: bytes | None = row["client_token_sealed"] if row else None
            if row is None or (present is None) != (token_sealed is None):
                await connection.execute(_SET_CLIENT, account_id, token_hash, token_sealed)
                action = "client_token_off" if token_hash is None else "client_token_on"
                await _log(connection, row, account_id, actor, action)
                present = token_sealed
        return present


async def _insert(connection: Connection, row: NewAccountRow, actor: str) -> None:
    await connection.execute(_INSERT, *msgspec.structs.astuple(row))
    await audit.append(connection, row.id, actor, audit.CREATED, row.id, {"instances_max": row.instances_max})


async def _log(
    connection: Connection, found: Any, account_id: str, actor: str, action: str, detail: object = None
) -> None:
    """The last statement of a change. Raises NotFound if its first one found no account."""
    if found is None:
        raise AccountNotFound
    await audit.append(connection, account_id, actor, action, account_id, detail)
