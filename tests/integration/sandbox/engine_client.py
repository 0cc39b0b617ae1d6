"""A real WhatsApp client in a process of its own: the tests' end of machine/cmd/sandbox-client.

That program is whatsmeow over the machine's session store. It is no part of the product; `build_client` makes it.
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine.build import HOME, SOURCES

from tomada.machines.program import STORE_VARIABLE
from tomada.sandbox.launch import Ready, machine_command

TIMEOUT_S = 20.0
_LINE_BYTES_MAX = 16 * 1024 * 1024
"""A document of some megabytes travels in one line."""


def build_client() -> Path:
    """The program, built if its sources changed; one of several test processes builds it, the others wait."""
    folder = HOME / "tests"
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "sandbox-client"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [sys.executable, str(SOURCES / "build.py"), "go", "build", "-o", str(program), "./cmd/sandbox-client"]
        subprocess.run(command, check=True, timeout=280)
    return program


class EngineError(Exception):
    """The engine refused a command."""


class EngineClient:
    """Send commands with `do`, take events with `wait`; `stop` ends the process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.events: list[dict[str, Any]] = []
        self._answers: dict[int, dict[str, Any]] = {}
        self._changed = asyncio.Condition()
        self._ids = itertools.count(1)
        self._reading = asyncio.create_task(self._read())

    @staticmethod
    async def start(program: Path, store: str, ready: Ready, name: str, log: Path) -> EngineClient:
        """Start a client that trusts this sandbox; the name is the device's and the key of its session in the store."""
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *machine_command(program, ready),
                "-name",
                name,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env={**os.environ, STORE_VARIABLE: store},
                limit=_LINE_BYTES_MAX,
            )
        return EngineClient(process)

    async def do(self, command: str, **arguments: Any) -> Any:
        """Run a command of the program's commands.go; `EngineError` if it failed."""
        number = next(self._ids)
        line = json.dumps({"id": number, "do": command, "with": arguments})
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(lambda: number in self._answers), TIMEOUT_S)
        answer = self._answers.pop(number)
        if "error" in answer:
            raise EngineError(answer["error"])
        return answer["ok"]

    async def wait(
        self, event: str, when: Callable[[dict[str, Any]], bool] = lambda _: True, timeout_s: float = TIMEOUT_S
    ) -> dict[str, Any]:
        """Take the first event of this name that fits, waiting for it if need be."""

        def find() -> dict[str, Any] | None:
            return next((e for e in self.events if e["event"] == event and when(e)), None)

        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(find), timeout_s)
            except TimeoutError:
                raise AssertionError(f"no {event}; seen were {self.events}") from None
            found = find()
            assert found is not None
            self.events.remove(found)
            return found

    async def qr(self) -> str:
        """Take the QR code that is shown."""
        return str((await self.wait("QR"))["data"]["Codes"][0])

    async def text(self, text: str, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """Take the message with this text."""
        return await self.wait("Message", lambda e: e["text"] == text, timeout_s)

    async def send_document(self, to: str, content: bytes) -> str:
        """Send a document; its id."""
        return str(await self.do("send_document", to=to, data=base64.b64encode(content).decode()))

    async def download(self, message_id: str) -> bytes:
        """The medium of a message that was received."""
        return base64.b64decode(await self.do("download", id=message_id))

    async def stop(self) -> None:
        """End the process and wait for it."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            message = json.loads(line)
            async with self._changed:
                if "event" in message:
                    self.events.append(message)
                else:
                    self._answers[message["id"]] = message
                self._changed.notify_all()
