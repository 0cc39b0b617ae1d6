"""How a machine begins and ends: its first words, nonsense, the end of its input, signals, its parent, its folder."""

import asyncio
import os
import signal
import sys

import msgspec
import psutil

from tests.integration.machines.driven import Driven, e2e, until
from tests.integration.machines.stage import PROGRAM, Stage, environment_of, jid
from tomada.engine import told
from tomada.kit import machine_program
from tomada.machines.protocol import LINE_BYTES_MAX, VERSION, Hello, Ready

ASKED_BY_THE_HOST = {"group_info", "numbers", "on_whatsapp"}


async def test_hello_then_ready(shared: Driven) -> None:
    """The first line names version, process, engine, traits and questions; Ready is the next, and nothing between."""
    assert [type(message) for message in shared.first] == [Hello, Ready]
    hello = shared.hello
    assert (hello.version, hello.pid) == (VERSION, shared.process.pid)
    assert hello.engine.partition(" ")[2]
    assert {"gated", "own_ids"} <= set(hello.traits)
    assert set(hello.asks) >= ASKED_BY_THE_HOST


async def test_the_command_hello_says_the_same(shared: Driven) -> None:
    """Whoever only asks gets the words that a running machine begins with."""
    asked = machine_program.greet(PROGRAM)
    assert (asked.version, asked.engine, tuple(asked.traits)) == (VERSION, shared.hello.engine, shared.hello.traits)


async def exit_status(driven: Driven) -> int:
    """With which it ends by itself."""
    return await asyncio.wait_for(driven.process.wait(), 10)


async def test_nonsense_ends_it(stage: Stage) -> None:
    """A line that is none of the protocol's ends the machine with a status of its own: the two do not fit."""
    for n, line in enumerate((b'{"type":"make_coffee"}', b"hello?", b"[]", b'{"type":"request","id":"one"}')):
        async with stage.machine(f"nonsense-{n}") as driven:
            driven.write_line(line)
            assert await exit_status(driven) == 65


async def test_a_line_without_end_ends_it(stage: Stage) -> None:
    """A longer line than the protocol has is nonsense, too, and is not kept in memory; the longest is not."""
    async with stage.machine("long") as driven:
        command = b'{"type":"close_session","instance_id":"x","more":"%s"}'
        longest = msgspec.Raw(command % (b"x" * (LINE_BYTES_MAX - 1000)))
        assert not (await driven.ask_raw(longest)).kind
        assert driven.process.stdin is not None
        driven.process.stdin.write(b"x" * (LINE_BYTES_MAX + 70_000))
        assert await exit_status(driven) == 65


async def test_a_line_that_is_cut_off_counts_for_nothing(stage: Stage) -> None:
    """Whoever wrote it did not finish it: the end of input is an end like any other."""
    async with stage.machine("cut-off") as driven:
        assert driven.process.stdin is not None
        driven.process.stdin.write(b'{"type":"requ')
        assert await driven.end(0) == 0


async def test_end_of_input_finishes_what_is_under_way(stage: Stage) -> None:
    """At the end of its input a machine finishes the send under way, gives back the rest, and exits with 0."""
    async with stage.machine("input-ends") as driven:
        mine = stage.fresh("input-ends")
        await stage.paired(driven, mine)
        other = await stage.network.phone("Other")
        await driven.send(mine, "3EB0SLOW", jid(other), "under way", typing_s=1.0)
        await driven.send(mine, "3EB0NEXT", jid(other), "waits")
        assert await driven.end(0, within_s=6) == 0
        assert isinstance(await driven.outcome(mine, "3EB0SLOW", 1), told.Sent)
        failed = await driven.outcome(mine, "3EB0NEXT", 1)
        assert isinstance(failed, told.SendFailed)
        assert failed.kind == "retry"
        assert await stage.texts(other) == ["under way"]


async def test_it_ends_though_nobody_acknowledges(stage: Stage) -> None:
    """Events that wait for a host that is gone hold up nothing: WhatsApp brings them again."""
    async with stage.machine("unheard") as driven:
        mine = stage.fresh("unheard")
        number = await stage.paired(driven, mine)
        driven.held.add(mine)
        await stage.say(await stage.network.phone("Other"), number, "hello?")
        await driven.text(mine, "hello?")
        assert await driven.end(0, within_s=6) == 0


async def test_it_ends_though_nobody_reads(stage: Stage) -> None:
    """A host that stopped reading has a machine that stands still, and that ends all the same when it is to."""
    async with stage.machine("unread") as driven:
        mine = stage.fresh("unread")
        number = await stage.paired(driven, mine)
        driven.listening.clear()
        unknown = msgspec.Raw(b'{"type":"%s"}' % (b"x" * 1000))
        # Each is answered with its own name: more than all buffers between us hold.
        asked = [asyncio.create_task(driven.ask_raw(unknown)) for _ in range(4000)]
        await stage.say(await stage.network.phone("Other"), number, "hello?")
        driven.process.send_signal(signal.SIGTERM)
        await until(lambda: driven.process.returncode is not None, 8)
        for one in asked:
            one.cancel()
        await asyncio.wait(asked)


async def test_sigterm(stage: Stage) -> None:
    """SIGTERM ends a machine with sessions of every kind within its time, with 0, and leaves no child behind."""
    async with stage.machine("sigterm") as driven:
        await stage.paired(driven, stage.fresh("sigterm"))
        await stage.begin(driven, stage.fresh("sigterm-pairing"))
        away = stage.fresh("sigterm-away")
        away_number = await stage.paired(driven, away)
        await stage.network.fault("refuse")
        await stage.network.fault("drop", number=away_number)
        await driven.event(away, told.Disconnected)
        assert psutil.Process(driven.process.pid).children(recursive=True) == []
        assert await driven.end(signal.SIGTERM, within_s=6) == 0


async def test_one_machine_per_folder(stage: Stage) -> None:
    """A second machine in the same folder says nothing until the first is gone, killed or not."""
    async with stage.machine("folder") as first:
        context = stage.machine("folder")
        entering = asyncio.create_task(context.__aenter__())
        done, _ = await asyncio.wait({entering}, timeout=1.5)
        assert not done
        first.process.kill()
        second = await asyncio.wait_for(entering, 10)
        assert second.hello.pid != first.hello.pid
        assert await second.end() == 0
        await context.__aexit__(None, None, None)


async def test_dies_with_its_parent(stage: Stage) -> None:
    """When the host is killed, its machine is gone within seconds, though somebody else keeps its input open."""
    script = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen(sys.argv[2:], stdin=int(sys.argv[1]), stdout=subprocess.PIPE)\n"
        "p.stdout.readline()\n"
        "print(p.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    reading, writing = os.pipe()
    try:
        host = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, str(reading), *stage.command("orphan"),
            stdout=asyncio.subprocess.PIPE, pass_fds=(reading,), env=environment_of(stage.store.machine),
        )  # fmt: skip
        assert host.stdout is not None
        machine = psutil.Process(int(await asyncio.wait_for(host.stdout.readline(), 20)))
        host.kill()
        await host.wait()
        await asyncio.to_thread(machine.wait, 10)
    finally:
        os.close(reading)
        os.close(writing)


async def test_without_a_store_it_does_not_start(stage: Stage) -> None:
    """No address, or one that is none, is said in words that do not show it."""
    for dsn in ("", "postgresql://u:secret@h:port/x", "what?"):
        environment = environment_of(dsn)
        process = await asyncio.create_subprocess_exec(
            *stage.command("storeless"), env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, errors = await asyncio.wait_for(process.communicate(), 10)
        assert (process.returncode, out) == (64, b"")
        assert b"cannot_start" in errors
        assert b"secret" not in errors


async def test_what_it_prints_is_the_protocols(stage: Stage, shared: Driven) -> None:
    """Its log is JSON lines on standard error, and names no text and no number of anybody's."""
    mine = stage.fresh("logged")
    number = await stage.paired(shared, mine)
    other = await stage.network.phone("Other")
    await shared.give(mine, "3EB0LOG", jid(other), e2e.Message(conversation="a secret text"))
    await shared.outcome(mine, "3EB0LOG")
    await stage.say(other, number, "another secret text")
    await shared.text(mine, "another secret text")
    assert b"secret text" not in shared.log
    assert number.encode() not in shared.log
    assert other.encode() not in shared.log
