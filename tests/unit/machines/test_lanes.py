"""Lanes: order per instance, concurrency across, patience with the database, an end to poison."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random  # noqa: TID251 - seeded

import pytest

from tomada.errors import DatabaseUnavailable
from tomada.machines import lanes as lanes_module
from tomada.machines.lanes import TRIES_MAX, Lanes, Work


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries after a millisecond."""
    monkeypatch.setattr(lanes_module, "RETRY_BASE_S", 0.001)
    monkeypatch.setattr(lanes_module, "RETRY_MAX_S", 0.002)


class Log:
    """What was run, put aside and done, in order."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def work(self, name: str, run: Callable[[], Awaitable[None]] | None = None) -> Work:
        """Work that writes into this log."""

        async def note() -> None:
            self.entries.append(f"run {name}")
            if run is not None:
                await run()

        async def aside(error: Exception) -> None:
            self.entries.append(f"aside {name} {type(error).__name__}")

        return Work(note, aside, lambda: self.entries.append(f"done {name}"), name)


async def test_order_within_an_instance_and_none_across() -> None:
    """One instance's work waits for the work before it; another instance's does not."""
    lanes, log, gate = Lanes(Random(1)), Log(), asyncio.Event()

    async def wait() -> None:
        await gate.wait()

    lanes.add("a", log.work("a1", wait))
    lanes.add("a", log.work("a2"))
    lanes.add("b", log.work("b1"))
    await asyncio.wait_for(lanes.idle("b"), 2)

    assert log.entries == ["run a1", "run b1", "done b1"]
    gate.set()
    await asyncio.wait_for(lanes.idle("a"), 2)
    assert log.entries[3:] == ["done a1", "run a2", "done a2"]


async def test_a_database_that_is_away_is_waited_for_however_long() -> None:
    """More failures than TRIES_MAX, if they say that the database is away: nothing is skipped or done early."""
    lanes, log, left = Lanes(Random(1)), Log(), [TRIES_MAX * 6]

    async def away() -> None:
        if left[0] > 0:
            left[0] -= 1
            raise DatabaseUnavailable if left[0] % 2 else ConnectionResetError

    lanes.add("a", log.work("a1", away))
    lanes.add("a", log.work("a2"))
    await asyncio.wait_for(lanes.idle("a"), 10)

    assert log.entries == ["run a1"] * (TRIES_MAX * 6 + 1) + ["done a1", "run a2", "done a2"]


async def test_poison_is_put_aside_and_the_lane_goes_on() -> None:
    """An error of our own is tried TRIES_MAX times, then put aside, and counts as done."""
    lanes, log = Lanes(Random(1)), Log()

    async def broken() -> None:
        raise KeyError("x")

    lanes.add("a", log.work("a1", broken))
    lanes.add("a", log.work("a2"))
    await asyncio.wait_for(lanes.idle("a"), 10)

    assert log.entries == ["run a1"] * TRIES_MAX + ["aside a1 KeyError", "done a1", "run a2", "done a2"]
    assert lanes.put_aside_total == 1


async def test_what_cannot_be_put_aside_stays() -> None:
    """With a full disk the poisoned event keeps its place and is tried on: it is never dropped."""
    lanes, tries = Lanes(Random(1)), [0]
    done, done_while_full = asyncio.Event(), []

    async def broken() -> None:
        tries[0] += 1
        raise KeyError("x")

    async def aside(_error: Exception) -> None:
        if tries[0] < TRIES_MAX * 2:
            done_while_full.append(done.is_set())
            raise OSError("disk full")

    lanes.add("a", Work(broken, aside, done.set, "a1"))
    await asyncio.wait_for(done.wait(), 10)

    assert done_while_full == [False] * TRIES_MAX
    assert tries[0] == TRIES_MAX * 2
    assert lanes.put_aside_total == 1


async def test_no_more_than_the_bound_run_at_once() -> None:
    """Many lanes, few at a time."""
    lanes, running, most = Lanes(Random(1), concurrent_max=3), [0], [0]

    async def work() -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        await asyncio.sleep(0.002)
        running[0] -= 1

    for number in range(20):
        lanes.add(f"i{number}", Log().work("w", work))
    for number in range(20):
        await asyncio.wait_for(lanes.idle(f"i{number}"), 5)

    assert most[0] == 3


async def test_closing_drops_what_waits_without_calling_it_done() -> None:
    """What was not finished is not acknowledged."""
    lanes, log = Lanes(Random(1)), Log()

    async def for_ever() -> None:
        await asyncio.Event().wait()

    lanes.add("a", log.work("a1", for_ever))
    await asyncio.sleep(0)
    await lanes.close()

    assert "done a1" not in log.entries
