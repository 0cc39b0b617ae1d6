"""The test's end of `engine_child`: one real engine client in a child process."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tomada.sandbox.launch import Ready, machine_environment

_SCRIPT = Path(__file__).with_name("engine_child.py")
TIMEOUT_S = 20.0
_FAST_SQLITE = "?_synchronous=OFF&_foreign_keys=on&x="
"""The engine appends its own options; these come first. Its 812 first keys are stored one commit each."""


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
    async def start(ready: Ready, database: Path, name: str) -> EngineClient:
        """Start a client that trusts this sandbox, and connect it."""
        with database.with_suffix(".log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(_SCRIPT),
                ready.noise_root,
                f"{database}{_FAST_SQLITE}",
                name,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**os.environ, **machine_environment(ready), "NEONIZE_BOT_TAG": "off"},
            )
        client = EngineClient(process)
        await client.do("start")
        return client

    async def do(self, command: str, **arguments: Any) -> Any:
        """Run a command of `engine_child.Child`; `EngineError` if it failed."""
        number = next(self._ids)
        line = json.dumps({"id_": number, "do": command, **arguments})
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

    async def text(self, text: str, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """Take the message with this text."""
        return await self.wait("MessageEv", lambda e: e["text"] == text, timeout_s)

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
