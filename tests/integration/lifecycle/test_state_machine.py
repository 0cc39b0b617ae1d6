"""Stories that Hypothesis invents, on a real PostgreSQL: create, pair, subscribe, cancel, delete, time, crash, restart.

After every step the invariants of docs/lifecycle.md are asked of the database. A failing story is told in its shortest
form.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.integration.lifecycle.sides import START_MS, TERMS, FakeMachines, PostgresSide, TestClock
from tests.integration.lifecycle.test_crash_sweep import BreakingStore, Killed
from tomada.accounts import audit
from tomada.errors import TomadaError
from tomada.instances import subscriptions
from tomada.instances.billing import DAY_MS, HOUR_MS
from tomada.instances.deletion import LEASE_MS, Step
from tomada.instances.lifecycle import LIVE
from tomada.instances.sweeper import carry_deletions, end_what_is_due
from tomada.postgres.pool import connect

T = TypeVar("T")
ACCOUNT = "ACCOUNT"
picks = st.integers(0, 99)
times = st.sampled_from([HOUR_MS, DAY_MS, 2 * DAY_MS, 9 * DAY_MS, 31 * DAY_MS])

_LIVE_COUNT = """
select (select instances_live from account where id = 'ACCOUNT')
     = (select count(*) from instance where state in ('trial', 'active', 'in_cancellation'))
"""
_CLEAR = """
delete from instance;
update account set suspended_until_ms = null;
"""


def test_no_story_breaks_a_promise(database: str) -> None:
    """Every invariant after every step of every story."""
    loop = asyncio.new_event_loop()
    side = loop.run_until_complete(_open(database))

    class Story(Lifecycle):
        """The stories, told on this database."""

        def __init__(self) -> None:
            super().__init__(loop, side)

    try:
        run_state_machine_as_test(
            Story,
            settings=hypothesis.settings(max_examples=40, stateful_step_count=25, deadline=None, derandomize=True),
        )
    finally:
        side.pool.terminate()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


async def _open(database: str) -> PostgresSide:
    side = PostgresSide(await connect(database, size_max=3))
    await side.freeze()
    await side.account(ACCOUNT)
    return side


def admits(deletion: dict[str, Any]) -> bool:
    """Whether it says, or is bound to say, that a linked device may remain."""
    return deletion["forced"][0] or any("may remain" in note for _step, _at, note in deletion["steps"])


class Lifecycle(RuleBasedStateMachine):
    """What can happen, and what must hold."""

    def __init__(self, loop: asyncio.AbstractEventLoop, side: PostgresSide) -> None:
        super().__init__()
        self.loop, self.side = loop, side
        self.now_ms = self.real_ms = START_MS
        self.names: list[str] = []
        self.paid: set[str] = set()  # subscribed, and nobody has said anything else since
        self.suspended = False
        self.number = 0
        side.machines = FakeMachines()
        self.run(side.pool.execute(_CLEAR))
        self.move(0)

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Waits for a call."""
        return self.loop.run_until_complete(call)

    def move(self, ms: int) -> None:
        """Lets both clocks go on; every lease and pause is over then."""
        self.now_ms += ms
        self.real_ms += max(ms, LEASE_MS + HOUR_MS)
        self.run(self.side.set_time(self.now_ms, self.real_ms))

    def name(self, pick: int) -> str:
        """Some instance."""
        return self.names[pick % len(self.names)]

    @precondition(lambda self: not self.suspended and len(self.names) < 6)
    @rule(paired=st.booleans())
    def create(self, paired: bool) -> None:
        """The call of the partner page; a phone is paired, or not."""
        self.number += 1
        self.names.append(f"I{self.number}")
        self.run(self.side.create(ACCOUNT, self.names[-1], paired=paired))

    @precondition(lambda self: self.names)
    @rule(pick=picks)
    def subscribe(self, pick: int) -> None:
        """Answered or refused; if answered, it holds."""
        try:
            self.run(subscriptions.subscribe(self.side.store, TERMS, ACCOUNT, self.name(pick)))
        except TomadaError:
            return
        self.paid.add(self.name(pick))

    @precondition(lambda self: self.names)
    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        """Nothing is promised any more."""
        try:
            self.run(subscriptions.cancel(self.side.store, TERMS, ACCOUNT, self.name(pick)))
        except TomadaError:
            return
        self.paid.discard(self.name(pick))

    @precondition(lambda self: self.names)
    @rule(pick=picks)
    def delete(self, pick: int) -> None:
        """Never for one that is paid for."""
        try:
            self.run(subscriptions.delete(self.side.store, TERMS, ACCOUNT, self.name(pick)))
        except TomadaError:
            return
        assert self.name(pick) not in self.paid

    @precondition(lambda self: self.names)
    @rule(pick=picks)
    def pair(self, pick: int) -> None:
        """A phone scans the code of an instance that is there, once its former machine is gone."""
        self.run(self.side.pair(self.name(pick)))

    @rule()
    def suspend(self) -> None:
        """The account does not pay."""
        self.run(self.side.store.suspend(ACCOUNT, TERMS.suspension_days, "operator"))
        self.suspended = True
        self.paid.clear()

    @rule()
    def resume(self) -> None:
        """It pays."""
        self.run(self.side.store.resume(ACCOUNT, "operator"))
        self.suspended = False

    @rule(ms=times)
    def tick(self, ms: int) -> None:
        """Time passes, nobody sweeps."""
        self.move(ms)

    @rule()
    def sweep(self) -> None:
        """A sweeper comes by."""
        self.run(end_what_is_due(self.side.store, TERMS, "sweeper"))

    @rule(fails=st.integers(0, 2))
    def carry(self, fails: int) -> None:
        """Deletions go on; WhatsApp may not answer."""
        self.side.machines.fail = fails
        self.run(carry_deletions(self.side.store, self.side.machines, TERMS, TestClock()))
        self.side.machines.fail = 0

    @rule(step=st.sampled_from(Step), when=st.sampled_from(["before", "after"]))
    def crash(self, step: Step, when: str) -> None:
        """A sweeper dies at a step, and starts again after its lease."""
        store = BreakingStore(self.side, step, when)
        try:
            self.run(carry_deletions(store, self.side.machines, TERMS, TestClock()))
        except Killed:
            self.side.machines.restart()
            self.move(0)

    @invariant()
    def what_is_paid_for_is_there(self) -> None:
        """C3."""
        for name in self.paid:
            assert self.run(self.side.standing(name)).state == "active"

    @invariant()
    def nothing_is_early_double_or_left_behind(self) -> None:
        """C2 and C5, of every instance."""
        state = self.run(self.side.state())
        linked, keys, files = (set(keys) for keys in state["machines"])
        for name, standing in state["standings"].items():
            deletions = {key[1]: row for key, row in state["deletions"].items() if key[0] == name}
            for key in linked - keys:
                assert key[0] != name or any(admits(row) for epoch, row in deletions.items() if epoch > key[1]), key
            if standing.state == "expired" and not self.suspended:
                assert standing.ended_ms is not None
                assert standing.ended_ms >= standing.created_ms + 2 * DAY_MS
            if standing.state in LIVE:
                continue
            assert deletions
            if all(row["finished"] for row in deletions.values()):
                assert not {key for key in keys | files if key[0] == name}
                session, queued, events, tokens, named = state["papers"][name]
                assert not session
                assert not queued
                assert standing.state != "deleted" or not (events or tokens or named)
        for (name, epoch), row in state["deletions"].items():
            told = [step for step, _at, _note in row["steps"] if step == "send_disconnected"]
            assert len(told) <= 1
            assert not row["receipt"] or row["finished"], (name, epoch)

    @invariant()
    def what_lives_keeps_its_machine(self) -> None:
        """A machine of the current epoch is never touched: files and process stay together."""
        machines = self.side.machines
        for name in self.names:
            standing = self.run(self.side.standing(name))
            key = (name, standing.epoch)
            assert (key in machines.linked) == (key in machines.keys) == (key in machines.files)

    @invariant()
    def the_count_and_the_log_are_true(self) -> None:
        """account.instances_live, and the audit log's chain."""
        assert self.run(self.side.pool.fetchval(_LIVE_COUNT))
        if self.number % 5 == 0:
            assert self.run(audit.verify(self.side.pool, ACCOUNT)).wrong == ""
