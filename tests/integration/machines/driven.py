"""A machine process under test, driven over its pipes as a host drives it; only the protocol is known of it.

Unlike a host it acknowledges what it is told to: everything at once, unless the instance is `held`; with `commit`,
after that has returned, as a host does after its database has.
"""

import asyncio
import contextlib
import itertools
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tomada.engine import port, reading, told
from tomada.engine.addresses import Own
from tomada.kit.protobufs import Package
from tomada.machines.protocol import (
    LINE_BYTES_MAX,
    Acknowledge,
    Answer,
    Ask,
    Command,
    FromHost,
    FromMachine,
    Happened,
    Hello,
    OpenSession,
    Outgoing,
    Ready,
    Send,
    Spec,
)

e2e = Package("WAWebProtobufsE2E")
_decode = msgspec.json.Decoder(FromMachine).decode
_encode = msgspec.json.Encoder().encode
E = TypeVar("E", bound=told.Event)


class News(msgspec.Struct, frozen=True):
    """One event as it came: `number` 0 if the machine waits for no acknowledgement."""

    instance_id: str
    event: told.Event
    number: int


Commit = Callable[[News], Awaitable[None]]


class Driven:
    """What a host sees of a machine: everything that happened, in order, and the answers."""

    def __init__(self, process: asyncio.subprocess.Process, commit: Commit | None) -> None:
        self.process = process
        self.first: list[FromMachine] = []  # what was said up to Ready
        self.happened: list[News] = []
        self.acknowledged: list[News] = []
        self.held: set[str] = set()
        self.news = asyncio.Condition()
        self.ready = asyncio.Event()
        self.listening = asyncio.Event()  # cleared: its output is left unread
        self.listening.set()
        self.log = b""
        self._commit = commit
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._numbers = itertools.count(1)
        self._commits: set[asyncio.Task[None]] = set()
        self.tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._read_log())]

    async def wait_ready(self, within_s: float = 30.0) -> None:
        """Wait until requests are welcome."""
        try:
            await asyncio.wait_for(self.ready.wait(), within_s)
        except TimeoutError:
            raise AssertionError(self.log.decode(errors="replace")) from None

    @property
    def hello(self) -> Hello:
        """What it said first."""
        assert isinstance(self.first[0], Hello)
        return self.first[0]

    # --- what is said to it ---

    def write(self, message: FromHost) -> None:
        """Write one line to the machine."""
        self.write_line(_encode(message))

    def write_line(self, line: bytes) -> None:
        """Write whatever it is as a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")

    async def ask(self, command: Command, within_s: float = 30.0) -> Answer:
        """Send a request and wait for its answer."""
        return await self.ask_raw(msgspec.Raw(_encode(command)), within_s)

    async def ask_raw(self, command: msgspec.Raw, within_s: float = 30.0) -> Answer:
        """The same with a command that is none of ours."""
        number = next(self._numbers)
        future = self._answers[number] = asyncio.get_running_loop().create_future()
        self.write_line(_encode({"type": "request", "id": number, "command": command}))
        return await asyncio.wait_for(future, within_s)

    async def done(self, command: Command, within_s: float = 30.0) -> Any:
        """The value of an answer that is no error."""
        answer = await self.ask(command, within_s)
        assert not answer.kind, answer
        return msgspec.json.decode(answer.value)

    async def open(self, spec: Spec, within_s: float = 60.0) -> str:
        """Open a session; the device that the store held. An assertion error if it is refused."""
        device: str = (await self.done(OpenSession(spec), within_s))["device"]
        return device

    async def question(self, instance_id: str, name: str, **arguments: Any) -> Any:
        """The value that an ask is answered with."""
        return await self.done(Ask(instance_id, name, arguments))

    async def send(self, instance_id: str, wa_id: str, chat: str, text: str, typing_s: float = 0.0) -> Answer:
        """Hand over a text under an id of ours; `chat` is a JID."""
        return await self.give(instance_id, wa_id, chat, e2e.Message(conversation=text), typing_s)

    async def give(self, instance_id: str, wa_id: str, chat: str, content: Any, typing_s: float = 0.0) -> Answer:
        """Hand over any message."""
        raw = content.SerializeToString()
        return await self.ask(Send(instance_id, Outgoing(wa_id, chat, raw, typing_s=typing_s)))

    async def outcome(self, instance_id: str, wa_id: str, within_s: float = 30.0) -> told.Sent | told.SendFailed:
        """What became of a send, past or future: the last that was told."""

        def found(news: list[told.Sent | told.SendFailed]) -> bool:
            return bool(news)

        await self.until(lambda: found(self.outcomes(instance_id, wa_id)), within_s)
        return self.outcomes(instance_id, wa_id)[-1]

    def outcomes(self, instance_id: str, wa_id: str) -> list[told.Sent | told.SendFailed]:
        """Every outcome of this id."""
        mine = (news.event for news in self.happened if news.instance_id == instance_id)
        return [event for event in mine if isinstance(event, told.Sent | told.SendFailed) and event.wa_id == wa_id]

    # --- what it says ---

    def events(self, instance_id: str, kind: type[E]) -> list[E]:
        """Every event of this kind that was told for this instance so far."""
        mine = (news.event for news in self.happened if news.instance_id == instance_id)
        return [event for event in mine if isinstance(event, kind)]

    async def event(
        self, instance_id: str, kind: type[E], where: Callable[[E], bool] = lambda _: True, within_s: float = 20.0
    ) -> E:
        """The first event of this kind for which `where` holds, past or future."""

        def found() -> E | None:
            return next((event for event in self.events(instance_id, kind) if where(event)), None)

        try:
            await self.until(lambda: found() is not None, within_s)
        except TimeoutError:
            mine = [news for news in self.happened if news.instance_id == instance_id][-12:]
            log = self.log[-3000:].decode(errors="replace")
            raise AssertionError(f"no such {kind.__name__} in {within_s} s; told: {mine}\nlog:\n{log}") from None
        event = found()
        assert event is not None
        return event

    async def until(self, condition: Callable[[], bool], within_s: float = 20.0) -> None:
        """Wait for a condition of what was told or acknowledged."""
        async with self.news:
            await asyncio.wait_for(self.news.wait_for(condition), within_s)

    async def text(self, instance_id: str, words: str, within_s: float = 20.0) -> told.Message:
        """The first message with this text."""
        return await self.event(instance_id, told.Message, lambda event: text_of(event) == words, within_s)

    def texts(self, instance_id: str) -> list[str]:
        """The texts that were told, in order; as often as they were told."""
        return [words for event in self.events(instance_id, told.Message) if (words := text_of(event))]

    # --- its end ---

    async def end(self, number: int = signal.SIGTERM, within_s: float = 12.0) -> int:
        """End it by a signal (0: by closing its input) and return the exit status."""
        if number:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)
        else:
            assert self.process.stdin is not None
            self.process.stdin.close()
        status = await asyncio.wait_for(self.process.wait(), within_s)
        await asyncio.wait(self.tasks, timeout=5)
        return status

    async def release(self) -> None:
        """Wait for nothing more; for whoever ends it."""
        if self.process.returncode is None:
            self.process.kill()
        self.listening.set()
        await self.process.wait()
        await asyncio.wait(self.tasks, timeout=5)
        for task in self._commits:
            task.cancel()
        if self._commits:
            await asyncio.wait(self._commits)

    # --- inside ---

    async def _read(self) -> None:
        stdout = self.process.stdout
        assert stdout is not None
        try:
            async for line in stdout:
                await self.listening.wait()
                try:
                    message = _decode(line)
                except msgspec.DecodeError:
                    self.log += b"\nNOT OF THE PROTOCOL: " + line[:2000]
                    raise
                await self._hear(message)
        finally:  # after a line that is too long, too: a process is not over while its output is not read
            while await stdout.read(65536):
                pass

    async def _hear(self, message: FromMachine) -> None:
        if not self.ready.is_set():
            self.first.append(message)
        match message:
            case Hello():
                pass
            case Ready():
                self.ready.set()
            case Answer():
                self._answers.pop(message.id).set_result(message)
            case Happened():
                await self._note(News(message.instance_id, told.decode(bytes(message.event)), message.number))

    async def _note(self, news: News) -> None:
        async with self.news:
            self.happened.append(news)
            self.news.notify_all()
        if not news.number or news.instance_id in self.held:
            return
        task = asyncio.create_task(self._commit_one(news))
        self._commits.add(task)
        task.add_done_callback(self._commits.discard)

    async def _commit_one(self, news: News) -> None:
        if self._commit is not None:
            await self._commit(news)
        self.write(Acknowledge([news.number]))
        async with self.news:
            self.acknowledged.append(news)
            self.news.notify_all()

    async def _read_log(self) -> None:
        assert self.process.stderr is not None
        while chunk := await self.process.stderr.read(65536):
            self.log += chunk


def text_of(event: told.Message) -> str | None:
    """The words of a message that is a text; the host, too, takes one in that came as a file."""
    if event.file and Path(event.file).exists():
        event = msgspec.structs.replace(event, raw=Path(event.file).read_bytes())
    read = reading.read(event, reading.Known(Own(), {}))
    content = read.content if isinstance(read, port.MessageReceived) else None
    return content.message if isinstance(content, port.TextReceived) else None


async def until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    """Wait for a condition that nothing announces."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not become true in time"
        await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def machine(
    command: Sequence[str], environment: Mapping[str, str], *, commit: Commit | None = None
) -> AsyncIterator[Driven]:
    """A machine process, ready; killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(environment),
        limit=LINE_BYTES_MAX,
    )
    driven = Driven(process, commit)
    try:
        await driven.wait_ready()
        yield driven
    finally:
        await driven.release()
