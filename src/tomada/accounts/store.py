"""The SQL of accounts."""

from typing import Any

import msgspec

from tomada.accounts.model import Account
from tomada.postgres.pool import Pool

_COLUMNS = "id, name, created_ms, instances_max, instances_live, client_token_hash is not null as has_client_token"

_INSERT = """
insert into account (id, name, partner_token_hash, partner_token_sealed, client_token_hash, client_token_sealed,
                     signing_secret_sealed, instances_max)
values ($1, $2, $3, $4, $5, $6, $7, $8)
"""

# The account of the first start. The lock makes two nodes that start at once see each other's row.
_INSERT_FIRST = """
insert into account (id, name, partner_token_hash, partner_token_sealed, client_token_hash, client_token_sealed,
                     signing_secret_sealed, instances_max)
select $1, $2, $3, $4, $5, $6, $7, $8 where not exists (select 1 from account)
returning id
"""
_LOCK_ACCOUNTS = "lock table account in share row exclusive mode"

_LIST = f"select {_COLUMNS} from account order by created_ms, id"

# A partner token beats a Client-Token, should the two belong to different accounts.
_BY_CREDENTIAL = f"""
select {_COLUMNS} from account
where partner_token_hash = $1 or client_token_hash = $2
order by partner_token_hash = $1 desc nulls last limit 1
"""

_ROTATE = "update account set partner_token_hash = $2, partner_token_sealed = $3 where id = $1 returning id"


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


def _account(row: Any) -> Account:
    return Account(**row)


class AccountStore:
    """Accounts in PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def insert(self, row: NewAccountRow) -> None:
        """Add an account."""
        await self._pool.execute(_INSERT, *msgspec.structs.astuple(row))

    async def insert_first(self, row: NewAccountRow) -> bool:
        """Add an account if there is none at all; False if there is one."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(_LOCK_ACCOUNTS)
            return await connection.fetchval(_INSERT_FIRST, *msgspec.structs.astuple(row)) is not None

    async def list(self) -> list[Account]:
        """Every account, oldest first."""
        return [_account(row) for row in await self._pool.fetch(_LIST)]

    async def by_credential(self, partner_token_hash: bytes | None, client_token_hash: bytes | None) -> Account | None:
        """The account that one of these hashes belongs to."""
        row = await self._pool.fetchrow(_BY_CREDENTIAL, partner_token_hash, client_token_hash)
        return _account(row) if row else None

    async def rotate(self, account_id: str, token_hash: bytes, token_sealed: bytes) -> bool:
        """Replace the partner token; False if there is no such account."""
        return await self._pool.fetchval(_ROTATE, account_id, token_hash, token_sealed) is not None
