"""Lanes: order per instance, concurrency across, patience with the database, an end to poison."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random  # noqa: TID251 - seeded

import asyncpg
import pytest
from structlog.testing import capture_logs

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


_REFUSALS = (
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.DiskFullError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.InvalidPasswordError,
    asyncpg.UndefinedTableError,
    asyncpg.QueryCanceledError,
    asyncpg.InternalServerError,
)


@pytest.mark.parametrize("errors", [(DatabaseUnavailable, ConnectionResetError), _REFUSALS])
async def test_a_database_that_is_away_or_refuses_is_waited_for(errors: tuple[type[Exception], ...]) -> None:
    """More failures than TRIES_MAX, if they are the database's: nothing is skipped or done early."""
    lanes, log, left = Lanes(Random(1)), Log(), [TRIES_MAX * 6]

    async def away() -> None:
        if left[0] > 0:
            left[0] -= 1
            raise errors[left[0] % len(errors)]("x")

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


async def others(lanes: Lanes, log: Log, kind: str, stop: asyncio.Event) -> None:
    """Work of this kind for other instances, done all the time."""
    number = 0
    while not stop.is_set():
        number += 1
        lanes.add(f"other {number % 5}", log.work(f"{kind} {number}"))
        await asyncio.sleep(0.001)


async def until_tried(log: Log, name: str, times: int) -> None:
    """Wait until this work was tried so often."""
    async with asyncio.timeout(10):
        while log.entries.count(f"run {name}") < times:
            await asyncio.sleep(0.001)


async def test_unclear_trouble_of_one_while_others_go_on_is_its_own() -> None:
    """A trigger that refuses one event says nothing of whose fault it is; that others like it are committed does."""
    lanes, log, stop = Lanes(Random(1)), Log(), asyncio.Event()

    async def broken() -> None:
        raise asyncpg.RaiseError("x")

    busy = asyncio.create_task(others(lanes, log, "received", stop))
    lanes.add("a", log.work("received a1", broken))
    with capture_logs() as lines:
        await asyncio.wait_for(lanes.idle("a"), 10)
    stop.set()
    await busy

    assert [entry for entry in log.entries if entry.startswith("aside")] == ["aside received a1 RaiseError"]
    assert log.entries.count("run received a1") >= TRIES_MAX
    (told,) = [line for line in lines if line["event"] == "lane.put_aside"]
    assert (told["log_level"], told["instance"], told["work"]) == ("error", "a", "received a1")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (asyncpg.RaiseError, "row"),  # others go on, but they do not what this one does
        (asyncpg.InsufficientPrivilegeError, "received"),  # the server's state: it never counts
        (asyncpg.DiskFullError, "received"),  # small rows may still find room
    ],
)
async def test_what_may_be_the_databases_is_not_put_aside_but_told(error: type[Exception], kind: str) -> None:
    """It waits, counts as stuck, and if others of its kind go on the log names it as an error."""
    lanes, log, stop, healed = Lanes(Random(1)), Log(), asyncio.Event(), asyncio.Event()

    async def refused() -> None:
        if not healed.is_set():
            raise error("x")

    with capture_logs() as lines:
        busy = asyncio.create_task(others(lanes, log, kind, stop))
        lanes.add("a", log.work("received a1", refused))
        await until_tried(log, "received a1", TRIES_MAX * 4)
        stuck = lanes.stuck
        healed.set()
        await asyncio.wait_for(lanes.idle("a"), 10)
        stop.set()
        await busy

    assert not [entry for entry in log.entries if entry.startswith("aside")]
    assert (stuck, lanes.stuck, lanes.put_aside_total) == (1, 0, 0)
    errors = [line for line in lines if line["event"] == "lane.retry" and line["log_level"] == "error"]
    assert bool(errors) == (kind == "received")
    assert all(line["work"] == "received a1" for line in errors)


async def test_a_refusal_is_told_until_something_is_done_again() -> None:
    """/ready shows it; the words are fixed ones."""
    lanes, log, healed = Lanes(Random(1)), Log(), asyncio.Event()

    async def refused() -> None:
        if not healed.is_set():
            raise asyncpg.DiskFullError("secret")

    lanes.add("a", log.work("received a1", refused))
    await until_tried(log, "received a1", 2)
    told = lanes.refusal
    healed.set()
    await asyncio.wait_for(lanes.idle("a"), 10)

    assert told == "the database's disk is full (SQLSTATE 53100)"
    assert lanes.refusal is None


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
