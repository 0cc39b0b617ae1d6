"""Work in strict order per instance, at the same time across instances, tried until it is done.

The work is what an event demands: write the session's row, hand the event to the pipeline, which commits. Why not
simply await it where it was read: one slow commit would hold up every instance of the machine.

- *Order*: one lane (a queue and a task) per instance; a lane's next work starts when the one before is done.
- *Bound*: at most CONCURRENT_MAX works run at once. How many may wait is bounded where they come from: a machine whose
  events pile up is not read any further (machine.py), and the rest waits with WhatsApp.
- *Never skipped while the database is away, or there and refuses*: what PostgreSQL says about itself
  (postgres/verdict.py) is retried for ever, with jittered backoff up to RETRY_MAX_S.
- *No lane is blocked for ever by one event*: a fault of ours, or of the event's data, is its own. After TRIES_MAX tries
  the work is put aside (its `put_aside` keeps it where a person finds it) and the lane goes on.
- *What nobody can tell is told by others*: an error that may be PostgreSQL's or this event's (Verdict.UNCLEAR) counts
  as a try only if other work of the same kind was done since the try before. Of the same kind, since a table that
  refuses stops one kind and not the others.
- *Waiting for ever hides nothing*: work that has failed TRIES_MAX times is `stuck`, a figure to alert on; and if others
  of its kind go on meanwhile, the log says so as an error, with the work's name.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from random import Random  # noqa: TID251 - the type of what is passed in

import msgspec
import structlog

from tomada.machines.backoff import half_jitter_s
from tomada.postgres.verdict import Verdict, judge, words

log = structlog.get_logger(__name__)

CONCURRENT_MAX = 64
TRIES_MAX = 5
RETRY_BASE_S = 0.1
RETRY_MAX_S = 5.0


class Work(msgspec.Struct, frozen=True):
    """One thing to do. `run` may be called again after it failed; `done` is called once, whatever became of it.

    `label` names it in the log; its first word is the kind of work.
    """

    run: Callable[[], Awaitable[None]]
    put_aside: Callable[[Exception], Awaitable[None]]
    done: Callable[[], None]
    label: str

    @property
    def kind(self) -> str:
        """What it has in common with work of other instances."""
        return self.label.partition(" ")[0]


class Lanes:
    """The lanes of all instances."""

    def __init__(self, rng: Random, concurrent_max: int = CONCURRENT_MAX) -> None:
        self._rng = rng
        self._running = asyncio.Semaphore(concurrent_max)
        self._queues: dict[str, deque[Work]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._done: Counter[str] = Counter()  # by kind of work
        self._stuck: set[str] = set()
        self.put_aside_total = 0
        self.refusal: str | None = None  # what the database refused last, if nothing was done since; in words

    @property
    def stuck(self) -> int:
        """How many instances wait behind work that has failed TRIES_MAX times or more."""
        return len(self._stuck)

    def add(self, instance_id: str, work: Work) -> None:
        """Queue work behind all earlier work of this instance."""
        queue = self._queues.setdefault(instance_id, deque())
        queue.append(work)
        if instance_id not in self._tasks:
            self._tasks[instance_id] = asyncio.create_task(self._drain(instance_id, queue), name=f"lane {instance_id}")

    def busy(self, instance_id: str) -> bool:
        """Whether anything is queued for this instance."""
        return instance_id in self._tasks

    async def idle(self, instance_id: str) -> None:
        """Wait until everything queued for this instance, and whatever is added meanwhile, is done."""
        while (task := self._tasks.get(instance_id)) is not None:
            await asyncio.wait({task})

    async def close(self, within_s: float = 0.0) -> None:
        """Drop what waits and is not done in time. What a machine told with a number comes again then."""
        tasks = list(self._tasks.values())
        if tasks and within_s:
            await asyncio.wait(tasks, timeout=within_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _drain(self, instance_id: str, queue: deque[Work]) -> None:
        try:
            while queue:
                await self._until_done(instance_id, queue[0])
                self._stuck.discard(instance_id)
                self.refusal = None
                queue.popleft().done()
        finally:
            self._stuck.discard(instance_id)
            del self._queues[instance_id], self._tasks[instance_id]

    async def _until_done(self, instance_id: str, work: Work) -> None:
        faults = tries = 0
        done_before = self._done[work.kind]
        while True:
            tries += 1
            try:
                async with self._running:
                    await work.run()
            except Exception as error:  # noqa: BLE001 - whatever it is, this lane must go on, and says so
                alone = self._done[work.kind] > done_before
                done_before = self._done[work.kind]
                verdict = judge(error)
                self.refusal = words(error) if verdict is Verdict.REFUSED else None
                faults += not verdict.passes or (verdict is Verdict.UNCLEAR and alone)
                if faults >= TRIES_MAX and await self._gave_up(instance_id, work, error):
                    return
                self._complain(instance_id, work, error, tries, alone)
                await asyncio.sleep(half_jitter_s(tries, self._rng, RETRY_BASE_S, RETRY_MAX_S))
            else:
                self._done[work.kind] += 1
                return

    async def _gave_up(self, instance_id: str, work: Work, error: Exception) -> bool:
        try:
            await work.put_aside(error)
        except Exception as trouble:  # noqa: BLE001 - then it stays where it is: losing it is not an option
            log.error("lane.cannot_put_aside", instance=instance_id, work=work.label, error=repr(trouble))
            return False
        self.put_aside_total += 1
        log.error("lane.put_aside", instance=instance_id, work=work.label, error=type(error).__name__)
        return True

    def _complain(self, instance_id: str, work: Work, error: Exception, tries: int, alone: bool) -> None:
        if tries >= TRIES_MAX:
            self._stuck.add(instance_id)
        if tries & (tries - 1) == 0:  # 1, 2, 4, 8, ...: an outage of an hour is a dozen lines a lane
            say = log.error if alone and tries >= TRIES_MAX else log.warning
            kind, why = type(error).__name__, words(error)
            say("lane.retry", instance=instance_id, work=work.label, error=kind, why=why, tries=tries)
