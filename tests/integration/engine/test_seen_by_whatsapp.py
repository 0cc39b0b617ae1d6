"""What WhatsApp sees of the engine, stanza by stanza: a sandbox in this process, machines outside."""

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random  # noqa: TID251 - a seeded source of ids for the simulation

import pytest

from tests.integration.machines.bench import Bench
from tests.integration.machines.driven import until
from tomada.engine import port
from tomada.kit.clock import SystemClock
from tomada.sandbox.control import control_app
from tomada.sandbox.network_ports import Device
from tomada.sandbox.node import Node
from tomada.sandbox.server import Sandbox


class Watched:
    """A sandbox whose stanzas from linked devices are written down with the time they came in."""

    def __init__(self, sandbox: Sandbox, bench: Bench) -> None:
        self.bench = bench
        self.seen: list[tuple[float, str, Node]] = []  # monotonic seconds, sender's number, stanza
        network = sandbox.network
        handle = network.handle

        def watching(sender: Device, node: Node, reply: Callable[[Node], None]) -> None:
            if sender.id:
                self.seen.append((time.monotonic(), sender.number, node))
            handle(sender, node, reply)

        network.handle = watching  # type: ignore[method-assign]


@pytest.fixture(scope="module")
async def watched() -> AsyncIterator[Watched]:
    """A watched sandbox."""
    with tempfile.TemporaryDirectory(prefix="tomada-watched-") as folder:
        sandbox = Sandbox(Path(folder) / "sandbox", SystemClock(), Random(7))
        bench = Bench(await sandbox.start(control_app), Path(folder))
        yield Watched(sandbox, bench)
        await sandbox.stop()


async def test_fault_8_no_bot_tag(watched: Watched) -> None:
    """A private message does not say that a bot wrote it, as the library would by default; whoever starts the machine.

    Here its starter did not care for the environment, so the process must have started itself anew.
    """
    async with watched.bench.machine("fault-8", prepared=False) as driven:
        number = await watched.bench.paired(driven, "f8")
        other = await watched.bench.phone()
        await driven.send("f8", "z", other, "from a person")
        await driven.event("f8", port.MessageSent)
        sent = [node for _, sender, node in watched.seen if node.tag == "message" and sender == number]
        assert sent
        assert not [node for node in sent if node.children("bot")]


async def test_s4_fault_11_the_loss_window(watched: Watched) -> None:
    """How long after WhatsApp was told of a message's arrival does it stand in the journal? docs/engine.md prints it.

    Measured from outside, as the time at which the host has read the event, so it is an upper bound.
    """
    async with watched.bench.machine("fault-11") as driven:
        number = await watched.bench.paired(driven, "f11")
        other = await watched.bench.phone()
        told_s: dict[str, float] = {}
        receipts_s: dict[str, float] = {}

        async def note() -> None:
            while True:
                for event in driven.events("f11", port.MessageReceived):
                    told_s.setdefault(event.wa_id, time.monotonic())
                async with driven.news:
                    await driven.news.wait()

        noting = asyncio.create_task(note())
        for n in range(100):
            await watched.bench.call("POST", f"phones/{other}/send", {"to": number, "text": f"message {n}"})
        await until(lambda: len(told_s) == 100)
        noting.cancel()
        for at_s, sender, node in watched.seen:
            if node.tag == "receipt" and sender == number:
                receipts_s.setdefault(str(node.attrs["id"]), at_s)
        windows_ms = sorted((told_s[wa_id] - receipts_s[wa_id]) * 1000 for wa_id in told_s if wa_id in receipts_s)
        assert len(windows_ms) == 100
        print(f"loss window: median {statistics.median(windows_ms):.2f} ms, most {windows_ms[-1]:.2f} ms")  # noqa: T201
        assert statistics.median(windows_ms) < 50
        assert windows_ms[-1] < 1000


async def test_probe_asks_one_question(watched: Watched) -> None:
    """A probe is one question to WhatsApp's server, and nothing that people would notice."""
    from tomada.machines.protocol import Probe

    async with watched.bench.machine("probe") as driven:
        number = await watched.bench.paired(driven, "asked")
        await asyncio.sleep(1.0)
        before = len(watched.seen)
        assert (await driven.ask(Probe("asked"))).value == "yes"
        asked = [node for _, sender, node in watched.seen[before:] if sender == number]
        assert [(node.tag, node.attrs.get("xmlns")) for node in asked] == [("iq", "blocklist")]
