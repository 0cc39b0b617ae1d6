"""Deletion as a list of idempotent steps, recorded on a row as they are done, that ends in an erasure receipt.

The change that takes an instance its machine inserts the deletion's row in the same transaction, so there is no ended
instance without one. A sweeper claims it for a lease; every claim gets a greater number, and whoever records a step
must still hold that number, so of a crashed, a frozen and a new sweeper only the newest writes. Two kinds of steps:

- *local* steps change rows. The work and its record are one transaction: they happen exactly once. Erasing events is
  many of them, each of which counts what it removed.
- *outside* steps (log out, remove files) happen at least once: they are repeated after a crash, so they must be
  idempotent. They carry the deletion's epoch and touch only machines from before it: the machine that the instance
  was given anew meanwhile has that epoch or a greater one, and is safe even from a sweeper that was frozen for days.

A step that fails is tried again with growing pauses, for ever. FORCE_AFTER_MS after its first failure the machine is
removed even if WhatsApp cannot be told; at once after a failed try if the instance was subscribed again, since a
customer who has paid waits for the machine's place. The claim notes that on the row before anything is done, so the
receipt says that a linked device may remain also if the process is killed before it can record what it did.

When all steps are done the row is closed with a digest of them.
"""

import hashlib
from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

import msgspec
import structlog
from msgspec import Struct

from tomada.instances.billing import DAY_MS
from tomada.instances.lifecycle import Scope, Terms
from tomada.kit.clock import Clock

_log = structlog.get_logger(__name__)

LEASE_MS = 120_000  # longer than any outside step may take (machines/control.py); recording a step renews it
FORCE_AFTER_MS = DAY_MS  # real time: an outage of a network or a short ban is over by then
PAUSE_MIN_MS = 2_000
PAUSE_MAX_MS = 3_600_000
CUT_SHORT = "WhatsApp could not be told before, and the removal was cut short; a linked device may remain on the phone"


class Step(StrEnum):
    """The steps, in order. What each removes is said in docs/lifecycle.md."""

    MACHINE = "remove_machine"
    FILES = "erase_files"
    SESSION = "forget_session"
    QUEUE = "cancel_queue"
    NOTIFY = "send_disconnected"
    EVENTS = "purge_events"
    TOKENS = "erase_tokens"
    TOMBSTONE = "tombstone"


OUTSIDE = frozenset({Step.MACHINE, Step.FILES})
PLANS: dict[Scope, tuple[Step, ...]] = {
    Scope.MACHINE: (Step.MACHINE, Step.FILES, Step.SESSION, Step.QUEUE, Step.NOTIFY),
    # The machine's steps once more, in case its own deletion is not finished; then they find less or nothing. Its
    # disconnected callback is sent by the machine's own deletion, or when this one takes that over.
    Scope.INSTANCE: (
        *(Step.MACHINE, Step.FILES, Step.SESSION, Step.QUEUE),
        *(Step.EVENTS, Step.TOKENS, Step.TOMBSTONE),
    ),
}


class Done(Struct, frozen=True, rename="camel"):
    """A step that is done: what it removed, and when (lifecycle milliseconds)."""

    step: Step
    at_ms: int
    removed: dict[str, int]
    note: str = ""


class Deletion(Struct, frozen=True, kw_only=True):
    """A deletion as claimed. `epoch` is the instance's after it lost its machine; `number` fences the claim.

    `forced`: the machine goes even if WhatsApp cannot be told, and may have gone so under an earlier claim.
    """

    instance_id: str
    account_id: str
    epoch: int
    scope: Scope
    cause: str
    asked_ms: int
    done: tuple[Done, ...] = ()
    failures: int = 0
    number: int = 0
    forced: bool = False
    finished: bool = False


class Receipt(Struct, frozen=True, kw_only=True, rename="camel"):
    """The erasure receipt: what was removed, when, and the SHA-256 of exactly that."""

    instance_id: str
    account_id: str
    epoch: int
    scope: Scope
    cause: str
    asked_ms: int
    finished_ms: int
    removed: tuple[Done, ...]
    digest: str


class Machines(Protocol):
    """The outside steps. Both are idempotent, take less than LEASE_MS, and raise to be tried again later."""

    async def remove(self, instance_id: str, epoch: int, *, force: bool) -> str:
        """Logs out of WhatsApp every machine of the instance from before `epoch`, and ends its session.

        Returns a note for the receipt, empty if there was nothing or all went well. Raises if WhatsApp cannot be told,
        unless `force`: then it removes the session all the same and the note says that a linked device may remain.
        """

    async def erase_files(self, instance_id: str, epoch: int) -> int:
        """Removes the session keys of machines from before `epoch`; returns how many."""


class Record(Protocol):
    """Where a deletion stands; implemented by the lifecycle store. Each call is one transaction, or more to erase."""

    async def settle(self, deletion: Deletion, step: Step, removed: dict[str, int], note: str) -> Deletion | None:
        """Does a local step and notes any step as done; None if the claim was lost. Doing it twice changes nothing."""

    async def postpone(self, deletion: Deletion, pause_ms: int, not_before_ms: int = 0, *, failed: bool = True) -> None:
        """Gives the claim back, to be claimed again after a pause and not before a lifecycle time.

        The first that `failed` sets the time from which claims are `forced`: FORCE_AFTER_MS from then, or now if the
        instance was given another machine.
        """

    async def finish(self, deletion: Deletion, receipt: Receipt) -> bool:
        """Closes the row and notes the receipt in the account's audit log; False if the claim was lost."""


def next_step(scope: Scope, done: Sequence[Done]) -> Step | None:
    """The first step of the plan that is not done."""
    names = {item.step for item in done}
    return next((step for step in PLANS[scope] if step not in names), None)


def not_before_ms(deletion: Deletion, step: Step, terms: Terms) -> int:
    """The lifecycle time before which a step must wait: events are kept until they were surely delivered."""
    return deletion.asked_ms + int(terms.events_retention_days * DAY_MS) if step is Step.EVENTS else 0


def pause_ms(failures: int) -> int:
    """The pause after the n-th failure in a row: doubling from 2 s to 1 h."""
    return min(PAUSE_MAX_MS, PAUSE_MIN_MS << min(failures, 20))


def digest(removed: Sequence[Done]) -> str:
    """SHA-256 in hex of the list as JSON with sorted keys."""
    return hashlib.sha256(msgspec.json.encode(removed, order="sorted")).hexdigest()


def receipt_of(deletion: Deletion) -> Receipt:
    """The receipt of a deletion whose steps are all done."""
    return Receipt(
        instance_id=deletion.instance_id,
        account_id=deletion.account_id,
        epoch=deletion.epoch,
        scope=deletion.scope,
        cause=deletion.cause,
        asked_ms=deletion.asked_ms,
        finished_ms=deletion.done[-1].at_ms,
        removed=deletion.done,
        digest=digest(deletion.done),
    )


async def carry_out(
    deletion: Deletion, record: Record, machines: Machines, terms: Terms, clock: Clock, now_ms: int
) -> bool:
    """Carries a claimed deletion as far as it goes; True if it was finished here. `now_ms`: lifecycle time of claiming.

    Stops on its own when its lease may be over by its own monotonic clock: the cheap half of the fence.
    """
    lease_end_s = clock.monotonic_s() + LEASE_MS / 1000
    while (step := next_step(deletion.scope, deletion.done)) is not None:
        if clock.monotonic_s() >= lease_end_s:
            return False
        wait_ms = not_before_ms(deletion, step, terms)
        if wait_ms > now_ms:
            await record.postpone(deletion, 0, wait_ms, failed=False)
            return False
        try:
            removed, note = await _outside(deletion, step, machines) if step in OUTSIDE else ({}, "")
            settled = await record.settle(deletion, step, removed, note)
        except Exception as error:  # noqa: BLE001 - whatever failed, this step is tried again later
            _log.warning("deletion step failed", instance=deletion.instance_id, step=step, error=repr(error))
            await record.postpone(deletion, pause_ms(deletion.failures))
            return False
        if settled is None:
            return False
        deletion = settled
        lease_end_s = clock.monotonic_s() + LEASE_MS / 1000
    return await record.finish(deletion, receipt_of(deletion))


async def _outside(deletion: Deletion, step: Step, machines: Machines) -> tuple[dict[str, int], str]:
    if step is Step.MACHINE:
        note = await machines.remove(deletion.instance_id, deletion.epoch, force=deletion.forced)
        return {}, note or (CUT_SHORT if deletion.forced else "")
    return {"files": await machines.erase_files(deletion.instance_id, deletion.epoch)}, ""
