"""One instance's session in the host: keeps what runs in the machine in line with what the state machine wants.

Two halves. `happen` is called for whatever happens, takes a decision at once and notes what is to be done; it never
waits. `run` is a loop that does it, one step at a time: close, erase, wait, open. So a session never has two orders
under way, the newest decision wins, and a decision taken while a step runs is looked at when that step is over.

Before each opening, in this order, because the queue of outgoing messages relies on it: everything told of this
instance is committed, and `opening` has been called. Only then is a message found in the state `sending` known to have
no living sender.

Whether a phone is paired is what the session store says, not our row: a kill between a pairing and our note of it, or
between a log-out and ours, is found at the next opening, whose answer names the device or none.
"""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random  # noqa: TID251 - the type of what is passed in
from typing import Protocol

import msgspec
import structlog

from tomada.engine import port
from tomada.errors import MachineTimeout, NotFound, OutcomeUnknown, Unavailable
from tomada.kit.clock import Clock
from tomada.machines import protocol
from tomada.machines import session_state as state_machine
from tomada.machines.backoff import full_jitter_s, half_jitter_s
from tomada.machines.machine import Machine, MachineAway
from tomada.machines.session_state import SessionState
from tomada.machines.settings import HostSettings
from tomada.machines.store import row_of

log = structlog.get_logger(__name__)


class Around(Protocol):
    """What a session needs of the host."""

    settings: HostSettings
    clock: Clock
    rng: Random

    def place(self) -> Machine:
        """A machine with room."""

    def save(self, session: "HostedSession") -> None:
        """Queue the writing of the session's row."""

    async def committed(self, instance_id: str) -> None:
        """Wait until everything told of an instance is committed."""

    def place_in_line_s(self, *, recovering: bool) -> float:
        """Take a place in one of the two paces; seconds to wait for it."""

    async def spec(self, session: "HostedSession") -> protocol.Spec:
        """How to open it. NotFound if the instance is gone, or has another machine than the one to be paired."""

    async def opening(self, instance_id: str) -> None:
        """It is about to be opened; see the module."""

    async def erase_keys(self, session: "HostedSession") -> None:
        """Remove the session's keys."""

    def tell(self, session: "HostedSession", event: port.EngineEvent) -> None:
        """Pass on an event of the session that no machine told."""


class HostedSession:
    """The session of one machine of an instance; `epoch` says of which, and never changes."""

    def __init__(self, instance_id: str, epoch: int, state: SessionState, around: Around) -> None:
        self.instance_id = instance_id
        self.epoch = epoch
        self.state = state
        self.machine: Machine | None = None
        self.code: port.QrIssued | None = None
        self.probe_due_s = 0.0
        self.probes_failed = 0
        self._around = around
        self._saved = row_of(state)
        self._in_machine = False  # asked to open, and neither closed nor gone with its machine since
        self._must_close = False
        self._must_erase = False
        self._open_at_s: float | None = None  # monotonic; None: not to be opened
        self._recovering = False
        self._mishaps = 0  # openings in a row that failed on our side of the pipe (database away)
        self._changed = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._watch: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    # --- what happens ---

    def happen(self, happening: state_machine.Happening) -> None:
        """Decide, and note what is to be done."""
        before = self.state
        self.state, actions = state_machine.decide(before, happening, self._around.clock.now_ms())
        if isinstance(happening, port.QrIssued) and self.state.pairing:
            self.code = happening
        if not self.state.pairing:
            self.code = None
        for action in actions:
            self._plan(action)
        self._settle_in()

    def machine_down(self) -> None:
        """Its machine's process is gone, and the engine's session with it."""
        killed = self.machine is not None and self.machine.killed
        self._in_machine = self._must_close = False
        self.happen(state_machine.MachineDied(killed))
        self._changed.set()

    async def until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait for something to become true of this session; False if it has not in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    news = asyncio.get_running_loop().create_future()
                    self._waiting.append(news)
                    await news
        except TimeoutError:
            return condition()
        return True

    @property
    def at_rest(self) -> bool:
        """Whether nothing runs in a machine and nothing is planned."""
        return not (self._in_machine or self._must_close or self._must_erase or self._open_at_s is not None)

    def start(self) -> None:
        """Begin to act."""
        self._task = asyncio.create_task(self._run(), name=f"session {self.instance_id}")

    async def stop(self) -> None:
        """Stop acting; what runs in the machine goes on."""
        if self._watch is not None:
            self._watch.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    # --- deciding ---

    def _plan(self, action: state_machine.Action) -> None:
        match action:
            case state_machine.Watch():
                self._watch_for(action.kind)
                return
            case state_machine.LogLoudly():
                log.error("session.needs_the_operator", instance=self.instance_id, words=action.words)
                return
            case state_machine.EraseKeys():
                self._must_erase = True
            case _:
                self._must_close = self._in_machine
                self._open_at_s = self._opening_time_s(action)
                self._recovering = not isinstance(action, state_machine.OpenNow)
        self._changed.set()

    def _opening_time_s(self, action: state_machine.Action) -> float | None:
        now_s, settings, rng = self._around.clock.monotonic_s(), self._around.settings, self._around.rng
        match action:
            case state_machine.OpenNow():
                return now_s
            case state_machine.OpenAfterFailure(attempt=0):
                return now_s
            case state_machine.OpenAfterFailure():
                return now_s + full_jitter_s(action.attempt, rng, settings.backoff_base_s, settings.backoff_cap_s)
            case state_machine.OpenAt():
                wait_ms = max(0, action.at_ms - self._around.clock.now_ms())
                return now_s + (wait_ms + rng.uniform(0, action.spread_ms)) / 1000
            case _:
                return None

    def _watch_for(self, kind: str) -> None:
        settings = self._around.settings
        timeout_s = settings.reconnect_grace_s if kind == "reconnect" else settings.connect_timeout_s
        if self._watch is not None:
            self._watch.cancel()
        loop = asyncio.get_running_loop()
        self._watch = loop.call_later(timeout_s, self.happen, state_machine.GraceOver())

    def _settle_in(self) -> None:
        """After every change of state: the row, the watch, the probes, and whoever waits."""
        if self._watch is not None and (not self.state.running or self.state.condition == "connected"):
            self._watch.cancel()
            self._watch = None
        if self.state.condition != "connected":
            self.probe_due_s, self.probes_failed = 0.0, 0
        if row_of(self.state) != self._saved:
            self._saved = row_of(self.state)
            self._around.save(self)
        self._tell_waiting()

    def _tell_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for news in waiting:
            if not news.done():
                news.set_result(None)

    # --- acting ---

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            try:
                await self._step()
            except Exception:  # a fault of ours must not leave this session without its keeper
                log.exception("session.step_failed", instance=self.instance_id)
                await asyncio.sleep(1.0)
            self._tell_waiting()

    async def _step(self) -> None:
        if self._must_close:
            await self._close()
        elif self._must_erase:
            await self._erase()
        elif self._open_at_s is None:
            self._release()
            self._tell_waiting()
            await self._changed.wait()
        elif (wait_s := self._open_at_s - self._around.clock.monotonic_s()) > 0:
            await self._unless_changed(asyncio.sleep(wait_s))
        else:
            await self._open()

    async def _close(self) -> None:
        self._must_close = False
        machine = self.machine
        if machine is None or not self._in_machine:
            return
        try:
            await machine.request(protocol.CloseSession(self.instance_id), self._around.settings.close_timeout_s)
        except MachineTimeout:
            if machine.stalled:  # its answer may lie unread before our door
                self._must_close = True
                return
            machine.kill("it does not close a session")  # two clients with one key must never be
        except (Unavailable, port.EngineRefused):
            pass  # the machine is gone, or has no such session
        self._in_machine = False

    async def _erase(self) -> None:
        """Remove the keys; tried again while the database is away, unless something newer is to be done."""
        try:
            await self._around.erase_keys(self)
            self._must_erase = False
        except (Unavailable, OSError):
            await self._unless_changed(asyncio.sleep(1.0))

    def _release(self) -> None:
        """Give the place back."""
        if self.machine is not None and not self.state.wanted and not self._in_machine:
            self.machine = None

    async def _open(self) -> None:
        if self.machine is None or self.machine.stopping:
            self.machine = self._around.place()
        machine = self.machine
        if not await self._unless_changed(machine.until_ready()):
            return
        if not await self._unless_changed(self._around.committed(self.instance_id)):
            return
        if not await self._unless_changed(asyncio.sleep(self._around.place_in_line_s(recovering=self._recovering))):
            return
        try:
            spec = await self._around.spec(self)
            await self._around.opening(self.instance_id)
        except NotFound:
            log.info("session.instance_gone", instance=self.instance_id)
            self._open_at_s = None
            return
        except (Unavailable, OSError):
            self._postpone()
            return
        if not self._changed.is_set():
            self._mishaps = 0
            await self._open_in(machine, spec)

    async def _open_in(self, machine: Machine, spec: protocol.Spec) -> None:
        self._open_at_s = None
        self._in_machine = True
        log.info("session.opening", instance=self.instance_id, slot=machine.slot, pid=machine.pid)
        self.happen(state_machine.Opening())
        try:
            answer = await machine.request(protocol.OpenSession(spec), self._around.settings.open_timeout_s)
        except MachineAway:
            self._in_machine = False
            self.happen(state_machine.OpenFailed("Its process is being started."))
        except (MachineTimeout, OutcomeUnknown):
            self.happen(state_machine.OpenFailed("The engine did not start in time."))
        except port.EngineRefused as refusal:
            self._in_machine = False
            self.happen(state_machine.OpenFailed(str(refusal)))
        else:
            self._opened(msgspec.json.decode(answer, type=protocol.Opened), spec)

    def _opened(self, opened: protocol.Opened, spec: protocol.Spec) -> None:
        if opened.device or spec.pair:
            self.happen(state_machine.Opened(bool(opened.device)))
        else:
            self._in_machine = False  # nothing was started
            if self.state.wanted:
                self._around.tell(self, port.LoggedOut("its keys are gone"))
            self.happen(state_machine.NoDevice())

    def _postpone(self) -> None:
        """The database is away: that says nothing of WhatsApp, so it is no failure of the session."""
        self._mishaps += 1
        pause_s = half_jitter_s(self._mishaps, self._around.rng)
        if self._open_at_s is not None:
            self._open_at_s = self._around.clock.monotonic_s() + pause_s

    async def _unless_changed(self, awaited: Awaitable[object]) -> bool:
        """Wait, but not past a new decision; False if there was one."""
        work = asyncio.ensure_future(awaited)
        change = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait({work, change}, return_when=asyncio.FIRST_COMPLETED)
            return work.done() and not self._changed.is_set()
        finally:
            for task in (work, change):
                task.cancel()
            await asyncio.gather(work, change, return_exceptions=True)
