"""A sandbox in this process, and real engine clients in child processes, two of them paired and shared.

The clients' sessions lie in one database of the embedded server; a client that is started again under its name finds
its own there.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random  # noqa: TID251 - a seeded source of ids for the simulation

import asyncpg
import pytest

from tests.integration.sandbox.engine_client import EngineClient, build_client
from tomada.kit.clock import SystemClock
from tomada.postgres.launcher import EmbeddedServer
from tomada.postgres.machine_role import machine_dsn
from tomada.sandbox.launch import Ready
from tomada.sandbox.network import Network
from tomada.sandbox.phone import Phone, new_record
from tomada.sandbox.phone_inbox import receive
from tomada.sandbox.phone_pairing import scan
from tomada.sandbox.server import Sandbox


class Clients:
    """Starts real clients of any sandbox and ends them."""

    def __init__(self, program: Path, store: str, logs: Path) -> None:
        self.program, self.store, self.logs = program, store, logs
        self.started: list[EngineClient] = []

    async def start(self, ready: Ready, name: str) -> EngineClient:
        """Start a client at a sandbox; the name is also the key of its session."""
        log = self.logs / f"{name.replace(' ', '-')}.log"
        client = await EngineClient.start(self.program, self.store, ready, name, log)
        self.started.append(client)
        return client

    async def stop(self) -> None:
        """End those that were started."""
        for client in self.started:
            await client.stop()


class Bench:
    """A running sandbox with helpers."""

    def __init__(self, sandbox: Sandbox, ready: Ready, directory: Path, clients: Clients) -> None:
        self.sandbox, self.ready, self.directory, self.clients = sandbox, ready, directory, clients

    @property
    def network(self) -> Network:
        """The network in this process."""
        return self.sandbox.network

    async def phone(self, number: str, name: str) -> Phone:
        """A new simulated phone."""
        phone = Phone(
            number,
            new_record(name, secrets.token_bytes),
            network=self.network,
            clock=SystemClock(),
            random_bytes=secrets.token_bytes,
            receive=receive,
        )
        await self.network.attach(phone)
        return phone

    async def client(self, name: str) -> EngineClient:
        """Start a client at this sandbox."""
        return await self.clients.start(self.ready, name)

    async def paired(self, phone: Phone, name: str) -> EngineClient:
        """A client that is linked to this phone, logged in, and told its own name: the last step of a pairing.

        The engine asks for the name once. Cut off while it asks it never knows it, and refuses to show presence.
        """
        client = await self.client(name)
        await scan(phone, await client.qr())
        await client.wait("Connected")
        async with asyncio.timeout(20):
            while not await client.do("own_name"):
                await asyncio.sleep(0.02)
        return client


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for a condition of this process; fails when it takes longer."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.fixture(scope="session")
def client_program() -> Path:
    """The real client, built for these tests."""
    return build_client()


@pytest.fixture(scope="session")
async def client_store(postgres: EmbeddedServer) -> AsyncIterator[str]:
    """The DSN of a database for the clients' sessions."""
    name = "sandbox_clients"
    async with _connected(postgres.dsn) as connection:
        await connection.execute(f"create database {name}")
    yield await machine_dsn(postgres.dsn_of(name), None)
    async with _connected(postgres.dsn) as connection:
        await connection.execute(f"drop database {name} with (force)")


@contextlib.asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture(scope="session")
async def clients(client_program: Path, client_store: str) -> AsyncIterator[Clients]:
    """Starts clients; their logs are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="tomada-clients-") as logs:
        made = Clients(client_program, client_store, Path(logs))
        yield made
        await made.stop()


@pytest.fixture(scope="session")
async def bench(clients: Clients) -> AsyncIterator[Bench]:
    """One sandbox for all tests of this folder."""
    with tempfile.TemporaryDirectory(prefix="tomada-sandbox-") as folder:
        sandbox = Sandbox(Path(folder), SystemClock(), Random(7))
        yield Bench(sandbox, await sandbox.start(), Path(folder), clients)
        await sandbox.stop()


class Pair:
    """Two numbers, each with its phone and one linked client."""

    def __init__(self, alice: EngineClient, bob: EngineClient) -> None:
        self.alice, self.bob = alice, bob
        self.alice_number, self.bob_number = "15550001111", "15550002222"


@pytest.fixture(scope="session")
async def pair(bench: Bench) -> Pair:
    """Alice and Bob, paired once for all tests."""
    alice_phone = await bench.phone("15550001111", "Alice")
    bob_phone = await bench.phone("15550002222", "Bob")
    alice = await bench.paired(alice_phone, "Alice Sales")
    bob = await bench.paired(bob_phone, "Bob Support")
    return Pair(alice, bob)
