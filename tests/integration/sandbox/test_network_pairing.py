"""Pairing and logging in, with the real engine."""

import asyncio

from tests.integration.sandbox.conftest import Bench, Pair
from tomada.sandbox.phone_pairing import enter_code


async def test_scanning_the_qr_links_the_device_under_its_session_name(bench: Bench, pair: Pair) -> None:
    """The phone's list of linked devices shows the name the client was started with, online."""
    devices = bench.network.devices(pair.alice_number)

    assert [(device.id, device.name, device.platform) for device in devices[1:]] == [(1, "Alice Sales", 1)]
    assert bench.network.online(devices[1])


async def test_a_pairing_code_links_the_device(bench: Bench) -> None:
    """A code shown by the client and entered on the phone ends in a logged-in client."""
    phone = await bench.phone("15550003333", "Carol")
    client = await bench.client("Carol Desk")
    await client.qr()

    code = await client.do("code", to="15550003333")
    device = await enter_code(phone, code)
    await client.wait("Connected")

    assert (device.id, device.name) == (1, "Carol Desk")
    await client.stop()


async def test_unlinking_on_the_phone_logs_the_client_out(bench: Bench) -> None:
    """The client is told and forgets its keys, and its next start shows a QR code again."""
    phone = await bench.phone("15550004444", "Dora")
    client = await bench.paired(phone, "Dora Desk")

    assert await bench.network.unlink("15550004444", 1)

    await client.wait("LoggedOut")
    assert len(bench.network.devices("15550004444")) == 1
    async with asyncio.timeout(10):
        while await client.do("has_keys"):
            await asyncio.sleep(0.02)
    await client.stop()
    again = await bench.client("Dora Desk")
    await again.qr()
    await again.stop()


async def test_logging_out_in_the_client_removes_the_device(bench: Bench) -> None:
    """What `logout` asks for reaches the network before the connection ends."""
    phone = await bench.phone("15550005555", "Eve")
    client = await bench.paired(phone, "Eve Desk")

    await client.do("logout")

    assert [device.id for device in bench.network.devices("15550005555")] == [0]
    await client.stop()


async def test_nothing_else_is_contacted(bench: Bench, pair: Pair) -> None:
    """The engine asked the proxy for WhatsApp's names only."""
    assert bench.sandbox.proxy is not None
    assert not bench.sandbox.proxy.refused
    assert bench.sandbox.proxy.opened >= 2
