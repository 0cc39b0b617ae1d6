"""A sandbox in this process, and real engine clients in child processes, two of them paired and shared."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random  # noqa: TID251 - a seeded source of ids for the simulation

import pytest

from tests.integration.sandbox.engine_client import EngineClient
from tomada.kit.clock import SystemClock
from tomada.sandbox.launch import Ready
from tomada.sandbox.network import Network
from tomada.sandbox.phone import Phone, new_record
from tomada.sandbox.phone_inbox import receive
from tomada.sandbox.phone_pairing import scan
from tomada.sandbox.server import Sandbox


class Bench:
    """A running sandbox with helpers; `clients` are ended with it."""

    def __init__(self, sandbox: Sandbox, ready: Ready, directory: Path) -> None:
        self.sandbox, self.ready, self.directory = sandbox, ready, directory
        self.clients: list[EngineClient] = []

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
        """Start a client; the name also names its database."""
        client = await EngineClient.start(self.ready, self.directory / f"{name.replace(' ', '-')}.db", name)
        self.clients.append(client)
        return client

    async def paired(self, phone: Phone, name: str) -> EngineClient:
        """A client that is linked to this phone, logged in, and told its own name: the last step of a pairing.

        The engine asks for the name once. Cut off while it asks it never knows it, and refuses to show presence.
        """
        client = await self.client(name)
        await scan(phone, (await client.wait("qr"))["text"])
        await client.wait("ConnectedEv")
        async with asyncio.timeout(20):
            while not await client.do("own_name"):
                await asyncio.sleep(0.02)
        return client


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for a condition of this process; fails when it takes longer."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


async def start_bench(directory: Path) -> Bench:
    """Start a sandbox in a directory."""
    sandbox = Sandbox(directory, SystemClock(), Random(7))
    return Bench(sandbox, await sandbox.start(), directory)


async def stop_bench(bench: Bench) -> None:
    """End the clients and the sandbox."""
    for client in bench.clients:
        await client.stop()
    await bench.sandbox.stop()


@pytest.fixture(scope="session")
async def bench() -> AsyncIterator[Bench]:
    """One sandbox for all tests of this folder."""
    with tempfile.TemporaryDirectory(prefix="tomada-sandbox-") as folder:
        made = await start_bench(Path(folder))
        yield made
        await stop_bench(made)


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
