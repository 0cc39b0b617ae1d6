"""A sandbox process and its control routes, for tests of the host with the real engine."""

import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

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

    async def well(self) -> None:
        """End all standing faults."""
        await self.call("DELETE", "faults")

    async def connects_ms(self) -> list[int]:
        """When clients connected, epoch milliseconds."""
        times: list[int] = (await self.call("GET", "faults"))["connects"]["timesMs"]
        return times


@contextlib.asynccontextmanager
async def running_network(folder: Path) -> AsyncIterator[Network]:
    """A sandbox process for the time of the block."""
    running = await start_sandbox(folder)
    try:
        yield Network(running)
    finally:
        assert await running.stop() == 0
