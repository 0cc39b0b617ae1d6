"""A sandbox process, its control routes, and machines that are led to it."""

import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from tests.integration.machines.driven import Driven, machine
from tomada.engine import port
from tomada.engine.environment import ENGINE_ENVIRONMENT
from tomada.sandbox.launch import Ready, machine_environment, start_sandbox


class Bench:
    """One sandbox; phone numbers are handed out once."""

    def __init__(self, ready: Ready, folder: Path) -> None:
        self.ready = ready
        self.folder = folder
        self._numbers = itertools.count(15_550_000_001)

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """One control route; the answer's JSON, an assertion error unless it is 200."""
        async with aiohttp.request(method, f"{self.ready.control}/sandbox/{path}", json=body) as answer:
            content = await answer.json()
            assert answer.status == 200, content
            return content

    async def phone(self, name: str = "Someone") -> str:
        """A new simulated phone's number."""
        number = str(next(self._numbers))
        await self.call("POST", "phones", {"number": number, "name": name})
        return number

    async def fault(self, kind: str, **more: Any) -> None:
        """Put a fault in force."""
        await self.call("POST", "faults", {"kind": kind, **more})

    async def no_faults(self) -> None:
        """End all standing faults."""
        await self.call("DELETE", "faults")

    async def texts(self, number: str) -> list[str]:
        """The texts this phone sent and received, in its order."""
        return [one.get("text", "") for one in await self.call("GET", f"phones/{number}/messages")]

    @contextlib.asynccontextmanager
    async def machine(
        self, name: str, *options: str, acknowledge: bool = True, prepared: bool = True
    ) -> AsyncIterator[Driven]:
        """A machine with a folder of its own under this name, against the sandbox.

        `prepared`: its environment is as the engine needs it.
        """
        ready = self.ready
        launcher = ("-m", "tomada.sandbox.machine", "--noise-root", ready.noise_root, "--")
        environment = machine_environment(ready) | (ENGINE_ENVIRONMENT if prepared else {})
        folder = self.folder / name
        async with machine(
            folder, *options, launcher=launcher, environment=environment, acknowledge=acknowledge
        ) as driven:
            yield driven

    def store(self, instance_id: str) -> Path:
        """Where this instance's keys live."""
        return self.folder / f"{instance_id}.db"

    async def open(self, driven: Driven, instance_id: str, name: str = "Acme") -> None:
        """Open a session; an assertion error if it is refused."""
        answer = await driven.open(instance_id, self.store(instance_id), name)
        assert answer.error is None, answer.error

    async def paired(self, driven: Driven, instance_id: str, name: str = "Acme") -> str:
        """Open a session and pair it with a new phone; the phone's number."""
        number = await self.phone(f"Owner of {instance_id}")
        await self.open(driven, instance_id, name)
        qr = await driven.event(instance_id, port.QrIssued)
        await self.call("POST", f"phones/{number}/scan", {"qr": qr.code})
        await driven.event(instance_id, port.Connected)
        return number


@contextlib.asynccontextmanager
async def running_bench(folder: Path) -> AsyncIterator[Bench]:
    """A sandbox process for the time of the block."""
    running = await start_sandbox(folder / "sandbox")
    try:
        yield Bench(running.ready, folder)
    finally:
        assert await running.stop() == 0
