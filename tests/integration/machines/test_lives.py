"""How a machine ends and begins: kill -9, the end of its input, signals, a parent that dies, two in one folder."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil

from tests.integration.machines.bench import Bench
from tests.integration.machines.driven import until
from tomada.engine import port
from tomada.machines.protocol import Acknowledge, CloseSession, Send


async def test_killed_machine_tells_again(bench: Bench) -> None:
    """After kill -9 every unacknowledged event is told again under its number, before Ready; acknowledged ones not."""
    async with bench.machine("told-again", acknowledge=False) as first:
        number = await bench.paired(first, "told-again")
        other = await bench.phone()
        for n in range(5):
            await bench.call("POST", f"phones/{other}/send", {"to": number, "text": f"kept {n}"})
        await first.event("told-again", port.MessageReceived, lambda e: e.content == port.TextReceived("kept 4"))
        journaled = [h for h in first.happened if h.journal is not None]
        first.write(Acknowledge(journaled[0].journal or 0))
        await first.ask(CloseSession("nobody"))  # what was written before a request is read before its answer
        first.process.kill()
    journaled = [h for h in first.happened if h.journal is not None]
    async with bench.machine("told-again") as second:
        assert second.before_ready == journaled[1:]
        await bench.open(second, "told-again")
        await second.event("told-again", port.Connected)
        await bench.call("POST", f"phones/{other}/send", {"to": number, "text": "new"})
        await second.event("told-again", port.MessageReceived, lambda e: e.content == port.TextReceived("new"))
        numbers = [h.journal for h in second.happened if h.journal is not None]
        assert numbers == sorted(set(numbers))
        await second.ask(CloseSession("nobody"))  # the last acknowledgement too
        assert await second.end() == 0
    async with bench.machine("told-again") as third:
        assert third.before_ready == []


async def test_end_of_input_finishes_what_is_under_way(bench: Bench) -> None:
    """At the end of its input a machine finishes the send under way, gives back the rest, and exits with 0."""
    async with bench.machine("input-ends") as driven:
        number = await bench.paired(driven, "input-ends")
        other = await bench.phone()
        slow = port.Text("under way", typing_s=1.0)
        await driven.ask(Send("input-ends", "z-slow", other, slow))
        await driven.ask(Send("input-ends", "z-next", other, port.Text("waits")))
        assert await driven.end(0) == 0
        assert [e.zaap_id for e in driven.events("input-ends", port.MessageSent)] == ["z-slow"]
        failed = driven.events("input-ends", port.MessageFailed)
        assert [(e.zaap_id, e.unknown, e.retry) for e in failed] == [("z-next", False, True)]
        assert await bench.texts(other) == ["under way"]
        assert number


async def test_sigterm(bench: Bench) -> None:
    """SIGTERM ends a machine with running sessions within its time, with 0, and leaves no child behind."""
    async with bench.machine("sigterm") as driven:
        await bench.paired(driven, "sigterm")
        await bench.open(driven, "sigterm-pairing")
        children = psutil.Process(driven.process.pid).children(recursive=True)
        assert children == []
        assert await driven.end(signal.SIGTERM, within_s=6) == 0


async def test_one_machine_per_folder(bench: Bench) -> None:
    """A second machine in the same folder waits until the first is gone."""
    async with bench.machine("folder") as first:
        second_context = bench.machine("folder")
        entering = asyncio.create_task(second_context.__aenter__())
        await asyncio.sleep(1.5)
        assert not entering.done()
        assert await first.end() == 0
        second = await asyncio.wait_for(entering, 10)
        assert second.hello is not None
        await second_context.__aexit__(None, None, None)


async def test_nonsense_ends_it(bench: Bench) -> None:
    """A line that is no message ends the machine with a status of its own: host and machine do not fit."""
    async with bench.machine("nonsense") as driven:
        assert driven.process.stdin is not None
        driven.process.stdin.write(b'{"type":"make_coffee"}\n')
        assert await asyncio.wait_for(driven.process.wait(), 10) == 65


async def test_dies_with_its_parent(tmp_path: Path) -> None:
    """When the host is killed, its machine is gone within seconds, though somebody else keeps its input open."""
    script = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-m', 'tomada.machines.process', '--machine-dir', sys.argv[1]],"
        " stdin=int(sys.argv[2]), stdout=subprocess.PIPE)\n"
        "p.stdout.readline()\n"
        "print(p.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    reading, writing = os.pipe()
    try:
        host = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, str(tmp_path / "m"), str(reading), stdout=asyncio.subprocess.PIPE,
            pass_fds=(reading,),
        )  # fmt: skip
        assert host.stdout is not None
        pid = int(await asyncio.wait_for(host.stdout.readline(), 20))
        host.kill()
        await host.wait()
        await until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, 10)
    finally:
        os.close(reading)
        os.close(writing)
