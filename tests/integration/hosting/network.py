"""A sandbox process and its control routes, for tests of the host with the real engine."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from tomada.sandbox.launch import RunningSandbox, start_sandbox


class Network:
    """One sandbox; phone numbers are handed out once."""

    def __init__(self, running: RunningSandbox) -> None:
        self.ready = running.ready
        self._numbers = itertools.count(15_550_000_001)

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """One control route; the answer's JSON, an assertion error unless it is 200."""
        async with aiohttp.request(method, f"{self.ready.control}/sandbox/{path}", json=body) as answer:
            content = await answer.json()
            assert answer.status == 200, content
            return content

    async def phone(self, name: str) -> str:
        """A new simulated phone's number."""
        number = str(next(self._numbers))
        await self.call("POST", "phones", {"number": number, "name": name})
        return number

    async def scan(self, number: str, qr: str) -> None:
        """The phone scans a code."""
        await self.call("POST", f"phones/{number}/scan", {"qr": qr})

    async def fault(self, kind: str, **more: Any) -> None:
        """Put a fault in force."""
        await self.call("POST", "faults", {"kind": kind, **more})

    async def connects_ms(self) -> list[int]:
        """When clients connected, epoch milliseconds."""
        times: list[int] = (await self.call("GET", "faults"))["connects"]["timesMs"]
        return times

    async def well(self) -> None:
        """End all standing faults."""
        await self.call("DELETE", "faults")


class Relay:
    """A way to a proxy that can be made to accept and stay silent, like a network that neither answers nor refuses."""

    def __init__(self, proxy: str) -> None:
        to = urlsplit(proxy)
        self._to = (to.hostname, to.port)
        self._answers = asyncio.Event()
        self._answers.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.url = ""

    def silent(self) -> None:
        """Every connection is cut, and new ones get no answer."""
        self._answers.clear()
        for writer in self._writers:
            writer.transport.abort()

    def well(self) -> None:
        """Answer again, also those that have waited."""
        self._answers.set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Relay"]:
        """It listens for the time of the block."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = "http://{}:{}".format(*server.sockets[0].getsockname())
        async with server:
            yield self
            self.silent()
            self.well()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        await self._answers.wait()
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection(*self._to)
            await asyncio.gather(_copy(reader, back), _copy(there, writer))
        self._writers.discard(writer)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def running_network(folder: Path) -> AsyncIterator[Network]:
    """A sandbox process for the time of the block."""
    running = await start_sandbox(folder)
    try:
        yield Network(running)
    finally:
        assert await running.stop() == 0
