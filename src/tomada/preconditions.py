"""What must be right before any command begins: data directory, key, database. What is not is said in one line.

Each function raises SettingsError with the setting's name and what to do; the command line prints it and ends with
status 1. A defect of ours still shows its traceback.
"""

import os
import secrets
from pathlib import Path

import asyncpg

from tomada.accounts import manage
from tomada.accounts.store import AccountStore
from tomada.kit.sealing import KEY_BYTES, Sealer, load_key
from tomada.postgres.errors import SchemaRefused
from tomada.postgres.migrate import migrate
from tomada.postgres.pool import Pool
from tomada.settings import Settings, SettingsError

_NETWORKS = {"sandbox": "the sandbox (--sandbox)", "whatsapp": "the real WhatsApp (without --sandbox)"}
_KEY_ELSEWHERE = (
    "the accounts in this database were sealed with another key. Put the file secret.key (or TOMADA_SECRET_KEY) of the "
    "backup back; without it no token can be read again (docs/operating.md)"
)


def data_directory(settings: Settings) -> Path:
    """The data directory, made if need be (0711: PostgreSQL's account may have to pass through)."""
    path = settings.data_path
    try:
        if not path.exists():
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o711)
        if not path.is_dir():
            raise SettingsError(f"TOMADA_DATA_DIR: {path} is not a directory")
    except OSError as error:
        raise SettingsError(f"TOMADA_DATA_DIR: {path} cannot be made: {error.strerror}") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise SettingsError(f"TOMADA_DATA_DIR: {path} cannot be written to by uid {os.geteuid()}")
    return path


def one_network(settings: Settings) -> None:
    """A data directory serves WhatsApp or the sandbox, never both in turn.

    A session that logs in to the other network is told that it is unknown there, and its keys are erased.
    """
    marker = data_directory(settings) / "network"
    wanted = "sandbox" if settings.sandbox else "whatsapp"
    try:
        found = marker.read_text() if marker.exists() else ""
        if not found:
            marker.write_text(wanted)
    except OSError as error:
        raise SettingsError(f"TOMADA_DATA_DIR: {marker}: {error.strerror}") from None
    if found not in ("", wanted):
        theirs, ours = _NETWORKS.get(found, found), _NETWORKS[wanted]
        raise SettingsError(
            f"TOMADA_DATA_DIR: {settings.data_path} belongs to {theirs}, and this would be {ours}. "
            "Take another directory: the sessions in this one would be lost"
        )


async def sealer_of(settings: Settings, pool: Pool) -> Sealer:
    """The sealer with this installation's key, which must be that of the accounts in the database.

    Makes the key file at the first start: after that look, so that no start that is refused leaves a wrong key behind,
    which the next backup would take along.
    """
    path = data_directory(settings) / "secret.key"
    try:
        if settings.secret_key:
            key = bytes.fromhex(settings.secret_key)  # settings.load has looked at it
        else:
            key = load_key(path) if path.exists() else secrets.token_bytes(KEY_BYTES)
        if not await manage.key_fits(AccountStore(pool), Sealer(key)):
            raise SettingsError(f"TOMADA_SECRET_KEY: {_KEY_ELSEWHERE}")
        return Sealer(key if settings.secret_key else load_key(path))
    except OSError as error:
        raise SettingsError(f"TOMADA_DATA_DIR: {path}: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(str(error)) from None


async def migrated(dsn: str) -> str:
    """Bring the schema up to date; gives the address back. An address is never shown: it may hold a password."""
    try:
        await migrate(dsn)
    except SchemaRefused as error:
        raise SettingsError(str(error)) from None
    except (ValueError, asyncpg.InterfaceError):
        raise SettingsError(
            "TOMADA_DATABASE_URL: not understood; write postgresql://user:password@host:5432/name, with everything "
            "but letters and digits in the password percent-encoded"
        ) from None
    except (OSError, asyncpg.PostgresError) as error:
        why = getattr(error, "strerror", None) or str(error) or "no answer in time"
        raise SettingsError(f"the database refused or did not answer: {why}") from None
    return dsn
