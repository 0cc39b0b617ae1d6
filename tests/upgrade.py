"""Data that an older Tomada left behind when it was killed, put where a product can be started on it.

    stage = restore(tmp_path / "data", receiver)
    with running(stage.data, ENVIRONMENT) as product: ...

What is in the data, and how it was made: tests/data/upgrade_from_28a2611/README.md. Two things are not as they were
written: the callbacks' URLs name the receiver that is given, and all times in the database are moved on, so that the
data are always as fresh as they were when the server was killed (but for the audit log, whose hashes cover its times).
"""

import asyncio
import json
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from tests.acceptance.product import Account, Instance, Phone, Product
from tests.receiver import Receiver
from tomada.postgres.launcher import embedded_server

FOLDER = Path(__file__).parent / "data" / "upgrade_from_28a2611"
ENVIRONMENT = {"TOMADA_INSTANCES_PER_MACHINE": "4"}  # as it was made

_TIMES = """
select c.table_name as "table", array_agg(c.column_name::text) as columns
from information_schema.columns c join information_schema.tables t using (table_schema, table_name)
where c.table_schema = 'public' and t.table_type = 'BASE TABLE' and c.table_name not like 'audit%'
  and c.data_type = 'bigint' and c.column_name like '%\\_ms' and c.is_generated = 'NEVER'
group by 1
"""
_A_TIME_MS = 10**12  # what is less is a duration


@dataclass(frozen=True)
class Restored:
    """The data directory, and what expected.json says of it."""

    data: Path
    expected: dict[str, Any]

    def of(self, what: str, instance: str) -> list[dict[str, Any]]:
        """One instance's entries of a list in expected.json."""
        return [one for one in self.expected[what] if one["instance"] == instance]

    def paired(self) -> list[str]:
        """The names of the instances that have a phone."""
        return [name for name, one in self.expected["instances"].items() if one["paired"]]

    def account(self, product: Product) -> Account:
        """The integrator of all instances."""
        return Account(product, self.expected["account"], self.expected["partner_token"], None)

    def instance(self, product: Product, name: str) -> Instance:
        """One instance, with the token that its creation answered."""
        known = self.expected["instances"][name]
        return Instance(self.account(product), known["id"], known["token"], 0)

    def phone(self, product: Product, name: str) -> Phone:
        """A customer's phone (ana, beto) or a shop's, by the name of its instance."""
        return Phone(product, self.expected["phones"][name])


def restore(data: Path, receiver: Receiver) -> Restored:
    """Put the data into `data`, which must not exist yet: files, and a new database of the embedded server."""
    expected = json.loads((FOLDER / "expected.json").read_text())
    with tempfile.TemporaryDirectory(dir=data.parent) as folder:
        with tarfile.open(FOLDER / "made.tar.xz") as archive:
            archive.extractall(folder, filter="data")
        (Path(folder) / "data").rename(data)
        dump = (Path(folder) / "database.sql").read_text()
    data.chmod(0o711)
    dump = dump.replace(expected["receiver"], f"127.0.0.1:{receiver.port}")
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(_fill(data / "postgres", dump, expected["made_at_ms"]))
    return Restored(data, expected)


def change(data: Path, statement: str) -> None:
    """Run a statement in the database of a data directory on which no server runs."""

    async def run() -> None:
        async with embedded_server(data / "postgres") as server:
            connection = await asyncpg.connect(server.dsn)
            await connection.execute(statement)
            await connection.close()

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(run())


async def _fill(folder: Path, dump: str, made_at_ms: int) -> None:
    """A server on an empty folder, as the product makes it; then the dump, as of now."""
    async with embedded_server(folder) as server:
        connection = await asyncpg.connect(server.dsn)
        try:
            await connection.execute(dump)
            await connection.execute("set search_path to public")
            passed_ms = time.time_ns() // 1_000_000 - made_at_ms
            for table, columns in await connection.fetch(_TIMES):
                moved = [f"{it} = {it} + case when {it} > {_A_TIME_MS} then {passed_ms} else 0 end" for it in columns]
                await connection.execute(f"update {table} set {', '.join(moved)}")
        finally:
            await connection.close()
