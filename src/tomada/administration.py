"""What the command line does to accounts, beside a running server or without one.

With the embedded database the server holds it while it runs and leaves its address in the data directory; a command
uses that address if somebody answers there, and starts the database for itself otherwise.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple

import asyncpg

from tomada.accounts import audit, manage
from tomada.accounts.model import INSTANCES_MAX_DEFAULT, Account
from tomada.accounts.store import AccountStore
from tomada.adapters import LifecycleNeighbours
from tomada.errors import DatabaseUnavailable
from tomada.instances.lifecycle_store import PostgresLifecycle
from tomada.kit.sealing import Sealer
from tomada.postgres.launcher import embedded_server
from tomada.postgres.pool import Pool, connect
from tomada.preconditions import data_directory, migrated, sealer_of
from tomada.settings import Settings

ADDRESS_FILE = "database.address"  # written by a server that runs the embedded database; holds no secret
ACTOR = "cli"  # in the audit log

Out = Callable[[object], None]


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
        yield await migrated(settings.database_url)
        return
    folder = data_directory(settings)
    dsn = _address(settings)
    if dsn and await _answers(dsn):
        yield dsn
        return
    async with embedded_server(folder / "postgres") as server:
        yield await migrated(server.dsn)


@contextlib.asynccontextmanager
async def _pool(settings: Settings) -> AsyncIterator[Pool]:
    async with database(settings) as dsn:
        pool = await connect(dsn, size_max=2)
        try:
            yield pool
        finally:
            with contextlib.suppress(DatabaseUnavailable):
                await pool.close()


class Accounts(NamedTuple):
    """What the commands on accounts stand on."""

    pool: Pool
    store: AccountStore
    sealer: Sealer


@contextlib.asynccontextmanager
async def _accounts(settings: Settings) -> AsyncIterator[Accounts]:
    async with _pool(settings) as pool:
        yield Accounts(pool, AccountStore(pool), await sealer_of(settings, pool))


async def create_account(settings: Settings, name: str, limit: int | None, client_token: bool, out: Out) -> int:
    """`tomada accounts create`."""
    async with _accounts(settings) as accounts:
        made = await manage.create(
            accounts.store,
            accounts.sealer,
            name,
            instances_max=INSTANCES_MAX_DEFAULT if limit is None else limit,
            with_client_token=client_token,
            actor=ACTOR,
        )
    out(
        {
            "id": made.id,
            "name": made.name,
            "partnerToken": made.partner_token,
            "clientToken": made.client_token,
            "signingSecret": made.signing_secret,
        }
    )
    return 0


async def list_accounts(settings: Settings, out: Out) -> int:
    """`tomada accounts list`."""
    async with _accounts(settings) as accounts:
        for account in await manage.list_accounts(accounts.store):
            out(_shown(account))
    return 0


async def set_limits(settings: Settings, account_id: str, limits: dict[str, int | None], out: Out) -> int:
    """`tomada accounts limits`."""
    async with _accounts(settings) as accounts:
        out(_shown(await manage.set_limits(accounts.store, account_id, limits, ACTOR)))
    return 0


async def rotate_token(settings: Settings, account_id: str, overlap_hours: float, out: Out) -> int:
    """`tomada accounts rotate-token`."""
    async with _accounts(settings) as accounts:
        made = await manage.rotate_partner_token(
            accounts.store, accounts.sealer, account_id, overlap_hours=overlap_hours, actor=ACTOR
        )
    out({"id": account_id, "partnerToken": made.secret, "previousUntilMs": made.previous_until_ms})
    return 0


async def rotate_signing_secret(settings: Settings, account_id: str, overlap_hours: float, out: Out) -> int:
    """`tomada accounts rotate-signing-secret`."""
    async with _accounts(settings) as accounts:
        made = await manage.rotate_signing_secret(
            accounts.store, accounts.sealer, account_id, overlap_hours=overlap_hours, actor=ACTOR
        )
    out({"id": account_id, "signingSecret": made.secret, "previousUntilMs": made.previous_until_ms})
    return 0


async def end_overlap(settings: Settings, account_id: str, out: Out) -> int:
    """`tomada accounts end-overlap`."""
    async with _accounts(settings) as accounts:
        await manage.end_overlap(accounts.store, accounts.sealer, account_id, actor=ACTOR)
    out({"id": account_id})
    return 0


async def set_client_token(settings: Settings, account_id: str, on: bool, out: Out) -> int:
    """`tomada accounts client-token`."""
    async with _accounts(settings) as accounts:
        token = await manage.set_client_token(accounts.store, accounts.sealer, account_id, on=on, actor=ACTOR)
    out({"id": account_id, "clientToken": token})
    return 0


async def suspend(settings: Settings, account_id: str, days: float | None, out: Out) -> int:
    """`tomada accounts suspend`. A running server notices by itself: calls at once, the end within seconds."""
    async with _accounts(settings) as accounts:
        lifecycle = PostgresLifecycle(accounts.pool, LifecycleNeighbours())
        days = settings.suspension_days if days is None else days
        out({"id": account_id, "untilMs": await lifecycle.suspend(account_id, days, ACTOR)})
    return 0


async def resume(settings: Settings, account_id: str, out: Out) -> int:
    """`tomada accounts resume`."""
    async with _accounts(settings) as accounts:
        await PostgresLifecycle(accounts.pool, LifecycleNeighbours()).resume(account_id, ACTOR)
    out({"id": account_id, "untilMs": None})
    return 0


def _shown(account: Account) -> dict[str, object]:
    return {
        "id": account.id,
        "name": account.name,
        "limit": account.instances_max,
        "instances": account.instances_live,
        "createdPerDayMax": account.created_per_day_max,
        "messagesPerMinuteMax": account.messages_per_minute_max,
        "clientToken": account.has_client_token,
        "suspendedUntilMs": account.suspended_until_ms,
        "previousTokenUntilMs": account.previous_token_until_ms,
    }


async def verify_audit(settings: Settings, noted: Sequence[bytes], out: Out) -> int:
    """`tomada audit verify`: a line per account, and per head noted earlier that is in no log; 0 if all is well."""
    async with _pool(settings) as pool:
        verdicts = await audit.verify_all(pool)
        unknown = await audit.unknown(pool, noted)
    for account_id, verdict in verdicts.items():
        out({"id": account_id, "rows": verdict.rows, "head": verdict.head, "wrong": verdict.wrong})
    for hashed in unknown:
        out({"noted": hashed.hex(), "wrong": "no log has a row with this hash any more"})
    return 1 if unknown or any(verdict.wrong for verdict in verdicts.values()) else 0
