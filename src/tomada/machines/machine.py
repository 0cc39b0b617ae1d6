"""One slot's machine, kept running: start, speak the protocol, notice the end, start again.

    start ─▶ Hello ─▶ Ready ─▶ requests and events ─▶ end ─▶ (pause) ─▶ start ...

- A machine that dies is started again at once; one that dies again before it was well for WELL_S waits half to all of
  1, 2, 4 .. 60 s. It touches no other machine: nothing is shared between slots but the host's loop.
- A line that is not of the protocol, another version, or silence before Ready: the process is killed, which is the
  same as dying. So is a machine that leaves a request without an answer and says nothing else meanwhile: it hangs.
- Events wait in lanes until they are committed. If more than PENDING_EVENTS_MAX or PENDING_BYTES_MAX of this machine's
  do, its output is not read until that is down by half; the rest waits in the machine, and there for WhatsApp. Answers
  wait in the same pipe, so requests made meanwhile may run into their deadlines; `stalled` tells that from deafness.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from random import Random  # noqa: TID251 - the type of what is passed in

import msgspec
import structlog

from tomada.engine.port import EngineRefused, MessageTooLarge
from tomada.errors import MachineTimeout, OutcomeUnknown, Unavailable
from tomada.kit.clock import Clock
from tomada.machines import protocol
from tomada.machines.backoff import half_jitter_s
from tomada.machines.pipe import Babble, MachinePipe, NotReading

log = structlog.get_logger(__name__)

START_SILENCE_S = 30.0  # it greets within milliseconds on an idle computer
STOP_S = 5.0
WELL_S = 60.0
PENDING_EVENTS_MAX = 1000
PENDING_BYTES_MAX = 16 << 20

_decoder: msgspec.json.Decoder[protocol.FromMachine] = msgspec.json.Decoder(protocol.FromMachine)
_encode = msgspec.json.Encoder().encode


class Launch(msgspec.Struct, frozen=True):
    """How a machine program is started; `{dir}` in the command is the slot's directory."""

    command: tuple[str, ...]
    environment: Mapping[str, str]


class Told(msgspec.Struct, frozen=True):
    """An event as a machine told it (`raw`: its JSON). `done` must be called once when it is dealt with."""

    instance_id: str
    raw: bytes
    done: Callable[[], None]


class MachineAway(Unavailable):
    """The instance's machine is being started; please try again"""

    code = "machine_away"


class Machine:
    """The machine of one slot."""

    def __init__(
        self,
        slot: int,
        machine_dir: Path,
        launch: Launch,
        clock: Clock,
        rng: Random,
        *,
        on_told: Callable[["Machine", Told], None],
        on_down: Callable[["Machine"], None],
        backoff_base_s: float = 1.0,
    ) -> None:
        self.slot = slot
        self.engine = ""
        self.restarts = 0
        self.stopping = False
        self.killed = False  # whether we ended the present process for what it did or did not do
        self._dir = machine_dir
        self._launch = launch
        self._clock = clock
        self._rng = rng
        self._on_told = on_told
        self._on_down = on_down
        self._backoff_base_s = backoff_base_s
        self._pipe: MachinePipe | None = None
        self._ready = asyncio.Event()
        self._answers: dict[int, asyncio.Future[protocol.Answer]] = {}
        self._request_id = 0
        self._heard_s = 0.0
        self._pending_events = 0
        self._pending_bytes = 0
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._acknowledge: list[int] = []
        self._deaths = 0
        self._task: asyncio.Task[None] | None = None

    # --- life ---

    def start(self) -> None:
        """Begin to keep a machine running in this slot."""
        self._task = asyncio.create_task(self._keep(), name=f"machine {self.slot}")

    async def stop(self) -> None:
        """End of input, up to STOP_S, then SIGKILL. Its process is gone when this returns."""
        self.stopping = True
        if self._pipe is not None and self._ready.is_set():
            self._pipe.end_input()
        if self._task is not None:
            done, _ = await asyncio.wait({self._task}, timeout=STOP_S if self._ready.is_set() else 0.0)
            if not done:
                self._task.cancel()
                await asyncio.wait({self._task})

    def kill(self, why: str) -> None:
        """End this process now; the slot gets another."""
        if self._pipe is not None:
            log.warning("machine.killed", slot=self.slot, pid=self._pipe.pid, why=why)
            self.killed = True
            self._pipe.kill()

    def recycle(self, why: str) -> None:
        """An orderly end of this process, up to STOP_S, then SIGKILL; the slot gets another at once."""
        if self._pipe is not None and self.ready:
            self._ready.clear()  # takes no more requests
            log.info("machine.recycled", slot=self.slot, pid=self._pipe.pid, why=why)
            self._deaths = -1
            self._pipe.end_input()
            asyncio.get_running_loop().call_later(STOP_S, self._kill_if_still, self._pipe)

    @property
    def pid(self) -> int | None:
        """The present process."""
        return self._pipe.pid if self._pipe is not None else None

    @property
    def ready(self) -> bool:
        """Whether it takes requests."""
        return self._ready.is_set()

    @property
    def stalled(self) -> bool:
        """Whether its output is left unread because too many of its events wait for the database."""
        return not self._may_read.is_set()

    @property
    def pending(self) -> int:
        """Events that wait."""
        return self._pending_events

    async def until_ready(self) -> None:
        """Wait until it takes requests."""
        await self._ready.wait()

    def _kill_if_still(self, pipe: MachinePipe) -> None:
        if pipe is self._pipe:
            self.kill("it did not end when it was to be renewed")

    # --- requests ---

    async def request(self, command: protocol.Command, timeout_s: float, *, kills: bool = True) -> msgspec.Raw:
        """The answer's value, as JSON. `kills` False: so short a silence is no sign of a machine that hangs.

        MachineAway: nothing was asked. EngineRefused (MessageTooLarge among them): nothing was done. OutcomeUnknown,
        MachineTimeout: it may have been done.
        """
        if self._pipe is None or not self.ready:
            raise MachineAway
        pipe, asked_s = self._pipe, self._clock.monotonic_s()
        self._request_id += 1
        line = _encode(protocol.Request(self._request_id, command))
        if len(line) > protocol.LINE_BYTES_MAX:
            raise MessageTooLarge
        answer: asyncio.Future[protocol.Answer] = asyncio.get_running_loop().create_future()
        self._answers[self._request_id] = answer
        request_id = self._request_id
        try:
            pipe.write(line)
            async with asyncio.timeout(timeout_s):
                return _value(await answer)
        except NotReading:
            raise MachineAway from None
        except TimeoutError:
            if kills and pipe is self._pipe and self._heard_s <= asked_s and not self.stalled:
                self.kill("it leaves requests without an answer")
            raise MachineTimeout from None
        finally:
            del self._answers[request_id]

    # --- inside ---

    async def _keep(self) -> None:
        while True:
            started_s = self._clock.monotonic_s()
            await self._live()
            if self.stopping:
                return
            self._deaths = 1 if self._clock.monotonic_s() - started_s >= WELL_S else self._deaths + 1
            self.restarts += 1
            pause_s = half_jitter_s(self._deaths - 1, self._rng, self._backoff_base_s) if self._deaths > 1 else 0.0
            log.warning("machine.restarting", slot=self.slot, deaths=self._deaths, pause_s=round(pause_s, 2))
            await asyncio.sleep(pause_s)

    async def _live(self) -> None:
        """One process from start to end; never raises but for cancellation."""
        try:
            command = [part.replace("{dir}", str(self._dir)) for part in self._launch.command]
            pipe = await MachinePipe.start(command, self._launch.environment, self.slot)
        except OSError as error:
            log.error("machine.cannot_start", slot=self.slot, error=str(error))
            return
        self._pipe = pipe
        self.killed = False
        self._acknowledge = []
        why = "it closed its output"
        try:
            await self._converse(pipe)
        except Babble as error:
            why = str(error)
            pipe.kill()
        except asyncio.CancelledError:
            why = "the host stops"
            pipe.kill()
            raise
        except Exception:  # a fault of ours: what we did not take is not acknowledged, and WhatsApp brings it again
            log.exception("machine.not_understood", slot=self.slot)
            why = "we failed to follow it"
            pipe.kill()
        finally:
            self._ready.clear()
            self._pipe = None
            status = await asyncio.shield(pipe.end(STOP_S))
            self._fail_answers()
            log.info("machine.ended", slot=self.slot, pid=pipe.pid, status=status, why=why)
            self._on_down(self)

    async def _converse(self, pipe: MachinePipe) -> None:
        lines = pipe.lines()
        hello = await self._next(lines, START_SILENCE_S)
        if hello is None:
            return
        if not isinstance(hello, protocol.Hello) or hello.version != protocol.VERSION:
            raise Babble(f"its first words are not a Hello of version {protocol.VERSION} of the machine protocol")
        self.engine = hello.engine
        log.info("machine.started", slot=self.slot, pid=pipe.pid, engine=hello.engine)
        while (message := await self._next(lines, None if self.ready else START_SILENCE_S)) is not None:
            self._hear(message)
            await self._may_read.wait()

    async def _next(self, lines: AsyncIterator[bytes], silence_s: float | None) -> protocol.FromMachine | None:
        """The next message; None at the end. Babble for nonsense or too long a silence."""
        try:
            async with asyncio.timeout(silence_s):
                line = await anext(lines, None)
        except TimeoutError:
            raise Babble("it was silent for too long before it was ready") from None
        if line is None:
            return None
        self._heard_s = self._clock.monotonic_s()
        try:
            message = _decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Babble("it said something that is not of the protocol") from None
        if isinstance(message, protocol.Happened):
            self._count(1, len(line))
            self._tell(message, len(line))
        return message

    def _hear(self, message: protocol.FromMachine) -> None:
        match message:
            case protocol.Happened():
                pass  # counted and passed on where its size was known
            case protocol.Answer():
                answer = self._answers.get(message.id)
                if answer is not None and not answer.done():
                    answer.set_result(message)
            case protocol.Ready() if not self.ready:
                self._ready.set()
            case _:
                raise Babble("it greeted twice")

    def _tell(self, happened: protocol.Happened, size: int) -> None:
        pipe, number = self._pipe, happened.number

        def done() -> None:
            self._count(-1, -size)
            if number and pipe is self._pipe:  # a later process counts anew
                self._acknowledge_soon(number)

        self._on_told(self, Told(happened.instance_id, bytes(happened.event), done))

    def _acknowledge_soon(self, number: int) -> None:
        """All that is done within one turn of the loop is acknowledged in one line."""
        if not self._acknowledge:
            asyncio.get_running_loop().call_soon(self._send_acknowledge, self._pipe)
        self._acknowledge.append(number)

    def _send_acknowledge(self, pipe: MachinePipe | None) -> None:
        if pipe is None or pipe is not self._pipe:
            return
        numbers, self._acknowledge = self._acknowledge, []
        try:
            pipe.write(_encode(protocol.Acknowledge(numbers)))
        except NotReading:
            log.warning("machine.acknowledge_not_read", slot=self.slot)  # WhatsApp brings these again

    def _count(self, events: int, size: int) -> None:
        self._pending_events += events
        self._pending_bytes += size
        share = max(self._pending_events / PENDING_EVENTS_MAX, self._pending_bytes / PENDING_BYTES_MAX)
        if share >= 1.0:
            self._may_read.clear()
        elif share <= 0.5:
            self._may_read.set()

    def _fail_answers(self) -> None:
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(OutcomeUnknown("The instance's machine stopped before it answered"))


def _value(answer: protocol.Answer) -> msgspec.Raw:
    if not answer.kind:
        return answer.value
    if answer.kind == "unknown":
        raise OutcomeUnknown(answer.error)
    raise EngineRefused(answer.error, retry=answer.kind == "retry", code=answer.code)
