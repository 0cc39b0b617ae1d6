"""What a machine needs around it: the simulated network, a session store, and phones to pair with.

The machine is any program that speaks the protocol: TOMADA_MACHINE names it (with its sandbox program beside it).
"""

import contextlib
import itertools
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg

from tests.integration.hosting.network import Network
from tests.integration.machines.driven import Commit, Driven, News, machine
from tomada.engine import told
from tomada.kit import machine_program
from tomada.machines.program import STORE_VARIABLE, prepared, serve_arguments
from tomada.machines.protocol import Spec
from tomada.postgres.machine_role import machine_dsn
from tomada.sandbox.launch import machine_command

PROGRAM = machine_program.locate_sandbox(os.environ)


class Store:
    """A session store: `machine` is its address for machines, `owner` that of the database's owner."""

    def __init__(self, owner: str, machine: str) -> None:
        self.owner, self.machine = owner, machine

    async def count(self, sql: str, *arguments: Any) -> int:
        """A number that lies there."""
        connection = await asyncpg.connect(self.owner)
        try:
            number: int = await connection.fetchval(sql, *arguments)
            return number
        finally:
            await connection.close()

    async def rows_of(self, device: str) -> dict[str, int]:
        """In which tables of the store how many rows belong to this device (a JID), where there are any."""
        connection = await asyncpg.connect(self.owner)
        try:
            columns = await connection.fetch(
                "select table_name, column_name from information_schema.columns"
                " where table_schema = 'machine' and column_name in ('jid', 'our_jid')"
            )
            assert len(columns) > 10
            counts = {
                table: await connection.fetchval(f"select count(*) from machine.{table} where {column} = $1", device)
                for table, column in columns
            }
            return {table: count for table, count in counts.items() if count}
        finally:
            await connection.close()


async def prepared_store(dsn: str) -> Store:
    """Make the session store in a database of the embedded server."""
    store = Store(dsn, await machine_dsn(dsn, None))
    await prepared(PROGRAM, environment_of(store.machine))
    return store


def environment_of(store_dsn: str) -> dict[str, str]:
    """A machine's environment."""
    return {"PATH": os.environ["PATH"], STORE_VARIABLE: store_dsn}


class Stage:
    """Network, store and a folder for machines."""

    def __init__(self, network: Network, store: Store, folder: Path) -> None:
        self.network, self.store, self.folder = network, store, folder
        self._names = itertools.count(1)

    def fresh(self, name: str) -> str:
        """An instance id that nobody had."""
        return f"{name}-{next(self._names)}"

    def command(self, name: str) -> list[str]:
        """The command line of a machine with a folder of its own under this name."""
        folder = str(self.folder / name)
        serve = [part.replace("{dir}", folder) for part in serve_arguments()]
        return [*machine_command(PROGRAM, self.network.ready), *serve]

    @contextlib.asynccontextmanager
    async def machine(
        self, name: str, *, commit: Commit | None = None, store_dsn: str | None = None
    ) -> AsyncIterator[Driven]:
        """A machine at this network and store."""
        environment = environment_of(store_dsn or self.store.machine)
        async with machine(self.command(name), environment, commit=commit) as driven:
            yield driven

    def spec(self, instance_id: str, name: str = "Acme", *, pair: bool = False, proxy_url: str = "") -> Spec:
        """How this instance's session is opened."""
        return Spec(instance_id, f"{instance_id}.1", name, proxy_url, pair)

    async def reopen(self, driven: Driven, instance_id: str) -> None:
        """Open a session that was paired, and wait for its login."""
        count = len(driven.events(instance_id, told.Connected))
        assert await driven.open(self.spec(instance_id))
        await driven.until(lambda: len(driven.events(instance_id, told.Connected)) > count)

    async def begin(self, driven: Driven, instance_id: str, name: str = "Acme") -> str:
        """Open a session that has no device; the first QR code."""
        count = len(driven.events(instance_id, told.QrIssued))
        assert await driven.open(self.spec(instance_id, name, pair=True)) == ""
        await driven.until(lambda: len(driven.events(instance_id, told.QrIssued)) > count)
        return driven.events(instance_id, told.QrIssued)[count].code

    async def paired(self, driven: Driven, instance_id: str, name: str = "Acme") -> str:
        """Open a session and pair it with a new phone; the phone's number."""
        number = await self.network.phone(f"Owner of {instance_id}")
        await self.network.scan(number, await self.begin(driven, instance_id, name))
        await driven.event(instance_id, told.Connected)
        await driven.until(lambda: any(_is_keys(news, instance_id) for news in driven.acknowledged))
        return number

    async def say(self, number: str, to: str, text: str) -> str:
        """A phone sends a text; the message's id."""
        sent: dict[str, str] = await self.network.call("POST", f"phones/{number}/send", {"to": to, "text": text})
        return sent["id"]

    async def messages(self, number: str) -> list[dict[str, Any]]:
        """All that this phone sent and received, in its order."""
        listed: list[dict[str, Any]] = await self.network.call("GET", f"phones/{number}/messages")
        return listed

    async def texts(self, number: str) -> list[str]:
        """The texts among them."""
        return [one.get("text", "") for one in await self.messages(number)]

    async def lid(self, number: str) -> str:
        """A phone's hidden id."""
        lid: str = (await self.network.call("GET", f"phones/{number}"))["lid"]
        return lid


def _is_keys(news: News, instance_id: str) -> bool:
    """Whether this is the message with which a phone gives its new device its keys: the last of a pairing."""
    return news.instance_id == instance_id and isinstance(news.event, told.Message) and news.event.category == "peer"


def jid(number: str) -> str:
    """The JID of a number."""
    return f"{number}@s.whatsapp.net"
