"""What WhatsApp sees of a session, stanza by stanza: a sandbox in this process, machines outside."""

import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random  # noqa: TID251 - a seeded source of ids for the simulation
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.integration.hosting.network import Network
from tests.integration.machines.driven import until
from tests.integration.machines.stage import Stage, Store, jid
from tomada.kit.clock import SystemClock
from tomada.kit.protobufs import Package
from tomada.machines.protocol import Acknowledge, Probe
from tomada.sandbox.control import control_app
from tomada.sandbox.network_ports import Device
from tomada.sandbox.node import Node
from tomada.sandbox.server import Sandbox


class Watched(Stage):
    """A sandbox whose stanzas from linked devices are written down."""

    def __init__(self, sandbox: Sandbox, ready: Any, store: Store, folder: Path) -> None:
        super().__init__(Network(cast("Any", SimpleNamespace(ready=ready))), store, folder)
        self.seen: list[tuple[str, Node]] = []  # sender's number, stanza
        network = sandbox.network
        handle = network.handle

        def watching(sender: Device, node: Node, reply: Callable[[Node], None]) -> None:
            if sender.id:
                self.seen.append((sender.number, node))
            handle(sender, node, reply)

        network.handle = watching  # type: ignore[method-assign]

    def of(self, number: str, tag: str) -> list[Node]:
        """The stanzas of this kind from this number's linked device."""
        return [node for sender, node in self.seen if sender == number and node.tag == tag]


@pytest.fixture(scope="module")
async def watched(sessions: Store) -> AsyncIterator[Watched]:
    """A watched sandbox."""
    with tempfile.TemporaryDirectory(prefix="tomada-watched-") as folder:
        sandbox = Sandbox(Path(folder) / "sandbox", SystemClock(), Random(7))
        ready = await sandbox.start(control_app)
        yield Watched(sandbox, ready, sessions, Path(folder))
        await sandbox.stop()


async def test_a_message_of_a_person(watched: Watched) -> None:
    """A private message bears our id and does not say that a bot wrote it."""
    mine = watched.fresh("plain")
    async with watched.machine("plain") as driven:
        number = await watched.paired(driven, mine)
        other = await watched.network.phone("Other")
        await driven.send(mine, "3EB0PLAIN", jid(other), "from a person")
        await driven.outcome(mine, "3EB0PLAIN")
        (sent,) = watched.of(number, "message")
        assert sent.attrs["id"] == "3EB0PLAIN"
        assert not sent.children("bot")


async def test_nothing_is_acknowledged_before_the_host_has_it(watched: Watched) -> None:
    """Neither receipt nor acknowledgement of a message leaves before its number is acknowledged; then one does."""
    mine = watched.fresh("gated")
    async with watched.machine("gated") as driven:
        number = await watched.paired(driven, mine)
        other = await watched.network.phone("Other")
        driven.held.add(mine)
        wa_id = await watched.say(other, number, "kept")
        held = await driven.text(mine, "kept")
        assert await driven.done(Probe(mine)) is True  # what was under way is through

        def about() -> list[Node]:
            return [
                node for node in watched.of(number, "receipt") + watched.of(number, "ack") if node.attrs["id"] == wa_id
            ]

        assert about() == []
        (told_,) = [news for news in driven.happened if news.event is held]
        driven.write(Acknowledge([told_.number]))
        await until(lambda: bool(about()))


async def test_a_probe_is_one_question(watched: Watched) -> None:
    """To WhatsApp's server, and nothing that people would notice."""
    mine = watched.fresh("asked")
    async with watched.machine("probe") as driven:
        number = await watched.paired(driven, mine)
        before = len(watched.seen)
        assert await driven.done(Probe(mine)) is True
        asked = [node for sender, node in watched.seen[before:] if sender == number]
        assert [node.attrs.get("xmlns") for node in asked].count("blocklist") == 1
        assert {node.tag for node in asked} <= {"iq", "ack", "receipt"}  # it may still answer what came with the login


async def test_name_and_platform_of_the_device(watched: Watched) -> None:
    """The phone lists the session under its name, as a browser."""
    mine = watched.fresh("shown")
    async with watched.machine("shown") as driven:
        number = await watched.paired(driven, mine, "Loja do João")
        (device,) = (await watched.network.call("GET", f"phones/{number}"))["linkedDevices"]
        assert device["name"] == "Loja do João"
        assert device["platform"] == Package("WACompanionReg").DeviceProps.CHROME
