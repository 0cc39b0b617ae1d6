"""A machine process under test, driven over its pipes as a host drives it."""

import asyncio
import contextlib
import itertools
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from tomada.engine import port
from tomada.machines.protocol import (
    LINE_BYTES_MAX,
    Acknowledge,
    Answer,
    Command,
    FromHost,
    FromMachine,
    Happened,
    Hello,
    OpenSession,
    Ready,
    Request,
    Send,
)

_decode = msgspec.json.Decoder(FromMachine).decode
_encode = msgspec.json.Encoder().encode
E = TypeVar("E", bound=port.EngineEvent)


class Driven:
    """What a host sees of a machine: everything that happened, in order, and the answers."""

    def __init__(self, process: asyncio.subprocess.Process, *, acknowledge: bool) -> None:
        self.process = process
        self.hello: Hello | None = None
        self.happened: list[Happened] = []
        self.before_ready: list[Happened] = []
        self.news = asyncio.Condition()
        self.ready = asyncio.Event()
        self.log = b""
        self._acknowledge = acknowledge
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._numbers = itertools.count(1)
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._read_log())]

    async def wait_ready(self) -> None:
        """Wait until it has told everything old."""
        try:
            await asyncio.wait_for(self.ready.wait(), 30)
        except TimeoutError:
            raise AssertionError(self.log.decode(errors="replace")) from None

    async def ask(self, command: Command, within_s: float = 30.0) -> Answer:
        """Send a request and wait for its answer."""
        number = next(self._numbers)
        future = self._answers[number] = asyncio.get_running_loop().create_future()
        self.write(Request(number, command))
        return await asyncio.wait_for(future, within_s)

    def write(self, message: FromHost) -> None:
        """Write one line to the machine."""
        assert self.process.stdin is not None
        self.process.stdin.write(_encode(message) + b"\n")

    def events(self, instance_id: str, kind: type[E]) -> list[E]:
        """Every event of this kind that was told for this instance so far."""
        return [h.event for h in self.happened if h.instance_id == instance_id and isinstance(h.event, kind)]

    async def event(
        self, instance_id: str, kind: type[E], where: Callable[[E], bool] = lambda _: True, within_s: float = 20.0
    ) -> E:
        """The first event of this kind for which `where` holds, past or future."""

        def found() -> E | None:
            return next((event for event in self.events(instance_id, kind) if where(event)), None)

        async def wait() -> E:
            async with self.news:
                await self.news.wait_for(lambda: found() is not None)
            event = found()
            assert event is not None
            return event

        try:
            return await asyncio.wait_for(wait(), within_s)
        except TimeoutError:
            told = [h for h in self.happened if h.instance_id == instance_id][-12:]
            log = self.log[-3000:].decode(errors="replace")
            raise AssertionError(f"no such {kind.__name__} in {within_s} s; told: {told}\nlog:\n{log}") from None

    async def open(
        self, instance_id: str, store: Path | str, name: str = "Acme", proxy_url: str | None = None
    ) -> Answer:
        """Open a session."""
        return await self.ask(OpenSession(port.SessionSpec(instance_id, str(store), name, proxy_url)), 60)

    async def send(self, instance_id: str, zaap_id: str, chat: str, text: str) -> Answer:
        """Hand over a text."""
        return await self.ask(Send(instance_id, zaap_id, chat, port.Text(text)))

    async def end(self, number: int = signal.SIGTERM, within_s: float = 12.0) -> int:
        """End it by a signal (0: by closing its input) and return the exit status."""
        if number:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)
        else:
            assert self.process.stdin is not None
            self.process.stdin.close()
        status = await asyncio.wait_for(self.process.wait(), within_s)
        await asyncio.wait(self._tasks, timeout=5)
        return status

    async def _read(self) -> None:
        stdout = self.process.stdout
        assert stdout is not None
        try:
            await self._hear(stdout)
        finally:  # after a line that is too long, too: a process is not over while its output is not read
            while await stdout.read(65536):
                pass

    async def _hear(self, lines: asyncio.StreamReader) -> None:
        async for line in lines:
            message = _decode(line)
            match message:
                case Hello():
                    self.hello = message
                case Ready():
                    self.before_ready = list(self.happened)
                    self.ready.set()
                case Answer():
                    self._answers.pop(message.id).set_result(message)
                case Happened():
                    self.happened.append(message)
                    if self._acknowledge and message.journal is not None:
                        self.write(Acknowledge(message.journal))
                    async with self.news:
                        self.news.notify_all()

    async def _read_log(self) -> None:
        assert self.process.stderr is not None
        while chunk := await self.process.stderr.read(65536):
            self.log += chunk


@contextlib.asynccontextmanager
async def machine(
    folder: Path,
    *options: str,
    launcher: Sequence[str] = ("-m", "tomada.machines.process"),
    environment: Mapping[str, str] | None = None,
    acknowledge: bool = True,
) -> AsyncIterator[Driven]:
    """A machine process, ready; killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *launcher,
        "--machine-dir",
        str(folder),
        *options,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})},
        limit=LINE_BYTES_MAX,
    )
    driven = Driven(process, acknowledge=acknowledge)
    try:
        await driven.wait_ready()
        yield driven
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await asyncio.wait(driven._tasks, timeout=5)


async def until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    """Wait for a condition that nothing announces."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not become true in time"
        await asyncio.sleep(0.02)
