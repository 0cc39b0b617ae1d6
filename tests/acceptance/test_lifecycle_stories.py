"""Stories that Hypothesis invents for the running product: create, pair, subscribe, cancel, delete, time, stop, kill.

What was answered is held against what is seen afterwards, over HTTP and on the simulated phones:

    C2  a trial serves until its due, not a moment less, and never after it
    C3  what answered 2xx to subscribe is paid for and serves, until somebody says something else
    C5  at the end of a story everything is let go, and nothing may be left: rows, files, processes, devices

STORIES and STORY_SEED change length and dice. A failure prints the stories as they were told, each with what went wrong
in it: the stage is not what it was, so telling one again may end otherwise, and then only that is reported at the end.
"""

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.acceptance import remains
from tests.acceptance.product import Account, Instance, Phone, Product, running, wait_for
from tests.acceptance.test_lifecycle import (
    DAY_S,
    EVENTS_RETENTION_DAYS,
    MUST_SUBSCRIBE,
    NOT_FOUND,
    RETENTION_DAYS,
    cancel,
    delete,
    now_ms,
    payment,
    said,
    subscribe,
)

STORIES = int(os.environ.get("STORIES", "6"))
SEED = int(os.environ.get("STORY_SEED", "20261123"))
STEPS = 14
INSTANCES_MAX = 4
RESTARTS_MAX = 2  # in a story; each takes seconds
ACTIONS = ("create", "pair", "subscribe", "subscribe", "cancel", "cancel", "delete")
UNSURE_MS = 5_000  # between reading the clock and being answered
picks = st.integers(0, 99)
hours = st.sampled_from([24, 48, 1, 9 * 24, 31 * 24])
numbers = itertools.count(5511966660000)


@dataclass
class Told:
    """An instance, and what its integrator may believe."""

    instance: Instance
    phone: Phone | None = None
    word: str = "trial"  # trial, paid, cancelled, deleted
    due_ms: int = 0

    def overdue(self, at_ms: int) -> bool | None:
        """Whether its time is over; None when that cannot be said for sure."""
        if self.word == "paid":
            return False
        if self.word == "deleted":
            return True
        left_ms = self.due_ms - at_ms
        return None if abs(left_ms) < UNSURE_MS else left_ms < 0


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """The product that all stories are told on, one after the other."""
    environment = {"TOMADA_INSTANCES_PER_MACHINE": "1", "TOMADA_FAILED_LOGINS_PER_MINUTE": "0"}
    with running(tmp_path_factory.mktemp("stories") / "data", environment) as product:
        yield product


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_story_breaks_a_promise(stage: Product) -> None:
    """Every invariant after every step, and an empty stage after every story."""
    account = stage.create_account("--limit", "1000")

    @hypothesis.seed(SEED)
    class Story(Lifecycle):
        """The stories, told on this product."""

        def __init__(self) -> None:
            super().__init__(account)

    run_state_machine_as_test(
        Story,
        settings=hypothesis.settings(
            max_examples=STORIES,
            stateful_step_count=STEPS,
            deadline=None,
            verbosity=hypothesis.Verbosity.debug,  # each story is printed as it is told; see above
            database=None,
            phases=[hypothesis.Phase.generate],  # telling it shorter would take minutes
            suppress_health_check=list(hypothesis.HealthCheck),
        ),
    )


class Lifecycle(RuleBasedStateMachine):
    """What can happen, and what must hold."""

    def __init__(self, account: Account) -> None:
        super().__init__()
        self.account = account
        self.product = account.product
        self.all: list[Told] = []
        self.restarts = 0

    def one(self, pick: int) -> Told:
        """Some instance."""
        return self.all[pick % len(self.all)]

    @initialize()
    def open(self) -> None:
        """Two instances, one of them paired."""
        self.create()
        self.create()
        self.pair(0)

    @rule(action=st.sampled_from(ACTIONS), pick=picks)
    def act(self, action: str, pick: int) -> None:
        """One rule for all calls, because Hypothesis likes to repeat a rule, and a story needs many kinds."""
        if action == "create" and len(self.all) < INSTANCES_MAX:
            self.create()
        elif action in ("pair", "subscribe", "cancel", "delete"):
            getattr(self, action)(pick)

    def create(self) -> None:
        """The call of the partner page."""
        instance = self.account.create_instance()
        self.all.append(Told(instance, due_ms=instance.due))

    def pair(self, pick: int) -> None:
        """A phone scans the QR code of an instance that serves and has none linked."""
        told = self.one(pick)
        if told.overdue(now_ms(self.product)) is not False:
            return
        if told.phone is None:
            told.phone = self.product.phone(str(next(numbers)), "Shop")
        if not told.phone.linked_devices():
            told.instance.pair(told.phone)

    def subscribe(self, pick: int) -> None:
        """Answered or refused, as the wire's document says."""
        told, reply = self.one(pick), subscribe(self.one(pick).instance)
        if told.word == "paid":
            assert said(reply) == (400, {"error": "This instance is already paid"})
        elif reply.status == 201:
            assert told.word != "deleted"
            told.word, told.due_ms = "paid", reply.body["due"]
        else:
            assert said(reply) == NOT_FOUND
            self.must_be_retired(told)

    def cancel(self, pick: int) -> None:
        """Of a paid one it says until when; of others it changes nothing."""
        told, reply = self.one(pick), cancel(self.one(pick).instance)
        if told.word == "paid":
            assert reply.status == 201
            assert reply.body["due"] > now_ms(self.product) - UNSURE_MS
            told.word, told.due_ms = "cancelled", reply.body["due"]
        elif reply.status == 201:
            assert reply.body["due"] == told.due_ms
        else:
            assert told.overdue(now_ms(self.product)) is not False

    def delete(self, pick: int) -> None:
        """Never of one that is paid for or whose trial runs."""
        told, reply = self.one(pick), delete(self.one(pick).instance)
        if reply.status == 200:
            assert told.overdue(now_ms(self.product)) is not False
            told.word = "deleted"
        elif said(reply) == NOT_FOUND:
            self.must_be_retired(told)

    @rule(hours=hours, then=st.sampled_from(["nothing", "nothing", "nothing", "stop", "kill", "kill"]))
    def tick(self, hours: int, then: str) -> None:
        """Time passes; at once the server is stopped or killed, in the middle of what has become due, and started."""
        self.product.advance_clock(hours * 3600)
        if then == "nothing" or self.restarts >= RESTARTS_MAX:
            return
        self.restarts += 1
        if then == "kill":
            self.product.kill()
        else:
            assert self.product.stop() == 0
        self.product.start()

    @invariant()
    def what_was_said_holds(self) -> None:
        """C2 and C3, of every instance."""
        for told in self.all:
            reply, over = told.instance.get("status"), told.overdue(now_ms(self.product))
            if over is False:
                assert reply.status == 200, (told, reply)
                assert (
                    payment(told.instance)
                    == {"paid": "PAID", "trial": "TRIAL", "cancelled": "IN_CANCELLATION"}[told.word]
                )
            elif over:
                assert said(reply) in (MUST_SUBSCRIBE, NOT_FOUND), (told, reply)
                if said(reply) == NOT_FOUND:
                    self.must_be_retired(told)

    def must_be_retired(self, told: Told) -> None:
        """Not found is said of a deleted instance, and of one that ended its retention ago."""
        ago_ms = now_ms(self.product) - told.due_ms
        assert told.word == "deleted" or (told.word != "paid" and ago_ms > RETENTION_DAYS * DAY_S * 1000), told

    def teardown(self) -> None:
        """C5: all are let go, and all time passes."""
        for told in self.all:
            if told.word == "paid":
                assert cancel(told.instance).status == 201
        for days in (32, RETENTION_DAYS + 1, EVENTS_RETENTION_DAYS + 1):
            self.product.advance_clock(days * DAY_S)
            wait_for("nothing due", lambda: not remains.sql(self.product, OPEN)[0][0])
        for told in self.all:
            self.must_be_gone(told)

    def must_be_gone(self, told: Told) -> None:
        """Nothing is left of it, here or on the phone; its receipts are in a log that holds."""
        name = told.instance.id
        wait_for("not found", lambda: said(told.instance.get("status")) == NOT_FOUND)
        wait_for("a tombstone", lambda: remains.is_tombstone(self.product, name))
        assert remains.files(self.product, name) == []
        assert remains.machines_of(self.product, name) == []
        assert told.phone is None or told.phone.linked_devices() == []
        erased = remains.sql(self.product, SCOPES, name)
        assert [scope for (scope,) in erased][-1:] == ["instance"]
        assert [scope for (scope,) in erased].count("instance") == 1


OPEN = """
select (select count(*) from instance where next_ms <= lifecycle_now_ms())
     + (select count(*) from deletion where finished_ms is null and not_before_ms <= lifecycle_now_ms())
"""
SCOPES = """
select detail::jsonb ->> 'scope' from audit where subject = $1 and action = 'erased' order by number
"""
