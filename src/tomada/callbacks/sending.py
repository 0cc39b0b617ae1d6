"""One lane's batch: its events sent in order, one by one, and what becomes of the lane.

    `attempt_one` - one request, told as an Attempt; it never raises for what the other side does.
    `send_batch`  - the rules of order: stop at the first failure, unless the head gives way (backoff.py).

An attempt's error is a short word of ours. Nothing the receiver said is kept, so the history cannot be used to read
what stands behind an address.
"""

import asyncio
import random  # noqa: TID251 - the type only; the generator is passed in
from collections.abc import Callable

import msgspec
import structlog

from tomada.callbacks import backoff
from tomada.callbacks.backoff import Policy
from tomada.callbacks.signing import Credentials, headers
from tomada.callbacks.types import Attempt, Delivered, Failed, Lane, Settlement, Waiting
from tomada.kit.clock import Clock
from tomada.kit.egress import Egress, EgressFailed

_log = structlog.get_logger(__name__)

FAILURES_MAX = 2  # of a batch; then the lane waits
GONE = 410


class Sender(msgspec.Struct, frozen=True):
    """What every attempt needs."""

    egress: Egress
    clock: Clock
    rng: random.Random
    policy: Policy
    origin: str


async def attempt_one(
    sender: Sender, url: str, credentials: Credentials, callback: Waiting, overtaken: str | None = None
) -> Attempt:
    """POST one event and tell what came of it."""
    body = callback.payload.encode()
    at_ms = sender.clock.now_ms()
    start_s = sender.clock.monotonic_s()
    status: int | None = None
    retry_after_s: float | None = None
    try:
        answer = await sender.egress.post(
            url, body, headers(credentials, callback, body, at_ms, overtaken, sender.origin)
        )
        status = answer.status
        error = None if 200 <= status < 300 else f"status {status}"
        if error:
            retry_after_s = _retry_after_s(answer.headers.get("retry-after"))
    except EgressFailed as failure:
        error = failure.reason
    duration_ms = round((sender.clock.monotonic_s() - start_s) * 1000)
    return Attempt(at_ms, duration_ms, status, error, retry_after_s)


async def _attempt(
    sender: Sender, lane: Lane, credentials: Credentials, callback: Waiting, overtaken: str | None
) -> Attempt:
    """A fault of ours with one event is a failed attempt of that event: it backs off and gives way like any other."""
    try:
        return await attempt_one(sender, lane.url, credentials, callback, overtaken)
    except Exception:  # noqa: BLE001 - whatever it is, the lane must go on
        _log.exception("callback_fault", instance=lane.instance_id, lane=lane.id, position=callback.position)
        return Attempt(sender.clock.now_ms(), 0, None, "internal error")


def _retry_after_s(value: str | None) -> float | None:
    """Seconds; the date form is rare and not read, so that no clock of theirs moves ours."""
    return float(value) if value and value.isascii() and value.isdigit() and len(value) <= 9 else None


async def send_batch(
    sender: Sender,
    lane: Lane,
    credentials: Credentials,
    may_send: Callable[[int], bool],
    heard: Callable[[Waiting, Attempt], None],
) -> Settlement:
    """Send the lane's events in order until all are sent, too many failed, or `may_send(sent so far)` says no.

    A cancellation ends it where it stands: what is under way is sent again, and the rest is settled.
    """
    batch, interrupted = Batch(sender.policy, lane, sender.rng), False
    try:
        for callback in lane.waiting:
            if not batch.goes_on or not may_send(0 if batch.probing else len(batch.outcomes)):
                break
            attempt = await _attempt(sender, lane, credentials, callback, batch.overtaken)
            heard(callback, attempt)
            batch.add(callback, attempt)
    except asyncio.CancelledError:
        interrupted = True  # the dispatcher stops, and wants to write down what was done so far
    return msgspec.structs.replace(batch.settlement(), interrupted=interrupted)


class Batch:
    """The rules of order, without input or output."""

    def __init__(self, policy: Policy, lane: Lane, rng: random.Random) -> None:
        self.outcomes: list[Delivered | Failed] = []
        self._policy = policy
        self._lane = lane
        self._rng = rng
        self._failures = 0
        self._head: Failed | None = None  # failed, and holds back the rest unless the next event succeeds
        self._set_aside = lane.overtaken  # the oldest event that others overtake
        self._gone = False
        self._stopped = False

    @property
    def goes_on(self) -> bool:
        """Whether the next event may be sent."""
        return not self._stopped and not self._gone and self._failures < FAILURES_MAX

    @property
    def probing(self) -> bool:
        """Whether the next event only shows if the failing head is at fault: it is tried however long that took."""
        return self._head is not None

    @property
    def overtaken(self) -> str | None:
        """The event that the next one would overtake: one set aside before, or the failing head."""
        return self._set_aside or (self._head.callback.event_id if self._head else None)

    def add(self, callback: Waiting, attempt: Attempt) -> None:
        """Note what came of the next event."""
        if attempt.error is None:
            self._release_head()
            self.outcomes.append(Delivered(callback, attempt))
            return
        self._failures += 1
        self._gone = attempt.status == GONE
        failing_for_ms = self._failing_for_ms(callback, attempt)
        dead = backoff.is_dead(self._policy, callback.attempts + 1, failing_for_ms)
        aside = self._pause_ms(callback, attempt) if callback.aside and not dead else None
        failed = Failed(callback, attempt, aside_for_ms=aside, dead=dead)
        self.outcomes.append(failed)
        if dead:
            return  # it does not hold back anybody, and nobody overtakes it
        if callback.aside:
            self._set_aside = self._set_aside or callback.event_id
            return
        if self._head is None:
            self._head = failed
            self._stopped = not backoff.is_lingering(self._policy, failing_for_ms)
        else:
            self._stopped = True  # the probe failed too: the receiver is down, and order is kept

    def _release_head(self) -> None:
        """The next event came through: the failing head was at fault itself, and is set aside."""
        if self._head is not None:
            aside = msgspec.structs.replace(
                self._head, aside_for_ms=self._pause_ms(self._head.callback, self._head.attempt)
            )
            self.outcomes[self.outcomes.index(self._head)] = aside
            self._set_aside = self._set_aside or self._head.callback.event_id
            self._head = None
            self._failures -= 1

    def _failing_for_ms(self, callback: Waiting, attempt: Attempt) -> int:
        """Counted to the end of this attempt, so that a receiver which hangs does not look younger than it is."""
        return callback.failing_for_ms + attempt.duration_ms if callback.attempts else 0

    def _pause_ms(self, callback: Waiting, attempt: Attempt) -> int:
        pause = backoff.pause_ms(self._policy, self._failing_for_ms(callback, attempt), self._rng)
        return backoff.after_retry_after(self._policy, pause, attempt.retry_after_s)

    def settlement(self) -> Settlement:
        """What becomes of the lane: go on at once, wait for the head, or wait for what comes."""
        lane, outcomes = self._lane, tuple(self.outcomes)
        if self._gone:
            return Settlement(lane, outcomes, None, disable="410 gone")
        if self._head is not None:
            callback, attempt = self._head.callback, self._head.attempt
            if backoff.is_lost(self._policy, lane.failing_for_ms, callback.attempts + 1):
                return Settlement(lane, outcomes, None, disable="failed for days")
            pause = self._pause_ms(callback, attempt)
            return Settlement(lane, outcomes, pause, backoff.early_ms(self._policy, pause, attempt))
        unsent = len(outcomes) < len(lane.waiting)
        return Settlement(lane, outcomes, 0 if unsent or lane.more else None)
