"""What the command line does to accounts, beside a running server or without one.

With the embedded database the server holds it while it runs and leaves its address in the data directory; a command
uses that address if somebody answers there, and starts the database for itself otherwise.
"""

import contextlib
from collections.abc import AsyncIterator, Callable

import asyncpg

from tomada.accounts import audit, manage
from tomada.accounts.model import INSTANCES_MAX_DEFAULT
from tomada.accounts.store import AccountStore
from tomada.errors import DatabaseUnavailable
from tomada.kit.sealing import Sealer, load_key
from tomada.postgres.launcher import embedded_server
from tomada.postgres.migrate import migrate
from tomada.postgres.pool import Pool, connect
from tomada.settings import Settings

ADDRESS_FILE = "database.address"  # written by a server that runs the embedded database; holds no secret

Out = Callable[[object], None]


def sealer_of(settings: Settings) -> Sealer:
    """The sealer with this installation's key."""
    settings.data_path.mkdir(parents=True, exist_ok=True, mode=0o711)
    key = bytes.fromhex(settings.secret_key) if settings.secret_key else load_key(settings.data_path / "secret.key")
    return Sealer(key)


def _address(settings: Settings) -> str:
    try:
        return (settings.data_path / ADDRESS_FILE).read_text()
    except FileNotFoundError:
        return ""


async def _answers(dsn: str) -> bool:
    try:
        connection = await asyncpg.connect(dsn, timeout=5)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    await connection.close()
    return True


@contextlib.asynccontextmanager
async def database(settings: Settings) -> AsyncIterator[str]:
    """The migrated database's address: external, a running server's, or started for this block."""
    if settings.database_url:
        await migrate(settings.database_url)
        yield settings.database_url
        return
    dsn = _address(settings)
    if dsn and await _answers(dsn):
        yield dsn
        return
    async with embedded_server(settings.data_path / "postgres") as server:
        await migrate(server.dsn)
        yield server.dsn


@contextlib.asynccontextmanager
async def _pool(settings: Settings) -> AsyncIterator[Pool]:
    async with database(settings) as dsn:
        pool = await connect(dsn, size_max=2)
        try:
            yield pool
        finally:
            with contextlib.suppress(DatabaseUnavailable):
                await pool.close()


async def create_account(settings: Settings, name: str, limit: int | None, client_token: bool, out: Out) -> int:
    """`tomada accounts create`."""
    async with _pool(settings) as pool:
        made = await manage.create(
            AccountStore(pool),
            sealer_of(settings),
            name,
            instances_max=INSTANCES_MAX_DEFAULT if limit is None else limit,
            with_client_token=client_token,
        )
    out({"id": made.id, "name": made.name, "partnerToken": made.partner_token, "clientToken": made.client_token})
    return 0


async def list_accounts(settings: Settings, out: Out) -> int:
    """`tomada accounts list`."""
    async with _pool(settings) as pool:
        for account in await manage.list_accounts(AccountStore(pool)):
            out({"id": account.id, "name": account.name, "limit": account.instances_max})
    return 0


async def rotate_token(settings: Settings, account_id: str, out: Out) -> int:
    """`tomada accounts rotate-token`."""
    async with _pool(settings) as pool:
        token = await manage.rotate_partner_token(AccountStore(pool), sealer_of(settings), account_id)
    out({"id": account_id, "partnerToken": token})
    return 0


async def verify_audit(settings: Settings, out: Out) -> int:
    """`tomada audit verify`: a line per account; 0 if every chain holds, 1 if not."""
    broken = 0
    async with _pool(settings) as pool:
        for account in await manage.list_accounts(AccountStore(pool)):
            verdict = await audit.verify(pool, account.id)
            broken += bool(verdict.wrong)
            out({"id": account.id, "rows": verdict.rows, "head": verdict.head, "wrong": verdict.wrong})
    return 1 if broken else 0
