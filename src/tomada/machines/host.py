"""The host of machines: which session lives where, what its machines tell, and how all of it starts and stops.

    PostgreSQL ◀─ rows ── HostedSession ── requests ─▶ Machine ◀─ pipe ─▶ process
         ▲                     ▲ happen                   │ told
         └── on_event ◀── Lanes ◀─────────────────────────┘

Start, in this order: leftovers of a killed host are waited for (their slots' locks); machines start, first those whose
journal holds something; every wanted session is opened, at the orderly pace, but one of which journals hold something
when these have told it, however long that takes. Two paces exist, one for starts of ours and one for failures:
backoff.py says why.

Guarantees, and what each rests on:
- An event with a journal number is acknowledged when `on_event` has returned for it and for all before it, never
  earlier (ledger.py, lanes.py). Per instance, events are handled in the order in which its machine told them.
- An event that fails by a fault of its own (lanes.py says which, TRIES_MAX times) is put into the file `poisoned`
  beside the journal, and acknowledged: one bad event must not silence an instance.
- One session with one key lives at most once on this computer: the machines' locks, the closing before each opening,
  and the killing of a machine that does not close a session in time.
- A machine that dies touches no other; its sessions are opened again in the new process of the same slot.
- Of the machines that an instance had one after the other, one at most is hosted, and what an older one still does is
  not taken for the newer one's: keys lie under a machine's epoch; rows and events of a session need it to be the
  instance's; a phone can be paired with no machine but the one that the instance has. While an older one is being
  removed, calls are answered by FormerMachine.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from random import Random  # noqa: TID251 - the type of what is passed in
from typing import Protocol

import msgspec
import structlog

from tomada.engine import port
from tomada.errors import NotFound, SubscriptionNeeded, Unavailable
from tomada.kit.clock import Clock
from tomada.machines import backoff, store
from tomada.machines import session_state as state_machine
from tomada.machines.lanes import Lanes, Work
from tomada.machines.machine import Launch, Machine, Told
from tomada.machines.probing import probe_for_ever
from tomada.machines.session import HostedSession
from tomada.machines.settings import HostSettings
from tomada.machines.slots import Folders, Poisoned, until_unlocked
from tomada.machines.tending import tend_for_ever

log = structlog.get_logger(__name__)

LEFTOVER_S = 8.0  # a machine finishes what is under way for 5 s after its host is gone

_OF_THE_SESSION = (
    *(port.QrIssued, port.PairingEnded, port.Paired, port.Connected, port.Named, port.Disconnected),
    *(port.LoggedOut, port.Replaced, port.Banned, port.Outdated, port.ConnectFailed, port.SessionEnded),
)

# instance id, event, and the number of this occurrence: the same number means the same event, told again.
OnEvent = Callable[[str, port.EngineEvent, int], Awaitable[None]]
Opening = Callable[[str], Awaitable[None]]


class FormerMachine(Unavailable):
    """The former machine of this instance is still being removed, please try again in a moment"""

    code = "former_machine"


class SpecSource(Protocol):
    """Knows how an instance's session is to be opened."""

    async def spec(self, instance_id: str) -> port.SessionSpec:
        """Its session name and proxy; an empty `store` means the default file. NotFound if there is no instance."""


class Figures(msgspec.Struct, frozen=True):
    """The host in numbers, for metrics."""

    sessions: dict[str, int]  # by condition
    machines: int
    machines_ready: int
    machine_restarts: int
    openings: int
    recoveries: int  # openings after a failure: reconnects of ours, not the engine's own
    probes_failed: int
    deaf_restarts: int
    events_waiting: int
    events_put_aside: int
    lanes_stuck: int


async def _nothing(_instance_id: str) -> None:
    """The default of `opening`."""


class Host:
    """All machines and sessions of this node."""

    def __init__(
        self,
        data_dir: Path,
        launch: Launch,
        database: store.Database,
        specs: SpecSource,
        on_event: OnEvent,
        clock: Clock,
        rng: Random,
        settings: HostSettings | None = None,
        opening: Opening = _nothing,
    ) -> None:
        self.settings = settings or HostSettings()
        self.clock = clock
        self.rng = rng
        self.folders = Folders(data_dir)
        self.sessions: dict[str, HostedSession] = {}
        self.machines: dict[int, Machine] = {}
        self.lanes = Lanes(rng)
        self.probes_failed = 0
        self.deaf_restarts = 0
        self._launch = launch
        self._database = database
        self._specs = specs
        self._on_event = on_event
        self._before_opening = opening
        self._orderly = backoff.Pace(self.settings.orderly_burst)
        self._recovery = backoff.Pace()
        self._openings = self._recoveries = self._restarts_of_gone = self._last_occurrence = 0
        self._telling: dict[str, list[asyncio.Task[None]]] = {}  # instance -> the journals of earlier lives to be told
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    # --- start and stop ---

    async def start(self) -> None:
        """Bring everything back; returns when every wanted session is on its way, not when it is connected."""
        wanted = await store.read_wanted(self._database)
        for one in wanted:
            self._host(one)
        slots = self.folders.slots()
        await asyncio.gather(*(until_unlocked(self.folders.machine(slot), LEFTOVER_S) for slot in slots))
        telling = [self._tell_journal(slot, instances) for slot in slots if (instances := self.folders.journaled(slot))]
        while len(self.machines) * self.settings.instances_per_machine <= len(wanted):
            self.start_machine()  # one place more than needed: the first QR code does not wait for a process
        for session in list(self.sessions.values()):
            session.happen(state_machine.Boot())
            session.start()
        self._tasks = [
            asyncio.create_task(probe_for_ever(self), name="probe sessions"),
            asyncio.create_task(tend_for_ever(self), name="tend machines"),
            *telling,
        ]

    async def stop(self) -> None:
        """Machines end in order, within seconds; what they told and we did not commit stays in their journals."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(session.stop() for session in self.sessions.values()))
        await asyncio.gather(*(machine.stop() for machine in self.machines.values()))
        await self.lanes.close()

    async def hosted(self, instance_id: str) -> HostedSession | None:
        """The session of an instance, hosted from now on; None if there is no such instance.

        Raises FormerMachine; SubscriptionNeeded if its time is over, for what it had is only removed any more.
        """
        row = await store.read_one(self._database, instance_id)
        if row is None:
            return None
        session = self.sessions.get(instance_id)
        if row.leaving or (session is not None and session.epoch != row.epoch):
            raise FormerMachine
        if session is None:
            if not row.serving:
                raise SubscriptionNeeded
            session = self._host(row)
            session.happen(state_machine.Boot())
            session.start()
        return session

    async def look(self, instance_id: str) -> state_machine.SessionState | None:
        """The state of a session without hosting it; None if there is no such instance."""
        row = await store.read_one(self._database, instance_id)
        if row is None:
            return None
        session = self.sessions.get(instance_id)
        if session is not None and session.epoch == row.epoch:
            return session.state
        return msgspec.structs.replace(row.state, reason=FormerMachine.__doc__) if row.leaving else row.state

    def former(self, instance_id: str, before: int) -> list[int]:
        """The machines of an instance from before an epoch of which something is left; a hosted one first."""
        session = self.sessions.get(instance_id)
        hosted = [session.epoch] if session is not None else []
        epochs = dict.fromkeys(hosted + self.folders.epochs(instance_id))
        return [epoch for epoch in epochs if epoch < before]

    async def recalled(self, instance_id: str, epoch: int) -> HostedSession:
        """A former machine's session, not hosted so far: hosted as one to be connected, whatever its row says."""
        row = await store.read_one(self._database, instance_id)
        state = state_machine.SessionState()
        if row is not None and row.epoch == epoch:
            state = row.state
        if not state.wanted:
            state = state_machine.SessionState(wanted=True, condition="disconnected")
        session = self._host(store.StoredSession(instance_id, epoch, state, serving=False))
        session.start()
        return session

    async def let_go(self, session: HostedSession) -> None:
        """Host this session no longer. Off the list before it stops: nobody may ask one that has stopped."""
        if self.sessions.get(session.instance_id) is session:
            del self.sessions[session.instance_id]
        await session.stop()

    def figures(self) -> Figures:
        """Counters and gauges, as they are now."""
        machines = self.machines.values()
        return Figures(
            sessions=dict(Counter(session.state.condition for session in self.sessions.values())),
            machines=len(machines),
            machines_ready=sum(machine.ready for machine in machines),
            machine_restarts=self._restarts_of_gone + sum(machine.restarts for machine in machines),
            openings=self._openings,
            recoveries=self._recoveries,
            probes_failed=self.probes_failed,
            deaf_restarts=self.deaf_restarts,
            events_waiting=sum(machine.pending for machine in machines),
            events_put_aside=self.lanes.put_aside_total,
            lanes_stuck=self.lanes.stuck,
        )

    # --- what sessions ask (session.Around, probing.Probed) ---

    def all_sessions(self) -> Iterable[HostedSession]:
        """Every hosted session."""
        return list(self.sessions.values())

    def place(self) -> Machine:
        """The emptiest machine with room, else a new one."""
        hosted = self.hosted_by_slot()
        room = [
            machine
            for machine in self.machines.values()
            if not machine.stopping and hosted[machine.slot] < self.settings.instances_per_machine
        ]
        return min(room, key=lambda machine: (hosted[machine.slot], machine.slot)) if room else self.start_machine()

    def save(self, session: HostedSession) -> None:
        """Queue the writing of a session's row, in order with its events."""
        state, instance_id = session.state, session.instance_id
        work = Work(
            run=lambda: store.save(self._database, instance_id, session.epoch, state),
            put_aside=lambda _error: None,  # the lane logs it; the next change writes the whole row again
            done=lambda: None,
            label=f"row {state.condition}",
        )
        self.lanes.add(instance_id, work)

    async def committed(self, instance_id: str) -> None:
        """Wait until everything that journals hold of an instance is told, and everything told is committed."""
        for telling in self._telling.get(instance_id, ()):
            await asyncio.shield(telling)
        await self.lanes.idle(instance_id)

    def place_in_line_s(self, *, recovering: bool) -> float:
        """Take a place in one of the two paces; seconds to wait for it."""
        self._openings += 1
        now_s = self.clock.monotonic_s()
        if not recovering:
            return self._orderly.reserve(now_s, self.settings.orderly_rate)
        self._recoveries += 1
        return self._recovery.reserve(now_s, backoff.recovery_rate(len(self.sessions)))

    async def spec(self, session: HostedSession) -> port.SessionSpec:
        """How to open a session, with the default store if the source names none.

        The last look before a round of codes: whoever removes a machine that was lost after it finds the session here.
        """
        instance_id, epoch = session.instance_id, session.epoch
        spec = await self._specs.spec(instance_id)
        pairing = not session.state.wanted
        if pairing and not await store.is_machine(self._database, instance_id, epoch, serving=True):
            raise NotFound
        if spec.store:
            return spec
        return msgspec.structs.replace(spec, store=str(self.folders.store(instance_id, epoch)))

    async def opening(self, instance_id: str) -> None:
        """A session is about to be opened."""
        await self._before_opening(instance_id)

    def erase_keys(self, session: HostedSession) -> None:
        """Remove the default session store; one elsewhere is emptied by the engine when it logs out."""
        self.folders.erase_store(session.instance_id, session.epoch)

    def tell(self, session: HostedSession, event: port.EngineEvent) -> None:
        """Pass on an event of a session that no machine told (it has no number)."""
        told = Told(session.instance_id, event, None, False, lambda: None)
        self.lanes.add(session.instance_id, self._work(None, told, session.epoch))

    # --- what tending does (tending.Tended) ---

    def hosted_by_slot(self) -> Counter[int]:
        """How many sessions each machine has."""
        return Counter(session.machine.slot for session in self.sessions.values() if session.machine is not None)

    def start_machine(self, slot: int | None = None) -> Machine:
        """In the lowest free slot, or a given one."""
        if slot is None:
            slot = next(number for number in range(len(self.machines) + 1) if number not in self.machines)
        machine = Machine(
            slot,
            self.folders.machine(slot),
            self._launch,
            self.clock,
            self.rng,
            on_told=self._told,
            on_down=self._machine_down,
            backoff_base_s=self.settings.machine_backoff_base_s,
        )
        self.machines[slot] = machine
        machine.start()
        return machine

    async def retire(self, machine: Machine) -> None:
        """End a machine that hosts nobody. Its slot may be used again."""
        machine.stopping = True
        await machine.stop()
        self._restarts_of_gone += machine.restarts
        del self.machines[machine.slot]

    # --- inside ---

    def _host(self, row: store.StoredSession) -> HostedSession:
        session = HostedSession(row.instance_id, row.epoch, row.state, self)
        self.sessions[row.instance_id] = session
        return session

    def _tell_journal(self, slot: int, instances: set[str]) -> asyncio.Task[None]:
        """Start the machine of a slot; the task is done when it has told what its journal holds of these instances."""
        telling = asyncio.create_task(self.start_machine(slot).until_ready(), name=f"journal {slot}")
        for instance_id in instances:
            self._telling.setdefault(instance_id, []).append(telling)
        return telling

    def _told(self, machine: Machine, told: Told) -> None:
        """What a machine told: first the state (so that a receiver who asks sees it), then the event itself."""
        epoch = None
        if isinstance(told.event, _OF_THE_SESSION):
            session = self.sessions.get(told.instance_id)
            if told.replayed:
                self._replayed(machine, told, session)
            elif session is not None and session.machine is machine:
                epoch = session.epoch
                session.happen(told.event)
        self.lanes.add(told.instance_id, self._work(machine.slot, told, epoch))

    def _replayed(self, machine: Machine, told: Told, session: HostedSession | None) -> None:
        """A pairing that we may never have written down; only if its keys are there."""
        epoch = max(self.folders.epochs(told.instance_id), default=0)
        if not isinstance(told.event, port.Paired | port.Connected) or not self.folders.has_keys(
            told.instance_id, epoch
        ):
            return
        if session is None:
            session = self._host(store.StoredSession(told.instance_id, epoch, state_machine.SessionState(), True))
            session.start()
        if not session.state.wanted and session.epoch == epoch:
            session.machine = machine
            session.replayed(told.event)

    def _work(self, slot: int | None, told: Told, epoch: int | None) -> Work:
        """Pass an event on; with an epoch only if that is still the instance's machine."""

        def put_aside(error: Exception) -> None:
            if slot is not None and told.journal is not None:
                now_ms, kind = self.clock.now_ms(), type(error).__name__
                poisoned = Poisoned(now_ms, told.instance_id, told.journal, kind, told.event)
                self.folders.put_aside(slot, poisoned)

        occurrence = told.journal if told.journal is not None else self._next_occurrence()  # one for all tries
        return Work(
            run=lambda: self._pass_on(told, occurrence, epoch),
            put_aside=put_aside,
            done=told.done,
            label=f"{type(told.event).__name__} {told.journal}",
        )

    def _next_occurrence(self) -> int:
        """For what is in no journal: the time, but never the same number twice."""
        self._last_occurrence = max(self._last_occurrence + 1, self.clock.now_ms())
        return self._last_occurrence

    async def _pass_on(self, told: Told, occurrence: int, epoch: int | None) -> None:
        if epoch is None or await store.is_machine(self._database, told.instance_id, epoch):
            await self._on_event(told.instance_id, told.event, occurrence)

    def _machine_down(self, machine: Machine) -> None:
        if self._stopping:
            return
        for session in self.all_sessions():
            if session.machine is machine:
                session.machine_down()
