"""One run: an account, some instances, clients that call at bad moments, replicas and sweepers that fail, and time.

Clients and the host of machines speak to the store directly: they are the world. Replicas and sweepers run production's
code over wires that lose, delay and cut. What clients heard is kept as the history that `oracle.py` judges.
"""

import random  # noqa: TID251 - seeded, passed in
from collections.abc import Callable, Coroutine
from typing import Any

from msgspec import Struct

from tests.simulation.machines import Key, Machines
from tests.simulation.memory import MemoryLifecycle
from tests.simulation.schedule import (
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    SECOND_MS,
    Faults,
    Process,
    ProcessClock,
    Schedule,
    Wire,
    pause,
)
from tomada.errors import TomadaError
from tomada.instances import subscriptions
from tomada.instances.deletion import Deletion, Receipt, Step
from tomada.instances.lifecycle import LIVE, Change, Standing, State, Terms, next_ms
from tomada.instances.lifecycle_port import Snapshot
from tomada.instances.sweeper import carry_deletions, end_what_is_due, pause_until_due

START_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
ACCOUNT = "ACCOUNT"
CALLS = ("subscribe", "subscribe", "subscribe", "cancel", "cancel", "update", "delete", "pair", "pair", "enqueue")


class Heard(Struct):
    """A call and what came of it. `outcome` None: nobody knows (the replica died, the answer was lost)."""

    verb: str
    instance_id: str
    asked_ms: int
    ended_ms: int | None = None
    outcome: str | None = None  # ok, refused, nothing


class SimulatedMachines(Machines):
    """The machines of all instances, watched: whatever is done to one that must not be is noted in `wrong`."""

    def __init__(self, store: MemoryLifecycle, schedule: Schedule) -> None:
        super().__init__(
            lambda: schedule.rng.random() >= self.failing, lambda: pause(schedule.rng.randrange(1, 30_000))
        )
        self._store = store
        self._schedule = schedule
        self.ever: set[Key] = set()
        self.wrong: list[str] = []
        self.failing = 0.0
        self.tried_ms: dict[Key, int] = {}

    def scan(self, instance_id: str) -> bool:
        """A phone scans the code of a live instance, if there is one to be had; False if it should try again."""
        standing = self._store.standings[instance_id]
        if standing.state not in LIVE or (instance_id, standing.epoch) in self.linked:
            return True
        if self._store.leaving(instance_id) or not self.pair(instance_id, standing.epoch):
            return False
        self.ever.add((instance_id, standing.epoch))
        self._store.papers[instance_id].session = True
        return True

    def trying(self, instance_id: str, epoch: int) -> None:
        """A sweeper is about to remove the machines from before an epoch, whether or not it gets through."""
        for key in self._former(instance_id, epoch):
            self.tried_ms.setdefault(key, self._schedule.now_ms)

    async def _remove(self, key: Key, *, force: bool) -> str:
        """As it is; untold only after a day of trying, or if the instance was given another machine meanwhile."""
        current = self._store.standings[key[0]]
        another = current.epoch - (current.state is State.DELETED) > key[1] + 1
        ago_ms = self._schedule.now_ms - self.tried_ms[key]
        if force and not (ago_ms >= DAY_MS or (another and ago_ms > SECOND_MS)):
            self.wrong.append(f"{key} was forced {ago_ms} ms after the first try, as {current.state} {current.epoch}")
        return await super()._remove(key, force=force)

    def touch(self, key: Key) -> None:
        """Never the machine that the instance has."""
        current = self._store.standings[key[0]]
        if key[1] >= current.epoch:
            self.wrong.append(f"the machine of {key} was touched while it was the current one ({current.state})")


class WiredStore:
    """The store as a process reaches it."""

    def __init__(self, store: MemoryLifecycle, wire: Wire) -> None:
        self._store = store
        self._wire = wire

    async def read(self, account_id: str, instance_id: str) -> Snapshot | None:
        """See LifecycleStore; so are all below."""
        return await self._wire.call(self._store.read(account_id, instance_id))

    async def swap(self, change: Change, actor: str) -> bool:
        """."""
        return await self._wire.call(self._store.swap(change, actor))

    async def due(self, limit: int, after: tuple[int, str]) -> list[Snapshot]:
        """."""
        return await self._wire.call(self._store.due(limit, after))

    async def ms_to_next_due(self) -> int | None:
        """."""
        return await self._wire.call(self._store.ms_to_next_due())

    async def claim(self, lease_ms: int) -> tuple[Deletion, int] | None:
        """."""
        return await self._wire.call(self._store.claim(lease_ms))

    async def settle(self, deletion: Deletion, step: Step, removed: dict[str, int], note: str) -> Deletion | None:
        """."""
        return await self._wire.call(self._store.settle(deletion, step, removed, note))

    async def postpone(self, deletion: Deletion, pause_ms: int, not_before_ms: int = 0, *, failed: bool = True) -> None:
        """."""
        await self._wire.call(self._store.postpone(deletion, pause_ms, not_before_ms, failed=failed))

    async def finish(self, deletion: Deletion, receipt: Receipt) -> bool:
        """."""
        return await self._wire.call(self._store.finish(deletion, receipt))

    async def suspend(self, account_id: str, days: float, actor: str) -> int:
        """."""
        return await self._wire.call(self._store.suspend(account_id, days, actor))

    async def resume(self, account_id: str, actor: str) -> None:
        """."""
        await self._wire.call(self._store.resume(account_id, actor))


class WiredMachines:
    """The machines as a sweeper reaches them."""

    def __init__(self, machines: SimulatedMachines, wire: Wire) -> None:
        self._machines = machines
        self._wire = wire

    async def remove(self, instance_id: str, epoch: int, *, force: bool) -> str:
        """See Machines."""
        self._machines.trying(instance_id, epoch)
        return await self._wire.call(self._machines.remove(instance_id, epoch, force=force))

    async def erase_files(self, instance_id: str, epoch: int) -> int:
        """See Machines."""
        return await self._wire.call(self._machines.erase_files(instance_id, epoch))


class World:
    """Builds a run from its seed; `run` lets it happen."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.schedule = Schedule(self.rng, START_MS + self.rng.randrange(365 * DAY_MS))
        self.offset_ms = 0
        self.terms = Terms(
            cancel_grace_days=self.rng.choice((None, None, 0, 30)),
            retention_days=self.rng.choice((1.0, 40.0)),
            delete_after_days=self.rng.choice((0.0, 3.0)),
        )
        self.faults = Faults(self.rng)
        self.store = MemoryLifecycle(self.lifecycle_ms, lambda: self.schedule.now_ms)
        self.machines = SimulatedMachines(self.store, self.schedule)
        self.machines.failing = self.rng.choice((0.0, 0.0, 0.3, 0.9, 1.0))
        self.history: list[Heard] = []
        self.sweep_s = self.rng.choice((1800.0, 4 * 3600.0, 24 * 3600.0))
        self.end_ms = self.schedule.now_ms + self.rng.choice((4, 12, 40)) * DAY_MS
        self.processes = [self._process(f"api-{n}") for n in range(2)]
        for number in range(self.rng.randint(2, 3)):
            self._sweep(self._process(f"sweeper-{number}"))
        for number in range(self.rng.randint(1, 4)):
            self._rent(f"I{number}")
        self._trouble_account()

    def lifecycle_ms(self) -> int:
        """The database's lifecycle time: the schedule's, moved forward by the sandbox's clock."""
        return self.schedule.now_ms + self.offset_ms

    def run(self) -> None:
        """Lets everything happen, then heals all faults and lets the sweepers catch up (freezes, sleeps, pauses)."""
        self.schedule.run_until(self.end_ms)
        self.faults.heal()
        self.machines.failing = 0.0
        for process in self.processes:
            process.frozen_until_ms = 0
        self.schedule.run_until(self.end_ms + 5 * HOUR_MS + int(3000 * self.sweep_s) + 3 * DAY_MS)
        self.schedule.close()

    def _process(self, name: str) -> Process:
        return Process(name)

    def _sweep(self, process: Process) -> None:
        """One replica of the sweeper, started again whenever it was killed."""
        self.processes.append(process)

        def start(_process: Process | None = None) -> None:
            at_ms = self.schedule.now_ms + self.rng.randrange(1, 10 * MINUTE_MS)
            process.life += 1
            if _process is not None:  # killed, and the host with it
                self.machines.restart()
            self.schedule.spawn(self._sweep_for_ever(process, wire), process, at_ms=at_ms)

        wire = Wire(self.schedule, self.faults, process, start)
        start()

    async def _sweep_for_ever(self, process: Process, wire: Wire) -> None:
        store, machines = WiredStore(self.store, wire), WiredMachines(self.machines, wire)
        clock = ProcessClock(self.schedule)
        while True:
            pause_s = self.sweep_s
            try:
                await end_what_is_due(store, self.terms, process.name)
                await carry_deletions(store, machines, self.terms, clock)
                pause_s = await pause_until_due(store, self.sweep_s)
            except TomadaError:
                pass  # a lost call: the loop in production logs it and goes on
            await pause(max(1, int(pause_s * 1000)))

    def _rent(self, name: str) -> None:
        """An instance, and the calls that will be made about it: many of them just when something falls due."""
        created_ms = self.schedule.now_ms + self.rng.randrange(DAY_MS)
        self.schedule.spawn(self._create(name), at_ms=created_ms)
        for _ in range(self.rng.randint(2, 12)):
            at_ms = self.rng.randrange(created_ms + 1, self.end_ms)
            self.schedule.spawn(
                self._client(name, self.rng.choice(CALLS), near_due=self.rng.random() < 0.6), at_ms=at_ms
            )
        self.schedule.spawn(
            self._client(name, self.rng.choice(CALLS), near_due=False),
            at_ms=created_ms + self.terms.trial_ms + self.rng.randint(-400, 400),
        )

    async def _create(self, name: str) -> None:
        if self.store.accounts and self.store.accounts[ACCOUNT].suspended_until_ms is not None:
            return
        now_ms = self.lifecycle_ms()
        due_ms = now_ms + self.terms.trial_ms
        self.store.create(Standing(id=name, account_id=ACCOUNT, state=State.TRIAL, created_ms=now_ms, due_ms=due_ms))
        await pause(self.rng.randrange(1, HOUR_MS))
        await self._scan(name)

    async def _scan(self, name: str) -> None:
        """A person with a phone is patient: the former machine goes first."""
        for _ in range(6):
            if self.machines.scan(name):
                return
            await pause(self.rng.randrange(1, 6 * HOUR_MS))

    async def _client(self, name: str, verb: str, *, near_due: bool) -> None:
        standing = self.store.standings.get(name)
        if standing is not None and near_due:
            due_ms = next_ms(standing)
            if due_ms is not None and due_ms - self.lifecycle_ms() < 20 * DAY_MS:
                await pause(max(1, due_ms - self.lifecycle_ms() + self.rng.randint(-300, 300)))
        if name not in self.store.standings:
            return
        for _ in range(2 if self.rng.random() < 0.2 else 1):  # a duplicate: the client's library sent it twice
            self._ask(name, verb)

    def _ask(self, name: str, verb: str) -> None:
        if verb == "pair":
            self.schedule.spawn(self._scan(name))
        elif verb == "enqueue":
            if self.store.standings[name].state in LIVE:
                self.store.papers[name].queued += 1
        else:
            process = self.rng.choice(self.processes[:2])
            wire = Wire(self.schedule, self.faults, process, lambda _process: None)
            store = WiredStore(self.store, wire)
            calls: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
                "subscribe": lambda: subscriptions.subscribe(store, self.terms, ACCOUNT, name),
                "cancel": lambda: subscriptions.cancel(store, self.terms, ACCOUNT, name),
                "update": lambda: subscriptions.update_subscription(store, ACCOUNT, name),
                "delete": lambda: subscriptions.delete(store, self.terms, ACCOUNT, name),
            }
            self._hear(verb, name, calls[verb](), process)

    def _hear(self, verb: str, name: str, call: Coroutine[Any, Any, object], process: Process | None) -> None:
        heard = Heard(verb, name, self.schedule.now_ms)
        self.history.append(heard)

        def note(result: object) -> None:
            if isinstance(result, TomadaError):
                if result.status >= 500:
                    return  # the client cannot know
                heard.outcome = "refused"
            elif isinstance(result, Exception):
                raise result
            else:
                heard.outcome = "ok"
            heard.ended_ms = self.schedule.now_ms

        self.schedule.spawn(call, process, then=note)

    def _trouble_account(self) -> None:
        """Now and then the account does not pay for a while, and somebody moves the sandbox's clock."""
        if self.rng.random() < 0.25:
            at_ms = self.rng.randrange(self.schedule.now_ms, self.end_ms)
            self.schedule.spawn(self._suspend_for(self.rng.choice((2, 6, 100)) * DAY_MS), at_ms=at_ms)
        for _ in range(self.rng.randint(0, 2)):
            at_ms = self.rng.randrange(self.schedule.now_ms, self.end_ms)
            self.schedule.spawn(
                self._advance(self.rng.choice((SECOND_MS, DAY_MS, 2 * DAY_MS, 45 * DAY_MS))), at_ms=at_ms
            )

    async def _suspend_for(self, ms: int) -> None:
        if ACCOUNT not in self.store.accounts:
            return
        process = self.processes[0]
        store = WiredStore(self.store, Wire(self.schedule, self.faults, process, lambda _process: None))
        self._hear("suspend", "", store.suspend(ACCOUNT, self.terms.suspension_days, "operator"), process)
        await pause(ms)
        self._hear("resume", "", store.resume(ACCOUNT, "operator"), process)

    async def _advance(self, ms: int) -> None:
        self.offset_ms += ms
        await pause(1)
