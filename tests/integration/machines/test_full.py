"""A machine whose way out is full: lines that are too long, a journal or a disk without room.

Real: the process, its pipes, its files and the limit on them. Doubled: the engine (without_engine.py).
"""

import contextlib
from pathlib import Path

import msgspec
import psutil

from tests.integration.machines.driven import Driven, machine, until
from tomada.engine import port
from tomada.engine.environment import ENGINE_ENVIRONMENT
from tomada.kit.clock import SystemClock
from tomada.machines.inside_pipe import CUT
from tomada.machines.journal import Journal
from tomada.machines.protocol import LINE_BYTES_MAX, Acknowledge, Happened, Probe

PROGRAM = str(Path(__file__).with_name("without_engine.py"))


def started(folder: Path, **environment: str) -> contextlib.AbstractAsyncContextManager[Driven]:
    """A machine without an engine that the host never answers: it acknowledges nothing by itself."""
    return machine(folder, launcher=(PROGRAM,), environment={**ENGINE_ENVIRONMENT, **environment}, acknowledge=False)


def heard(driven: Driven) -> list[str]:
    """The ids of the messages that were told."""
    return [event.wa_id for event in driven.events("i", port.MessageReceived)]


def shape(event: port.MessageReceived) -> tuple[str, str, int]:
    """The beginning, the end and the length of a text that nobody wants to see printed."""
    assert isinstance(event.content, port.TextReceived)
    text = event.content.message
    return text[:5], text[-len(CUT) - 3 :], len(text)


def full(folder: Path) -> bool:
    """Whether a journal of 500 bytes has no room left."""
    return (folder / "journal").stat().st_size > 500


async def test_a_text_that_fits_in_no_line_is_cut(tmp_path: Path) -> None:
    """A text of more than a line is told cut and marked, so that the host, whose lines are bounded, reads on."""
    async with started(tmp_path) as driven:
        await driven.open("i", "store", f"hear 2 {LINE_BYTES_MAX * 2}")
        await until(lambda: heard(driven) == ["m0", "m1"])
        for number, event in enumerate(driven.events("i", port.MessageReceived)):
            assert shape(event) == (f"{number} xxx", f"xxx{CUT}", LINE_BYTES_MAX // 2 + len(CUT))


async def test_a_journal_with_a_line_that_is_too_long_is_told(tmp_path: Path) -> None:
    """What an earlier version wrote into the journal does not keep the machine from ever being ready."""
    written = Journal(tmp_path / "journal", SystemClock())
    text = port.TextReceived("y" * LINE_BYTES_MAX)
    event = port.MessageReceived("old", "55", None, "55", None, False, False, 1, "Ana", text)
    number = written.append(lambda number: msgspec.json.encode(Happened("i", event, number)) + b"\n", lambda _: None)
    async with started(tmp_path) as driven:
        (told,) = driven.before_ready
        assert told.journal == number
        assert isinstance(told.event, port.MessageReceived)
        assert shape(told.event) == ("yyyyy", f"yyy{CUT}", LINE_BYTES_MAX // 2 + len(CUT))


async def test_a_full_journal_stops_nothing_but_events(tmp_path: Path) -> None:
    """While the engine's thread waits for room, the machine answers, sends, and hears the host that makes room."""
    async with started(tmp_path, JOURNAL_BYTES_MAX="500") as driven:
        await driven.open("i", "store", "hear 20 10")
        await until(lambda: full(tmp_path))
        assert (await driven.send("i", "z", "55", "oi")).error is None
        assert (await driven.ask(Probe("i"))).value == "yes"
        while len(heard(driven)) < 20 or not driven.events("i", port.MessageSent):
            count = len(driven.happened)
            driven.write(Acknowledge(driven.happened[-1].journal or 0))
            await until(lambda count=count: len(driven.happened) > count)  # type: ignore[misc]
        assert heard(driven) == [f"m{number}" for number in range(20)]


async def test_a_full_disk_is_waited_out(tmp_path: Path) -> None:
    """Without room for its journal a machine lives on, hears the host, and tells what waited once there is room."""
    async with started(tmp_path) as driven:
        await driven.open("i", "store", "hear 40 100000")
        await until(lambda: len(heard(driven)) == 40)
        _, hard = rlimit = psutil.Process(driven.process.pid).rlimit(psutil.RLIMIT_FSIZE)
        psutil.Process(driven.process.pid).rlimit(psutil.RLIMIT_FSIZE, (1_000_000, hard))
        driven.write(Acknowledge(driven.happened[24].journal or 0))  # the rest, of 1.5 MB, cannot be written anew
        await driven.send("i", "z", "55", "oi")
        assert (await driven.ask(Probe("i"))).value == "yes"
        await until(lambda: b"journal_cannot_be_written" in driven.log)
        assert driven.events("i", port.MessageSent) == []
        psutil.Process(driven.process.pid).rlimit(psutil.RLIMIT_FSIZE, rlimit)
        await driven.event("i", port.MessageSent)
        driven.write(Acknowledge(driven.happened[25].journal or 0))
        await driven.ask(Probe("i"))
        assert (tmp_path / "journal").stat().st_size < 2_000_000
        driven.process.kill()
    async with started(tmp_path) as second:
        assert [h.journal for h in second.before_ready] == [h.journal for h in driven.happened[26:]]


async def test_it_ends_though_what_it_tells_has_no_room(tmp_path: Path) -> None:
    """At the end of its input a machine is gone in its time, though its threads wait for a host that is gone."""
    async with started(tmp_path, JOURNAL_BYTES_MAX="500", FINISH_S="0.5") as driven:
        await driven.open("i", "store", "hear 20 10")
        await until(lambda: full(tmp_path))
        await driven.send("i", "z", "55", "oi")
        assert (await driven.ask(Probe("i"))).value == "yes"  # by now the outcome of the send waits too
        assert await driven.end(0) == 0
