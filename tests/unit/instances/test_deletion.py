"""The plan of a deletion: order, pauses, and a receipt that proves itself."""

import hashlib

import msgspec
import pytest

from tomada.instances.deletion import (
    FORCE_AFTER_MS,
    PAUSE_MAX_MS,
    PLANS,
    Deletion,
    Done,
    Step,
    next_step,
    pause_ms,
    receipt_of,
)
from tomada.instances.lifecycle import Scope


@pytest.mark.parametrize("scope", list(Scope))
def test_steps_come_in_order_each_once(scope: Scope) -> None:
    """Whatever is done already is skipped."""
    done: list[Done] = []
    while (step := next_step(scope, done)) is not None:
        assert step is PLANS[scope][len(done)]
        done.append(Done(step, 1, {}))
    assert len(done) == len(set(PLANS[scope])) == len(PLANS[scope])


def test_a_gap_is_filled_first() -> None:
    """Steps that were done early, by another change, do not hide those that were not."""
    assert next_step(Scope.MACHINE, [Done(Step.QUEUE, 1, {})]) is Step.MACHINE


def test_what_hears_goes_before_what_is_erased() -> None:
    """Log out before the keys go, tell before events are purged, the tombstone last."""
    machine, whole = PLANS[Scope.MACHINE], PLANS[Scope.INSTANCE]
    assert machine.index(Step.MACHINE) < machine.index(Step.FILES) < machine.index(Step.SESSION)
    assert whole.index(Step.EVENTS) < whole.index(Step.TOKENS) < whole.index(Step.TOMBSTONE) == len(whole) - 1


def test_pauses_grow_to_an_hour_and_never_end() -> None:
    """Twenty-minute outages cost minutes, days cost an hour at a time."""
    pauses = [pause_ms(n) for n in range(100)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (2000, PAUSE_MAX_MS)
    assert sum(pauses[:30]) < FORCE_AFTER_MS < sum(pauses[:40])  # so often is tried before a machine is forced


def test_the_receipt_s_digest_can_be_checked_by_anybody() -> None:
    """SHA-256 over the JSON of `removed`, keys sorted; one count changed is another digest."""
    done = (Done(Step.SESSION, 5, {}), Done(Step.FILES, 9, {"files": 3}))
    deletion = Deletion(
        instance_id="I", account_id="A", epoch=2, scope=Scope.MACHINE, cause="expired", asked_ms=1, done=done
    )
    receipt = receipt_of(deletion)
    text = msgspec.json.encode(msgspec.to_builtins(receipt.removed), order="sorted")
    assert receipt.digest == hashlib.sha256(text).hexdigest()
    assert receipt.finished_ms == 9
    other = msgspec.structs.replace(deletion, done=(done[0], Done(Step.FILES, 9, {"files": 4})))
    assert receipt_of(other).digest != receipt.digest
