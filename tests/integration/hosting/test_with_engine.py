"""The host over the real machine program and the real engine, against the simulated network.

Everything here is the product's own but the network and the phones. Faults are made by the sandbox.
"""

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from tests.children import children_of
from tests.integration.hosting.hosting import Hosting, running, until
from tests.integration.hosting.network import Network, Relay, running_network
from tomada.engine import port
from tomada.errors import DatabaseUnavailable, Refused
from tomada.kit import machine_program
from tomada.machines.control import QrCode
from tomada.machines.machine import Launch
from tomada.machines.program import STORE_VARIABLE, serve_arguments
from tomada.machines.settings import HostSettings
from tomada.postgres.machine_role import machine_dsn
from tomada.postgres.pool import Pool
from tomada.sandbox.launch import machine_command


@pytest.fixture(scope="session")
async def network() -> AsyncIterator[Network]:
    """A sandbox of this file's own: its faults must not meet other tests."""
    with tempfile.TemporaryDirectory(prefix="tomada-hosting-") as folder:
        async with running_network(Path(folder)) as made:
            yield made


ID = "3EB0AAAAAAAAAAAAAAAAA"  # of a message; a digit follows


async def launch_at(network: Network, database: str, proxy: str = "") -> Launch:
    """How the product starts a machine that lives at the sandbox; `proxy`: by another way than the sandbox's own."""
    ready = msgspec.structs.replace(network.ready, proxy=proxy or network.ready.proxy)
    command = machine_command(machine_program.locate_sandbox(os.environ), ready)
    return Launch((*command, *serve_arguments()), {**os.environ, STORE_VARIABLE: await machine_dsn(database, None)})


@pytest.fixture
async def node(database: str, pool: Pool, tmp_path: Path, network: Network) -> AsyncIterator[Hosting]:
    """A host whose machines are led to the sandbox, two instances each, its figures those of production otherwise."""
    launch = await launch_at(network, database)
    node = Hosting(pool, tmp_path, HostSettings(instances_per_machine=2), launch)
    await node.host.start()
    yield node
    await node.host.stop()
    await network.well()
    assert children_of(tmp_path) == []


async def paired(node: Hosting, network: Network, *names: str) -> list[str]:
    """Instances that a phone each has scanned by now; the phones' numbers."""
    numbers = []
    for name in names:
        await node.instance(name)
        code = await node.control.qr(name)
        assert isinstance(code, QrCode)
        numbers.append(await network.phone(f"Owner of {name}"))
        await network.scan(numbers[-1], code.code)
    await node.connected(*names, within_s=30)
    return numbers


async def test_s6_a_killed_machine_is_back_in_ten_seconds_and_touches_no_other(node: Hosting, network: Network) -> None:
    """kill -9 and abort() of one machine: its two sessions are connected again, the third never noticed."""
    await paired(node, network, "a", "b", "c")
    victims = [name for name in "abc" if node.pid_of(name) == node.pid_of("a")]
    bystander = next(name for name in "abc" if name not in victims)
    pid = node.pid_of(bystander)
    for number in (signal.SIGKILL, signal.SIGABRT):
        started_s = time.monotonic()
        os.kill(node.pid_of("a"), number)
        await until(lambda: not any(node.control.connected(name) for name in victims), 2)
        await node.connected(*victims)
        assert time.monotonic() - started_s < 10

    assert node.pid_of(bystander) == pid
    assert node.events.kinds(bystander).count("Connected") == 1
    assert node.control.connected(bystander)


async def test_messages_pass_and_sessions_come_back_without_a_new_code(node: Hosting, network: Network) -> None:
    """Two instances exchange a text, the host is started anew over the same data, and they do it again."""
    numbers = await paired(node, network, "a", "b")
    await node.control.transmit("a", f"{ID}1", numbers[1], port.Text("olá"))
    await until(lambda: "MessageSent" in node.events.kinds("a") and node.events.texts("b") == [f"{ID}1"])
    await node.host.stop()
    node.events.all.clear()

    await node.new_host().start()
    await node.connected("a", "b")
    await node.control.transmit("a", f"{ID}2", numbers[1], port.Text("de novo"))

    await until(lambda: node.events.texts("b") == [f"{ID}2"])
    assert "QrIssued" not in node.events.kinds("a")


async def test_what_was_not_committed_comes_again(node: Hosting, network: Network) -> None:
    """The database is away and the host ends: nothing of ours remembers the messages, WhatsApp does."""
    numbers = await paired(node, network, "a", "b")
    node.events.fail = lambda event: DatabaseUnavailable() if isinstance(event, port.MessageReceived) else None
    for number in range(3):
        await node.control.transmit("a", f"{ID}{number}", numbers[1], port.Text("olá"))
    await until(lambda: node.events.failed != [] and node.events.kinds("a").count("MessageSent") == 3)
    await node.host.stop()
    assert node.events.texts("b") == []
    node.events.fail = lambda _event: None

    await node.new_host().start()

    await until(lambda: node.events.texts("b") == [f"{ID}{number}" for number in range(3)], 30)


async def test_s7_each_last_word_of_whatsapp_has_its_condition(node: Hosting, network: Network) -> None:
    """Replaced, banned, outdated, unlinked by the phone: each with its condition, and no blind reconnect."""
    number = (await paired(node, network, "a"))[0]

    await network.fault("replaced", number=number)
    await node.row("a", "replaced")
    await node.control.restore("a")
    await node.connected("a")
    await network.fault("outdated", number=number)
    await node.control.restart("a")
    await node.row("a", "outdated")
    await network.well()
    await node.control.restart("a")
    await node.connected("a")
    await network.fault("ban", number=number, code=101, expire=3600)
    with contextlib.suppress(Refused):  # the fault has cut its connection: it may have met the ban by itself
        await node.control.restart("a")
    banned = await node.row("a", "banned")
    assert isinstance(banned["retry_after_ms"], int)
    assert abs(banned["retry_after_ms"] - time.time() * 1000 - 3_600_000) < 60_000  # noqa: TID251 - as WhatsApp says
    await network.well()


@pytest.mark.parametrize("code", [515, 503])
async def test_s7_stream_errors_are_mended(node: Hosting, network: Network, code: int) -> None:
    """515 and 503: the connection is back within seconds, by the engine or by us."""
    number = (await paired(node, network, "a"))[0]

    await network.fault("stream-error", number=number, code=code)

    await until(lambda: node.events.kinds("a").count("Connected") >= 2, 20)
    await node.connected("a")


async def test_s7_unlinked_by_the_phone_and_paired_anew(node: Hosting, network: Network) -> None:
    """The phone removes the device: logged out, keys gone; the next code pairs a clean session."""
    number = (await paired(node, network, "a"))[0]
    device = (await network.call("GET", f"phones/{number}"))["linkedDevices"][0]["device"]

    await network.call("POST", f"phones/{number}/unlink", {"device": device})

    assert not (await node.row("a", "logged_out"))["wanted"]
    await until(lambda: "LoggedOut" in node.events.kinds("a"))
    code = await node.control.qr("a")
    assert isinstance(code, QrCode)
    await network.scan(number, code.code)
    await node.connected("a", within_s=20)


async def test_logging_out_removes_the_device_from_the_phone(node: Hosting, network: Network) -> None:
    """Afterwards the phone lists no device, and nothing of the session is left."""
    number = (await paired(node, network, "a"))[0]

    assert await node.control.logout("a")

    assert (await network.call("GET", f"phones/{number}"))["linkedDevices"] == []
    assert (await node.row("a", "unpaired"))["wanted"] is False
    assert await node.epochs("a") == []
    assert node.events.kinds("a").count("LoggedOut") == 1


@pytest.mark.slow
async def test_s3_a_deaf_session_is_restarted(node: Hosting, network: Network) -> None:
    """The connection stays open and answers keepalives, but nothing else comes: found by probes, and connected anew."""
    number = (await paired(node, network, "a"))[0]
    session = node.host.sessions["a"]
    node.host.settings = msgspec.structs.replace(node.settings, probe_retry_s=0.5)
    await network.fault("deaf", number=number)

    session.probe_due_s = 0.001  # now, rather than in two minutes

    await until(lambda: node.host.figures().deaf_restarts == 1, 60)
    await until(lambda: node.events.kinds("a").count("Connected") == 2, 20)
    await node.connected("a")


@pytest.mark.slow
async def test_s2_an_outage_without_an_answer_kills_no_machine(
    database: str, pool: Pool, tmp_path: Path, network: Network
) -> None:
    """Connects hang until the machine itself gives them up: no machine is taken for hung, and then all come back."""
    async with Relay(network.ready.proxy).running() as relay:
        launch = await launch_at(network, database, relay.url)
        node = Hosting(pool, tmp_path, HostSettings(instances_per_machine=7), launch)
        names = ["a", "b", "c", "d", "e", "f"]
        async with running(node):
            await paired(node, network, *names)
        relay.silent()
        node.new_host()
        async with running(node):
            await until(lambda: all(node.host.sessions[name].state.failures for name in names), 90)
            relay.well()

            await node.connected(*names, within_s=60)
            assert node.host.figures().machine_restarts == 0
    assert children_of(tmp_path) == []


async def test_a_code_that_nobody_scanned_leaves_nothing(node: Hosting, network: Network) -> None:
    """Keys are stored when a phone has scanned: the removal finds none, and claims nothing."""
    await node.instance("a")
    assert isinstance(await node.control.qr("a"), QrCode)
    await node.pool.execute("update instance set state = 'expired', epoch = 2 where id = 'a'")

    assert await node.epochs("a") == []
    assert await node.control.remove("a", epoch=2, force=False) == ""

    assert "a" not in node.host.sessions
