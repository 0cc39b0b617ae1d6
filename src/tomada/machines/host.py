"""The host of machines: which session lives where, what its machines tell, and how all of it starts and stops.

    PostgreSQL ◀─ rows ── HostedSession ── requests ─▶ Machine ◀─ pipe ─▶ process
         ▲                     ▲ happen                   │ told
         └── on_event ◀── Lanes ◀─────────────────────────┘

Start, in this order: leftovers of a killed host are waited for (their slots' locks); machines start; every wanted
session is opened, at the orderly pace. Two paces exist, one for starts of ours and one for failures: backoff.py says
why.

Guarantees, and what each rests on:
- An event with a number is acknowledged to its machine, and only then by it to WhatsApp, when `on_event` has returned
  for it (lanes.py). Per instance, events are handled in the order in which its machine told them.
- An event that fails by a fault of its own (lanes.py says which, TRIES_MAX times), or that we do not know, is put into
  quarantine as the machine told it, and acknowledged: one bad event must not silence an instance.
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

from tomada.engine import port, reading, told
from tomada.engine.addresses import Own
from tomada.errors import NotConnected, NotFound, SubscriptionNeeded, TomadaError, Unavailable
from tomada.kit.clock import Clock
from tomada.machines import backoff, keys, protocol, quarantine, store
from tomada.machines import session_state as state_machine
from tomada.machines.database import Database
from tomada.machines.lanes import Lanes, Work
from tomada.machines.machine import Launch, Machine, Told
from tomada.machines.probing import probe_for_ever
from tomada.machines.session import HostedSession
from tomada.machines.settings import HostSettings
from tomada.machines.slots import Folders, until_unlocked
from tomada.machines.tending import tend_for_ever

log = structlog.get_logger(__name__)

LEFTOVER_S = 8.0  # a machine finishes what is under way for 5 s after its host is gone

LAST_WORDS_S = 2.0  # at a stop: to commit what machines told at their end, the outcomes of sends above all
NUMBERS_S = 2.0  # an event waits so long for the number of whom it quotes

_OF_THE_SESSION = {
    *(told.QrIssued, told.PairingEnded, told.Paired, told.Connected, told.Named, told.Disconnected),
    *(told.LoggedOut, told.Replaced, told.Banned, told.Outdated, told.ConnectFailed),
}
_NOTHING_KNOWN = reading.Known(Own(), {})

# instance id, event, and the number of this occurrence: the same number means the same event, handled again.
OnEvent = Callable[[str, port.EngineEvent, int], Awaitable[None]]
Opening = Callable[[str], Awaitable[None]]


class FormerMachine(Unavailable):
    """The former machine of this instance is still being removed, please try again in a moment"""

    code = "former_machine"


class SpecSource(Protocol):
    """Knows how an instance's session is to be opened."""

    async def session_name(self, instance_id: str) -> str:
        """What the phone shows under linked devices. NotFound if there is no instance."""


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
    events_quarantined: int
    lanes_stuck: int


def _taken_in(event: told.Message) -> told.Message:
    """A message that was too long for a line, with its bytes. The file was only the way here."""
    file = Path(event.file)
    raw = file.read_bytes()
    file.unlink(missing_ok=True)
    return msgspec.structs.replace(event, raw=raw, file="")


async def _left_out(_error: Exception) -> None:
    """What becomes of work that no event stands behind, or one that is told anew: the lane logs it."""


async def _nothing(_instance_id: str) -> None:
    """The default of `opening`."""


class Host:
    """All machines and sessions of this node."""

    def __init__(
        self,
        data_dir: Path,
        launch: Launch,
        database: Database,
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
        self.quarantined = 0
        self._launch = launch
        self._database = database
        self._specs = specs
        self._on_event = on_event
        self._before_opening = opening
        self._orderly = backoff.Pace(self.settings.orderly_burst)
        self._recovery = backoff.Pace()
        self._openings = self._recoveries = self._restarts_of_gone = self._last_occurrence = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    # --- start and stop ---

    async def start(self) -> None:
        """Bring everything back; returns when every wanted session is on its way, not when it is connected."""
        wanted, found = await store.read_wanted(self._database), await store.read_found(self._database)
        for one in (*wanted, *found):
            self._host(one)
        slots = self.folders.slots()
        await asyncio.gather(*(until_unlocked(self.folders.machine(slot), LEFTOVER_S) for slot in slots))
        while len(self.machines) * self.settings.instances_per_machine <= len(self.sessions):
            self.start_machine()  # one place more than needed: the first QR code does not wait for a process
        for one in found:
            self.sessions[one.instance_id].happen(state_machine.FoundDevice())
        for one in wanted:
            self.sessions[one.instance_id].happen(state_machine.Boot())
        for session in self.all_sessions():
            session.start()
        self._tasks = [
            asyncio.create_task(probe_for_ever(self), name="probe sessions"),
            asyncio.create_task(tend_for_ever(self), name="tend machines"),
        ]

    async def stop(self) -> None:
        """Machines end in order, within seconds; what they told and we did not commit, WhatsApp brings again."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(session.stop() for session in self.sessions.values()))
        await asyncio.gather(*(machine.stop() for machine in self.machines.values()))
        await self.lanes.close(LAST_WORDS_S)

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

    async def former(self, instance_id: str, before: int) -> list[int]:
        """The machines of an instance from before an epoch of which something is left; a hosted one first."""
        session = self.sessions.get(instance_id)
        hosted = [session.epoch] if session is not None else []
        epochs = dict.fromkeys(hosted + await keys.epochs(self._database, instance_id))
        return [epoch for epoch in epochs if epoch < before]

    async def has_keys(self, instance_id: str, epoch: int) -> bool:
        """Whether a machine of an instance has keys."""
        return epoch in await keys.epochs(self._database, instance_id)

    async def erase_former_keys(self, instance_id: str, before: int) -> int:
        """Erase the keys of an instance's machines from before an epoch; how many there were."""
        return await keys.erase(self._database, instance_id, from_epoch=0, to_epoch=before - 1)

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
            events_quarantined=self.quarantined,
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
            put_aside=_left_out,  # the next change writes the whole row again
            done=lambda: None,
            label=f"row {state.condition}",
        )
        self.lanes.add(instance_id, work)

    async def committed(self, instance_id: str) -> None:
        """Wait until everything told of an instance is committed."""
        await self.lanes.idle(instance_id)

    def place_in_line_s(self, *, recovering: bool) -> float:
        """Take a place in one of the two paces; seconds to wait for it."""
        self._openings += 1
        now_s = self.clock.monotonic_s()
        if not recovering:
            return self._orderly.reserve(now_s, self.settings.orderly_rate)
        self._recoveries += 1
        return self._recovery.reserve(now_s, backoff.recovery_rate(len(self.sessions)))

    async def spec(self, session: HostedSession) -> protocol.Spec:
        """How to open a session.

        The last look before a round of codes: whoever removes a machine that was lost after it finds the session here.
        """
        instance_id, epoch, pairing = session.instance_id, session.epoch, session.state.pairing
        name = await self._specs.session_name(instance_id)
        if pairing and not await store.is_machine(self._database, instance_id, epoch, serving=True):
            raise NotFound
        return protocol.Spec(instance_id, keys.store_key(instance_id, epoch), name, pair=pairing)

    async def opening(self, instance_id: str) -> None:
        """A session is about to be opened."""
        await self._before_opening(instance_id)

    async def erase_keys(self, session: HostedSession) -> None:
        """Remove a session's keys."""
        await keys.erase(self._database, session.instance_id, from_epoch=session.epoch, to_epoch=session.epoch)

    def tell(self, session: HostedSession, event: port.EngineEvent) -> None:
        """Pass on an event of a session that no machine told."""
        occurrence = self._next_occurrence()
        work = Work(
            run=lambda: self._pass_on(session.instance_id, event, occurrence, session.epoch),
            put_aside=_left_out,
            done=lambda: None,
            label=type(event).__name__,
        )
        self.lanes.add(session.instance_id, work)

    async def ask(self, instance_id: str, name: str, arguments: object, timeout_s: float) -> msgspec.Raw:
        """Ask the instance's session something. NotConnected, or as Machine.request."""
        session = self.sessions.get(instance_id)
        if session is None or session.machine is None or session.state.condition != "connected":
            raise NotConnected
        return await session.machine.request(protocol.Ask(instance_id, name, arguments), timeout_s, kills=False)

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

    def _told(self, machine: Machine, happened: Told) -> None:
        """What a machine told: the event is queued first, and the row that says so behind it.

        So a kill in between leaves a row that is behind, which the next opening finds out, and never an end of which
        nobody was told. The state itself changes at once: a receiver of the event who asks sees it.
        """
        session = self.sessions.get(happened.instance_id)
        try:
            event = told.decode(happened.raw)
        except told.NotUnderstood as error:
            self._not_understood(happened, error)
            return
        if isinstance(event, told.Message) and event.file:
            event = _taken_in(event)
            happened = msgspec.structs.replace(happened, raw=msgspec.json.encode(event))
        if session is None or session.machine is not machine or type(event) not in _OF_THE_SESSION:
            self.lanes.add(happened.instance_id, self._work(happened, event, None))
        else:
            self.lanes.add(happened.instance_id, self._work(happened, event, session.epoch))
            happening = reading.read(event, _NOTHING_KNOWN)
            assert happening is not None  # each of these has a reader that never leaves out
            session.happen(happening)

    def _not_understood(self, happened: Told, error: told.NotUnderstood) -> None:
        """In order with the instance's other events."""
        log.error("machine.event_unknown", instance=happened.instance_id, error=str(error))

        async def keep() -> None:
            await self._quarantine(happened, error)

        work = Work(keep, lambda _error: keep(), happened.done, "unknown event")  # where it cannot be kept it stays
        self.lanes.add(happened.instance_id, work)

    async def _quarantine(self, happened: Told, error: Exception) -> None:
        await quarantine.put(self._database, happened.instance_id, happened.raw, type(error).__name__)
        self.quarantined += 1

    def _work(self, happened: Told, event: told.Event, epoch: int | None) -> Work:
        """Read an event and pass it on; with an epoch only if that is still the instance's machine."""
        occurrence = self._next_occurrence()  # one for all tries
        instance_id = happened.instance_id

        async def run() -> None:
            ours = reading.read(event, await self._known(instance_id, event))
            if ours is not None:
                await self._pass_on(instance_id, ours, occurrence, epoch)

        return Work(run, lambda error: self._quarantine(happened, error), happened.done, type(event).__name__)

    async def _known(self, instance_id: str, event: told.Event) -> reading.Known:
        """What reading needs; a number that cannot be had now is left out, as one that nobody knows."""
        session = self.sessions.get(instance_id)
        own = Own(session.state.phone or "", session.state.lid or "") if session is not None else Own()
        lids = reading.unknown_numbers(event, own)
        if not lids:
            return reading.Known(own, {})
        try:
            answer = await self.ask(instance_id, "numbers", {"lids": lids}, NUMBERS_S)
        except (TomadaError, port.EngineRefused):
            return reading.Known(own, {})
        numbers = msgspec.json.decode(answer, type=dict[str, str])
        return reading.Known(own, {lid: jid.partition("@")[0] for lid, jid in numbers.items()})

    def _next_occurrence(self) -> int:
        """The time, but never the same number twice."""
        self._last_occurrence = max(self._last_occurrence + 1, self.clock.now_ms())
        return self._last_occurrence

    async def _pass_on(self, instance_id: str, event: port.EngineEvent, occurrence: int, epoch: int | None) -> None:
        if epoch is None or await store.is_machine(self._database, instance_id, epoch):
            await self._on_event(instance_id, event, occurrence)

    def _machine_down(self, machine: Machine) -> None:
        if self._stopping:
            return
        for session in self.all_sessions():
            if session.machine is machine:
                session.machine_down()
