"""Takes over what a Tomada with machine protocol 1 left on the disk: once, at the first start after the upgrade.

    <data>/instances/<instance>/<epoch>/session.db*   the keys of a session, in SQLite with whatsmeow's own tables
    <data>/machines/<slot>/journal*                   events that WhatsApp was told of long ago and nobody has stored
    <data>/machines/<slot>/poisoned                   events that could not be handled then

Keys go into the session store, one transaction a session. Events go through the pipeline under the number that they
had, as they would have then; one that fails for a fault of its own is quarantined. A file is removed when what it held
is committed. Cut short, it begins again: a session that the store has is not taken a second time (its file is older by
then), and an event told twice is recorded once.
"""

import shutil
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import structlog

from tomada.engine import port
from tomada.errors import TomadaError, Unavailable
from tomada.machines import keys, quarantine
from tomada.messages.store import MessageStore
from tomada.postgres.pool import Connection, Pool

log = structlog.get_logger(__name__)

SCHEMA_VERSION = 15  # of whatsmeow's tables, in the last release of the engine before

_TABLES = "select name from sqlite_master where type = 'table' and name like 'whatsmeow%'"

Handle = Callable[[str, port.EngineEvent, int], Awaitable[None]]


class UpgradeFailed(TomadaError):
    """What an older version left cannot be taken over"""


class _Sent(msgspec.Struct, frozen=True, tag="message_sent"):
    """Protocol 1: the outcome of a send, whose id was WhatsApp's choice."""

    zaap_id: str
    wa_id: str
    at_ms: int
    chat_lid: str | None = None
    sender_lid: str | None = None
    chat_name: str = ""


class _Failed(msgspec.Struct, frozen=True, tag="message_failed"):
    """Protocol 1: any other outcome."""

    zaap_id: str
    error: str
    unknown: bool = False
    retry: bool = False


class _Line(msgspec.Struct, frozen=True):
    """A line of a journal or of a file of poisoned events."""

    instance_id: str
    event: msgspec.Raw
    journal: int | None = None


class _Tag(msgspec.Struct, frozen=True):
    type: str


_line = msgspec.json.Decoder(_Line).decode
_outcome = msgspec.json.Decoder(_Sent | _Failed).decode
_event = msgspec.json.Decoder(port.EngineEvent).decode


async def take_over(data_dir: Path, pool: Pool, messages: MessageStore, handle: Handle) -> None:
    """Take over what is there; nothing if nothing is. Raises UpgradeFailed in words; then all is still there."""
    for file in sorted(data_dir.glob("instances/*/*/session.db")):
        await _session(file, pool)
    _remove_empty(data_dir / "instances")
    for file in [*sorted(data_dir.glob("machines/*/poisoned")), *sorted(data_dir.glob("machines/*/journal*"))]:
        await _events(file, pool, messages, handle)


# --- keys -------------------------------------------------------------------------------------------------------------


async def _session(file: Path, pool: Pool) -> None:
    instance_id, epoch = file.parent.parent.name, int(file.parent.name)
    try:
        tables = _tables(file)
        async with pool.acquire() as connection, connection.transaction():
            await _store(connection, keys.store_key(instance_id, epoch), tables)
    except (sqlite3.Error, asyncpg.PostgresError, OSError, ValueError) as error:
        raise UpgradeFailed(
            f"the session in {file} cannot be taken over: {error}. Nothing of it was removed"
        ) from error
    log.info("upgrade.session_taken_over", instance=instance_id, epoch=epoch, paired=bool(tables))
    shutil.rmtree(file.parent)


def _tables(file: Path) -> dict[str, list[dict[str, Any]]]:
    """Whatsmeow's tables by name; nothing if no phone was paired."""
    with closing(sqlite3.connect(file)) as database:
        database.row_factory = sqlite3.Row
        names = [row[0] for row in database.execute(_TABLES)]
        if "whatsmeow_device" not in names or not database.execute("select 1 from whatsmeow_device").fetchone():
            return {}
        version = database.execute("select version from whatsmeow_version").fetchone()[0]
        if version != SCHEMA_VERSION:
            raise ValueError(f"its tables are of version {version}, and {SCHEMA_VERSION} is known")
        return {name: [dict(row) for row in database.execute(f"select * from {name}")] for name in names}


async def _store(connection: Connection, key: str, tables: dict[str, list[dict[str, Any]]]) -> None:
    if not tables or await connection.fetchval(f"select true from {keys.SCHEMA}.tomada_session where key = $1", key):
        return
    types = await _types(connection)
    jid = tables["whatsmeow_device"][0]["jid"]
    await connection.execute(f"delete from {keys.SCHEMA}.whatsmeow_device where jid = $1", jid)
    device = tables.pop("whatsmeow_device")
    await _copy(connection, "whatsmeow_device", device, types)
    await _copy(connection, "tomada_session", [{"key": key, "jid": jid}], types)
    pairs = tables.pop("whatsmeow_lid_map", [])
    await _copy(connection, "tomada_lid", [{"key": key, **pair} for pair in pairs], types)
    for name, rows in tables.items():
        if name in types and name != "whatsmeow_version":
            await _copy(connection, name, rows, types)


async def _types(connection: Connection) -> dict[str, dict[str, str]]:
    """Of the session store's tables: column -> type."""
    found: dict[str, dict[str, str]] = {}
    query = "select table_name, column_name, data_type from information_schema.columns where table_schema = $1"
    for row in await connection.fetch(query, keys.SCHEMA):
        found.setdefault(row["table_name"], {})[row["column_name"]] = row["data_type"]
    return found


async def _copy(
    connection: Connection, table: str, rows: list[dict[str, Any]], types: dict[str, dict[str, str]]
) -> None:
    if not rows:
        return
    columns = list(rows[0])
    records = [tuple(_value(row[column], types[table][column]) for column in columns) for row in rows]
    await connection.copy_records_to_table(table, schema_name=keys.SCHEMA, columns=columns, records=records)


def _value(value: Any, data_type: str) -> Any:
    """SQLite has fewer types."""
    if value is None:
        return None
    match data_type:
        case "boolean":
            return bool(value)
        case "uuid":
            return UUID(value) if isinstance(value, str) else UUID(bytes=value)
        case "bytea":
            return bytes(value)
    return value


# --- events -----------------------------------------------------------------------------------------------------------


async def _events(file: Path, pool: Pool, messages: MessageStore, handle: Handle) -> None:
    count = 0
    for line in _lines(file):
        count += 1
        try:
            await _tell(line, messages, handle)
        except (Unavailable, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise UpgradeFailed(
                f"the events in {file} cannot be taken over: {error}. They are still there; start again"
            ) from error
        except Exception as error:  # noqa: BLE001 - one event must not keep all others from being told
            log.error("upgrade.event_quarantined", instance=line.instance_id, error=type(error).__name__)
            await quarantine.put(pool, line.instance_id, bytes(line.event), type(error).__name__)
    log.info("upgrade.events_taken_over", file=str(file), events=count)
    file.unlink()


def _lines(file: Path) -> Iterator[_Line]:
    """The events of a file. A journal begins with the number up to which all are stored; a torn end told nothing."""
    stored = 0
    for text in file.read_bytes().splitlines(keepends=True):
        if text.strip().isdigit():
            stored = int(text)
        elif text.endswith(b"\n"):
            line = _line(text)
            if line.journal is None or line.journal > stored:
                yield line


async def _tell(line: _Line, messages: MessageStore, handle: Handle) -> None:
    raw, number = bytes(line.event), line.journal or 0
    kind = msgspec.json.decode(raw, type=_Tag).type
    if kind not in ("message_sent", "message_failed"):
        await handle(line.instance_id, _event(raw), number)
        return
    old = _outcome(raw)
    message_id = await messages.took_old_id(line.instance_id, old.zaap_id, getattr(old, "wa_id", None))
    if message_id is None:
        return  # its instance is gone
    if isinstance(old, _Sent):
        sent = port.MessageSent(message_id, old.at_ms, old.chat_lid, old.sender_lid, old.chat_name)
        await handle(line.instance_id, sent, number)
    elif old.retry:
        await messages.surely_unsent(line.instance_id, message_id)
    else:
        await handle(line.instance_id, port.MessageFailed(message_id, old.error, unknown=old.unknown), number)


def _remove_empty(folder: Path) -> None:
    """The tree of folders, if no file is left in it."""
    if folder.is_dir() and not any(path.is_file() for path in folder.rglob("*")):
        shutil.rmtree(folder)
