"""Virtual time and the faults of a distributed system, all drawn from one random source: same seed, same run.

Coroutines are driven by hand instead of by asyncio: `pause` is the only thing they may wait for, so nothing in a run
depends on the computer it runs on, and days pass in microseconds. That is also a check on production code: whatever it
awaits here comes through a port.
"""

import heapq
import random  # noqa: TID251 - seeded, passed in
from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any, TypeVar

from tomada.errors import DatabaseUnavailable, OutcomeUnknown

T = TypeVar("T")
NEVER_MS = 1 << 60
SECOND_MS = 1000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS


@coroutine
def pause(ms: int) -> Generator[int, None, None]:
    """Waits for virtual milliseconds."""
    yield ms


class Process:
    """A replica; all its tasks stop when it freezes or is killed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.frozen_until_ms = 0
        self.life = 0  # grows when it is killed


class ProcessClock:
    """The clock that a process sees. What time it is it is never asked, so it may be wrong by any amount."""

    def __init__(self, schedule: "Schedule") -> None:
        self._schedule = schedule

    def now_ms(self) -> int:
        """The lifecycle has no business with it."""
        raise AssertionError("a process's own clock was asked for the time")

    def monotonic_s(self) -> float:
        """Counts while the process is frozen, as CLOCK_MONOTONIC does for SIGSTOP."""
        return self._schedule.now_ms / 1000


class _Task:
    __slots__ = ("call", "life", "process", "then")

    def __init__(
        self, call: Coroutine[Any, Any, Any], process: Process | None, then: Callable[[object], None] | None
    ) -> None:
        self.call = call
        self.process = process
        self.life = process.life if process else 0
        self.then = then


class Schedule:
    """Runs tasks in the order of virtual time."""

    def __init__(self, rng: random.Random, start_ms: int) -> None:
        self.rng = rng
        self.now_ms = start_ms
        self._heap: list[tuple[int, int, _Task]] = []
        self._number = 0

    def spawn(
        self,
        call: Coroutine[Any, Any, Any],
        process: Process | None = None,
        *,
        at_ms: int = 0,
        then: Callable[[object], None] | None = None,
    ) -> None:
        """Starts a task at a time (now, if that is past). `then` hears its result or its exception, unless it dies."""
        self._push(max(at_ms, self.now_ms), _Task(call, process, then))

    def run_until(self, end_ms: int) -> None:
        """Lets time pass up to `end_ms`."""
        while self._heap and self._heap[0][0] <= end_ms:
            at_ms, _number, task = heapq.heappop(self._heap)
            self.now_ms = at_ms
            process = task.process
            if process is not None:
                if task.life != process.life:
                    task.call.close()
                    continue
                if process.frozen_until_ms > at_ms:
                    self._push(process.frozen_until_ms, task)
                    continue
            self._step(task)
        self.now_ms = end_ms

    def close(self) -> None:
        """Drops whatever is still waiting."""
        for _at_ms, _number, task in self._heap:
            task.call.close()
        self._heap.clear()

    def _step(self, task: _Task) -> None:
        result: object
        try:
            ms = task.call.send(None)
        except StopIteration as stop:
            result = stop.value
        except Exception as error:
            if task.then is None:
                raise
            result = error
        else:
            self._push(self.now_ms + ms, task)
            return
        if task.then is not None:
            task.then(result)

    def _push(self, at_ms: int, task: _Task) -> None:
        self._number += 1
        heapq.heappush(self._heap, (at_ms, self._number, task))


class Faults:
    """How often what goes wrong, per call through a port; `heal` ends it all."""

    def __init__(self, rng: random.Random) -> None:
        severity = rng.choice((0.0, 0.01, 0.05, 0.15))
        self.crash = severity * rng.random()
        self.freeze = severity * rng.random()
        self.lost = severity * rng.random()
        self.slow = severity * rng.random()

    def heal(self) -> None:
        """From now on everything works."""
        self.crash = self.freeze = self.lost = self.slow = 0.0


class Wire:
    """Between a process and a port: every call may be delayed, lost before or after its effect, or cut by a crash."""

    def __init__(
        self, schedule: Schedule, faults: Faults, process: Process, restart: Callable[[Process], None]
    ) -> None:
        self._schedule = schedule
        self._faults = faults
        self._process = process
        self._restart = restart

    async def call(self, effect: Coroutine[Any, Any, T]) -> T:
        """The port's answer; raises DatabaseUnavailable (nothing happened) or OutcomeUnknown (it may have)."""
        try:
            await self._hazard(DatabaseUnavailable)
        except BaseException:
            effect.close()
            raise
        answer = await effect
        await self._hazard(OutcomeUnknown)
        return answer

    async def _hazard(self, lost: type[Exception]) -> None:
        rng, faults, process = self._schedule.rng, self._faults, self._process
        draw = rng.random()
        if draw < faults.crash:
            process.life += 1
            self._restart(process)
            await pause(NEVER_MS)
        elif draw < faults.crash + faults.freeze:
            process.frozen_until_ms = self._schedule.now_ms + int(
                rng.choice((MINUTE_MS, HOUR_MS, 3 * DAY_MS)) * rng.random()
            )
        elif draw < faults.crash + faults.freeze + faults.lost:
            raise lost
        slow = rng.random() < faults.slow
        await pause(rng.randrange(2 * MINUTE_MS) if slow else rng.randrange(1, 60))
