"""A thousand lives of instances under every fault, and proof that the simulation sees what it is there to see."""

import random  # noqa: TID251 - seeded, passed in

import pytest
from msgspec.structs import replace

from tests.simulation import memory, world
from tests.simulation.lifecycle import replay, run_many
from tests.simulation.memory import MemoryLifecycle
from tests.simulation.schedule import Faults
from tests.simulation.world import SimulatedMachines
from tomada.instances import deletion, lifecycle, subscriptions
from tomada.instances.deletion import Step
from tomada.instances.lifecycle import Change, Standing, State, Terms
from tomada.instances.lifecycle_port import Snapshot

RUNS = 1000
MUTANT_RUNS = 400


def test_a_thousand_seeds_keep_every_promise() -> None:
    """No double, missed or early deletion; none of a subscribed instance; nothing left behind (docs/lifecycle.md)."""
    failed = [f"seed {seed}: {'; '.join(wrong)}" for seed, wrong in run_many(0, RUNS)]
    assert not failed, "\n".join(failed)


def test_a_seed_plays_the_same_run_again() -> None:
    """A failing seed is of use only if it fails again."""
    assert replay(7) == replay(7)


def _found(words: str, runs: int = MUTANT_RUNS) -> bool:
    """Whether some run of the mutant fails with these words."""
    chunks = (run_many(first, 20) for first in range(0, runs, 20))
    return any(words in line for failures in chunks for _seed, wrong in failures for line in wrong)


def test_it_sees_a_sweeper_that_believes_its_own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutant: a clock five minutes fast is taken for the truth, and the row is swapped without a look at the time."""
    decide = lifecycle.wake

    def early(standing: Standing, now_ms: int, terms: Terms) -> Change | None:
        change = decide(standing, now_ms + 300_000, terms)
        return change and replace(change, from_ms=0)

    async def due_soon(self: MemoryLifecycle, limit: int, after: tuple[int, str]) -> list[Snapshot]:
        return [Snapshot(s, self._lifecycle_ms()) for s in self.standings.values()] if after == (-1, "") else []

    monkeypatch.setattr(lifecycle, "wake", early)
    monkeypatch.setattr(MemoryLifecycle, "due", due_soon)
    assert _found("expired at")


def test_it_sees_a_swap_that_does_not_look_at_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutant: an expiry that was decided before a subscribe is applied after it: a paid instance is deleted."""
    swap = MemoryLifecycle.swap

    async def blind(self: MemoryLifecycle, change: Change, actor: str) -> bool:
        current = self.standings[change.before.id]
        if (change.after.id, change.after.epoch) in self.rows:
            return False
        return await swap(self, replace(change, before=replace(change.before, revision=current.revision)), actor)

    monkeypatch.setattr(MemoryLifecycle, "swap", blind)
    assert _found("subscribed at")


def test_it_sees_machines_that_ignore_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutant: a sweeper of before removes the machine that the instance was given anew.

    A phone is paired only when the former machine is gone, so it takes a sweeper that was frozen on its way to it.
    """

    class Freezing(Faults):
        """Sweepers that are frozen all the time, and nothing else."""

        def __init__(self, rng: random.Random) -> None:
            super().__init__(rng)
            self.freeze, self.crash, self.lost = 0.3, 0.0, 0.0

    former = SimulatedMachines._former
    monkeypatch.setattr(SimulatedMachines, "_former", lambda self, name, _epoch: former(self, name, 1000))
    monkeypatch.setattr(world, "Faults", Freezing)
    assert _found("while it was the current one", 4000)


def test_it_sees_machines_that_go_by_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutant: what the instance has now is taken for what it had: subscribed in time, the old device stays linked."""
    former = SimulatedMachines._former

    def by_row(self: SimulatedMachines, name: str, epoch: int) -> list[tuple[str, int]]:
        return former(self, name, epoch) if self._store.standings[name].epoch <= epoch else []

    async def erase_files(self: SimulatedMachines, name: str, epoch: int) -> int:
        gone = {key for key in self.keys | self.files if key[0] == name and key[1] < epoch}
        self.keys, self.files = self.keys - gone, self.files - gone
        return len(gone)

    monkeypatch.setattr(SimulatedMachines, "_former", by_row)
    monkeypatch.setattr(SimulatedMachines, "erase_files", erase_files)
    assert _found("still linked, and no receipt says so")


def test_it_sees_a_machine_that_is_forced_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutant: the first failed try is the last one, so that an outage of minutes leaves devices linked."""
    monkeypatch.setattr(memory, "FORCE_AFTER_MS", 0)
    assert _found("was forced")


def test_it_sees_a_note_that_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutant: killed between erasing the keys and recording it, a forced removal finds nothing and says nothing."""
    monkeypatch.setattr(deletion, "CUT_SHORT", "")
    assert _found("still linked, and no receipt says so")


def test_it_sees_a_new_pairing_beside_the_old_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutant: a phone may scan a code while the former machine is not removed yet."""
    monkeypatch.setattr(MemoryLifecycle, "leaving", lambda _self, _name: False)
    assert _found("stuck")


def test_it_sees_a_claim_without_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutant: whoever comes to the end closes the deletion, also a sweeper whose lease is long over."""
    monkeypatch.setattr(MemoryLifecycle, "_held", lambda self, item: self.rows[item.instance_id, item.epoch])
    assert _found("receipts")


def test_it_sees_a_forgotten_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutant: nobody erases the session's files."""
    plans = {scope: tuple(s for s in steps if s is not Step.FILES) for scope, steps in deletion.PLANS.items()}
    monkeypatch.setattr(deletion, "PLANS", plans)
    assert _found("left behind: machine")


def test_it_sees_an_answer_before_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutant: a subscribe is answered although its swap found another row."""

    class Careless:
        """Answers first, writes afterwards, at most once."""

        def __init__(self, store: world.WiredStore) -> None:
            self._store = store

        async def read(self, account_id: str, instance_id: str) -> Snapshot | None:
            """As it is."""
            return await self._store.read(account_id, instance_id)

        async def swap(self, change: Change, actor: str) -> bool:
            """Whatever comes of it."""
            await self._store.swap(change, actor)
            return True

    settle = subscriptions._settle

    async def careless(store: world.WiredStore, *rest: object) -> object:
        return await settle(Careless(store), *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(subscriptions, "_settle", careless)
    assert _found("subscribed at")


def test_it_sees_a_sweeper_that_forgets_canceled_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutant: what is in cancellation never ends."""
    decide = lifecycle.wake

    def forgetful(standing: Standing, now_ms: int, terms: Terms) -> Change | None:
        return None if standing.state is State.IN_CANCELLATION else decide(standing, now_ms, terms)

    monkeypatch.setattr(lifecycle, "wake", forgetful)
    assert _found("still in_cancellation")
