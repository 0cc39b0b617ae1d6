"""Gives waiting messages to the machines: one lane per instance, in order, one at a time.

A lane is a task that lives while its instance is connected and has messages waiting. It is woken by an accepted
message, by the session's connecting, and by a sweep every few seconds, which makes every other wake-up a mere hint: a
lost one costs time, never a message.

    head ──pause──▶ claim (committed) ──▶ machine ──▶ outcome, told by the pipeline after it is committed ──▶ next head

A claim needs the epoch of the connected machine to be the instance's: what was accepted for a new machine does not
leave through the one before it. The claim brings the next head with it, so a queue is worked off without asking for its
head each time; what was queued after that has woken the lane, which asks again before it ends.
"""

import asyncio
import contextlib
from random import Random  # noqa: TID251 - the type of what is passed in
from typing import Protocol

import structlog

from tomada.engine.port import Content, EngineRefused
from tomada.errors import TomadaError
from tomada.messages.store import MessageStore, Outgoing
from tomada.postgres.verdict import judge, words

log = structlog.get_logger(__name__)

ATTEMPTS_MAX = 10  # of a message whose outcome stays unknown, all under one id; then its failure is reported
OUTCOME_TIMEOUT_S = 300.0  # longer than all deadlines of the machine's together, which tells the outcome itself
SWEEP_S = 5.0


class Sessions(Protocol):
    """What the sender needs of the machines."""

    def connected(self, instance_id: str) -> int | None:
        """The epoch of the machine that can take a send now, None if there is none."""

    async def transmit(self, instance_id: str, message_id: str, chat: str, content: Content) -> None:
        """Hand a message to the instance's machine; raises EngineRefused or TomadaError if it was not taken.

        EngineRefused without `retry`: no machine will ever take it.
        """

    async def restart(self, instance_id: str) -> None:
        """Close the session and open it anew, once everything told of it is committed; returns at once."""


class Resolver(Protocol):
    """Completes a content that refers to another message (reply, edit), as late as possible."""

    async def __call__(self, message: Outgoing) -> Content:
        """The content as the engine shall send it."""


class GaveUp(Protocol):
    """Settles a message as failed and reports it by callback, both or neither."""

    async def __call__(self, message: Outgoing, error: str) -> None:
        """Commit the failure."""


class Sender:
    """All lanes of this process."""

    def __init__(
        self,
        store: MessageStore,
        sessions: Sessions,
        resolve: Resolver,
        gave_up: GaveUp,
        delay_range_s: tuple[float, float],
        rng: Random,
        outcome_timeout_s: float = OUTCOME_TIMEOUT_S,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._resolve = resolve
        self._gave_up = gave_up
        self._delay_range_s = delay_range_s
        self._rng = rng
        self._outcome_timeout_s = outcome_timeout_s
        self._lanes: dict[str, asyncio.Task[None]] = {}
        self._outcomes: dict[str, asyncio.Future[bool]] = {}
        # Ids of messages that may stand as `sending` although no machine was given them: the database went away in
        # mid-step.
        self._adrift: set[str] = set()
        self._woken: set[str] = set()

    async def run(self) -> None:
        """Sweep until cancelled; then end the lanes. A message that is under way stays `sending`, which is true."""
        try:
            while True:
                try:
                    for instance_id in await self._store.waiting_instances():
                        self.wake(instance_id)
                except Exception as error:  # noqa: BLE001 - whatever the database says, sending must not stop for good
                    _say("sender.sweep_failed", error)
                await asyncio.sleep(SWEEP_S)
        finally:
            lanes = list(self._lanes.values())
            for lane in lanes:
                lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)

    def wake(self, instance_id: str) -> None:
        """There may be something to send for this instance."""
        if instance_id in self._lanes:
            self._woken.add(instance_id)
        elif self._sessions.connected(instance_id):
            self._lanes[instance_id] = asyncio.create_task(self._lane(instance_id), name=f"send {instance_id}")

    def busy(self, instance_id: str) -> bool:
        """Whether this instance has a lane just now."""
        return instance_id in self._lanes

    def settled(self, message_id: str, *, known: bool) -> None:
        """The outcome of a message was told (and, if known, committed)."""
        outcome = self._outcomes.get(message_id)
        if outcome is not None and not outcome.done():
            outcome.set_result(known)

    async def session_opening(self, instance_id: str) -> None:
        """Call before a session is opened anew, after everything told of it is committed: see the package."""
        for message_id in await self._store.requeue_unknown(instance_id):
            log.info("message.outcome_unknown", instance=instance_id, message_id=message_id)
            self.settled(message_id, known=False)

    async def _lane(self, instance_id: str) -> None:
        try:
            while True:
                self._woken.discard(instance_id)
                await self._drain(instance_id)
                if instance_id not in self._woken:
                    return
        except Exception as error:  # noqa: BLE001 - whatever it is, the sweep starts this lane again
            _say("sender.lane_failed", error, instance=instance_id)
        finally:
            del self._lanes[instance_id]

    async def _drain(self, instance_id: str) -> None:
        """Send until the lane should rest: nothing waits, or the session cannot send now."""
        message = await self._store.head(instance_id) if self._sessions.connected(instance_id) else None
        while message is not None and (epoch := self._sessions.connected(instance_id)):
            message = await self._send(message, epoch)

    async def _send(self, message: Outgoing, epoch: int) -> Outgoing | None:
        """Send the head; returns the next head, None when the lane should rest."""
        if message.state == "sending":
            return await self._salvage(message)
        if message.attempts >= ATTEMPTS_MAX:
            await self._gave_up(message, "The outcome of this message is unknown")
            return await self._store.head(message.instance_id)
        await asyncio.sleep(self._pause_s(message))
        # Before the claim: the session may be opened anew between its commit and its answer.
        outcome = self._outcomes[message.message_id] = asyncio.get_running_loop().create_future()
        try:
            return await self._claim(message, epoch, outcome)
        finally:
            del self._outcomes[message.message_id]

    async def _claim(self, message: Outgoing, epoch: int, outcome: asyncio.Future[bool]) -> Outgoing | None:
        self._adrift.add(message.message_id)
        claim = await self._store.claim(message, epoch)
        if claim is None:  # removed from the queue during the pause, or not for this machine
            self._adrift.remove(message.message_id)
            head = await self._store.head(message.instance_id)
            return None if head is not None and head.number == message.number else head
        return claim.behind if await self._hand_over(message, outcome) else None

    async def _salvage(self, message: Outgoing) -> Outgoing | None:
        """A head that is `sending`: ours to give back if adrift; else its holder is being replaced."""
        if message.message_id not in self._adrift:
            return None
        await self._give_back(message)
        return await self._store.head(message.instance_id)

    async def _give_back(self, message: Outgoing) -> None:
        """Surely not sent, so it was no attempt."""
        await self._store.give_back(message.instance_id, message.message_id, counted=False)
        self._adrift.remove(message.message_id)

    async def _hand_over(self, message: Outgoing, outcome: asyncio.Future[bool]) -> bool:
        try:
            content = await self._resolve(message)
            if outcome.done():  # the session was opened anew meanwhile, so the message is queued again
                await self._give_back(message)
                return outcome.result()
            await self._sessions.transmit(message.instance_id, message.message_id, message.chat, content)
        except (EngineRefused, TomadaError) as error:
            if isinstance(error, EngineRefused) and not error.retry:  # no machine will ever take it
                await self._gave_up(message, str(error))
                self._adrift.remove(message.message_id)
                return True
            log.info("sender.not_taken", instance=message.instance_id, reason=str(error))
            await self._give_back(message)
            return False
        else:
            self._adrift.remove(message.message_id)
            return await self._outcome(message.instance_id, outcome)

    async def _outcome(self, instance_id: str, outcome: asyncio.Future[bool]) -> bool:
        """Wait for what becomes of it. Whoever has it is never taken for lost: it may have been sent.

        After too long a silence the session is opened anew. Before that everything told of it is committed, so an
        outcome that was known is settled then, and one that was not is unknown. If that fails, after another such
        silence.
        """
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._outcome_timeout_s):
                    return await asyncio.shield(outcome)
            if not self._sessions.connected(instance_id):
                return False  # the next opening of the session tells
            log.warning("sender.no_outcome", instance=instance_id)
            try:
                await self._sessions.restart(instance_id)
            except Exception as error:  # noqa: BLE001 - whatever it is, nobody else waits: it is asked again
                log.warning("sender.not_restarted", instance=instance_id, error=repr(error))

    def _pause_s(self, message: Outgoing) -> float:
        return message.delay_s if message.delay_s is not None else self._rng.uniform(*self._delay_range_s)


def _say(event: str, error: Exception, **about: str) -> None:
    """Trouble of the database passes and is a warning; the rest is a fault of ours, with its traceback."""
    if judge(error).passes:
        log.warning(event, why=words(error), **about)
    else:
        log.error(event, exc_info=error, **about)
