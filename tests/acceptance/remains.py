"""What is left of an instance: rows, files, processes. The tests look for themselves instead of asking the product."""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from tests.acceptance.product import Product

NOT_OURS = frozenset({"postgres", "sandbox"})  # the database is asked by SQL; the sandbox is the world outside
PROOF = frozenset({"deletion"})  # may stay: ids, times and counts
ERASED = (
    "select name = '' and session_name = '' and token_hash = '' and token_sealed = '' and "
    "coalesce(delivery_callback_url, received_callback_url, disconnected_callback_url, connected_callback_url, "
    "message_status_callback_url) is null from instance where id = $1 and state = 'deleted'"
)


def sql(product: Product, statement: str, *arguments: object) -> list[Any]:
    """Rows of the product's own database."""

    async def ask() -> list[Any]:
        connection = await asyncpg.connect((product.data / "database.address").read_text(), timeout=10)
        try:
            rows: list[Any] = await connection.fetch(statement, *arguments)
            return rows
        finally:
            await connection.close()

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(ask())


def rows(product: Product, instance_id: str) -> dict[str, int]:
    """Table -> rows of an instance, for every table that knows instances; none are left out."""
    tables = sql(product, "select table_name from information_schema.columns where column_name = 'instance_id'")
    assert len(tables) >= 9
    counted = {
        table: sql(product, f"select count(*) from {table} where instance_id = $1", instance_id)[0]["count"]
        for (table,) in tables
    }
    keys = "select count(*) from machine.tomada_session where split_part(key, '.', 1) = $1"
    counted["machine.tomada_session"] = sql(product, keys, instance_id)[0]["count"]
    return {table: count for table, count in counted.items() if count}


def waiting(product: Product, instance_id: str) -> int:
    """Messages that are still to be sent."""
    statement = "select count(*) from outgoing_message where instance_id = $1 and state in ('queued', 'sending')"
    return int(sql(product, statement, instance_id)[0][0])


def is_tombstone(product: Product, instance_id: str) -> bool:
    """Whether the instance's own row holds nothing of anybody, and no other row is left but the proof."""
    found = sql(product, ERASED, instance_id)
    return bool(found and found[0][0]) and set(rows(product, instance_id)) <= PROOF


def files(product: Product, instance_id: str) -> list[Path]:
    """Files of ours that are named after the instance, or that hold its id."""
    found = []
    for top in product.data.iterdir():
        if top.name in NOT_OURS:
            continue
        found += [path for path in (top, *top.rglob("*")) if _tells_of(path, instance_id.encode())]
    return found


def _tells_of(path: Path, name: bytes) -> bool:
    try:
        return name in bytes(path) or (path.is_file() and name in path.read_bytes())
    except FileNotFoundError:  # removed this moment
        return False


def machines_of(product: Product, instance_id: str) -> list[psutil.Process]:
    """The running machine process in which an instance's session was opened last, by the product's log."""
    pids = [line["pid"] for line in _log(product) if _opens(line, instance_id)]
    with contextlib.suppress(psutil.NoSuchProcess, IndexError):
        machine = psutil.Process(pids[-1])
        if machine.ppid() == product.pid and machine.status() != psutil.STATUS_ZOMBIE:
            return [machine]
    return []


def _log(product: Product) -> Iterator[dict[str, Any]]:
    for line in product.log.read_bytes().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            yield json.loads(line)


def _opens(line: dict[str, Any], instance_id: str) -> bool:
    return line.get("event") == "session.opening" and line.get("instance") == instance_id
