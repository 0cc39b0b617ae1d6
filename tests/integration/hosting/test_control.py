"""The calls: pair, disconnect, restart, send, remove; each with its errors."""

import asyncio
import os
import signal

import pytest

from tests.integration.hosting.hosting import Hosting, until
from tomada.engine.port import EngineRefused, Text
from tomada.errors import MachineTimeout, NotConnected, NotFound, Refused, Unavailable
from tomada.machines.control import KEYS_ERASED, AlreadyConnected, QrCode


async def test_pairing_from_the_first_code_to_connected(hosting: Hosting) -> None:
    """A round starts with the first call, shows its code until it ends, and then there is nothing to pair."""
    await hosting.instance("a")
    await hosting.host.start()
    assert (await hosting.control.status("a")).condition == "unpaired"

    first = await hosting.control.qr("a")
    again = await hosting.control.qr("a")
    await hosting.keys("a")
    code = await hosting.control.phone_code("a", "5599")

    assert isinstance(first, QrCode)
    assert (first, first.code) == (again, "qr-a")
    assert code == "ABCD-1234"
    await hosting.connected("a")
    assert len(hosting.asked("open_session", "a")) == 1
    assert await hosting.control.qr("a") == AlreadyConnected()
    status = await hosting.control.status("a")
    assert (status.condition, status.phone, status.platform, status.wanted) == ("connected", "5599", "android", True)
    with pytest.raises(Refused):
        await hosting.control.phone_code("a", "5599")


async def test_a_round_that_ends_frees_its_session_and_the_next_call_starts_another(hosting: Hosting) -> None:
    """PairingEnded closes the engine's session; nothing goes on by itself."""
    await hosting.instance("a")
    await hosting.host.start()
    await hosting.control.qr("a")
    session = hosting.host.sessions["a"]
    assert session.machine is not None
    await hosting.control.restart("a")
    await until(lambda: session.at_rest)

    assert hosting.asked("close_session", "a")
    assert isinstance(await hosting.control.qr("a"), QrCode)
    assert len(hosting.asked("open_session", "a")) == 2


async def test_a_round_that_fails_or_stays_silent_says_so_in_time(hosting: Hosting) -> None:
    """No network: Unavailable with the reason. No code: MachineTimeout after the deadline."""
    for name in ("a", "b"):
        await hosting.instance(name)
    hosting.behave("a", "refuse")
    hosting.behave("b", "silent")
    await hosting.host.start()

    with pytest.raises(Unavailable, match="no way to WhatsApp"):
        await hosting.control.qr("a")
    with pytest.raises(MachineTimeout):
        async with asyncio.timeout(hosting.settings.qr_timeout_s + 1):
            await hosting.control.qr("b")


async def test_a_round_without_a_code_is_over_and_the_next_call_starts_another(hosting: Hosting) -> None:
    """A round that the engine never began to show (a hanging network) must not stand in the way of the next."""
    await hosting.instance("a")
    hosting.behave("a", "silent")
    await hosting.host.start()
    with pytest.raises(MachineTimeout):
        await hosting.control.qr("a")
    assert not (await hosting.control.status("a")).pairing
    hosting.behave("a", "well")

    assert isinstance(await hosting.control.qr("a"), QrCode)
    assert len(hosting.asked("close_session", "a")) == 1


async def test_logging_out_unlinks_forgets_and_tells(hosting: Hosting) -> None:
    """Unlinked at WhatsApp, keys gone, row unpaired, and LoggedOut goes the way of events; twice is fine."""
    await hosting.instance("a", "connected")
    await hosting.host.start()
    await hosting.connected("a")

    assert await hosting.control.logout("a")
    assert await hosting.control.logout("a")

    row = await hosting.row("a", "unpaired")
    assert (row["wanted"], row["phone"]) == (False, "5511")
    assert len(hosting.asked("logout", "a")) == 1
    assert await hosting.epochs("a") == []
    await until(lambda: hosting.events.kinds("a") == ["Connected", "LoggedOut"])
    assert isinstance(await hosting.control.qr("a"), QrCode)


async def test_being_unlinked_by_the_phone_leads_to_a_clean_new_pairing(hosting: Hosting) -> None:
    """LoggedOut: the row says so, the keys are erased, and the next QR code pairs anew."""
    await hosting.instance("a", "connected")
    await hosting.host.start()
    await hosting.connected("a")

    await hosting.order("a", '!event {"type": "logged_out", "reason": "unlinked"}')

    assert not (await hosting.row("a", "logged_out"))["wanted"]
    assert isinstance(await hosting.control.qr("a"), QrCode)
    assert await hosting.epochs("a") == []
    await hosting.pair("a")


async def test_restart_closes_and_opens_and_restore_is_harmless_when_connected(hosting: Hosting) -> None:
    """Restart: a new opening with the same keys. Restore: only what rests is touched."""
    await hosting.instance("a", "connected")
    await hosting.instance("b")
    await hosting.host.start()
    await hosting.connected("a")

    await hosting.control.restore("a")
    assert len(hosting.asked("open_session", "a")) == 1
    await hosting.control.restart("a")
    await until(lambda: len(hosting.asked("open_session", "a")) == 2)
    await hosting.connected("a")
    await hosting.control.restart("b")
    with pytest.raises(Refused):
        await hosting.control.restore("b")


async def test_a_send_is_taken_or_surely_not(hosting: Hosting) -> None:
    """Not connected: refused. Taken: its outcome is an event. Machine stopped: nobody knows, so it counts as taken."""
    await hosting.instance("a", "connected")
    await hosting.instance("b")
    await hosting.host.start()
    await hosting.connected("a")

    with pytest.raises(NotConnected):
        await hosting.control.transmit("b", "Z1", "55", Text("x"))
    with pytest.raises(EngineRefused, match="too large"):
        await hosting.control.transmit("a", "Z2", "55", Text("x" * (1 << 20)))
    await hosting.control.transmit("a", "Z3", "55", Text("hello"))
    await until(lambda: "MessageSent" in hosting.events.kinds("a"))
    os.kill(hosting.pid_of("a"), signal.SIGSTOP)
    await hosting.control.transmit("a", "Z4", "55", Text("hello"))

    await until(lambda: hosting.host.figures().machine_restarts == 1)
    await hosting.connected("a")
    assert hosting.opened == ["a", "a"]


async def test_removing_unlinks_stops_and_erases_and_can_be_repeated(hosting: Hosting) -> None:
    """Afterwards nothing is hosted and no key is left; an instance with a newer epoch is left alone."""
    await hosting.instance("a", "connected")
    await hosting.host.start()
    await hosting.connected("a")

    assert await hosting.control.remove("a", epoch=1, force=True) == ""  # from before the machine it has now
    assert hosting.control.connected("a")
    assert await hosting.control.erase_files("a", epoch=1) == 0
    assert await hosting.epochs("a") == [1]
    assert await hosting.control.remove("a", epoch=2, force=False) == KEYS_ERASED

    assert "a" not in hosting.host.sessions
    assert await hosting.epochs("a") == []
    assert len(hosting.asked("logout", "a")) == 1
    assert await hosting.control.remove("a", epoch=2, force=True) == ""
    assert await hosting.control.erase_files("a", epoch=2) == 0
    assert await hosting.control.remove("never-was", epoch=2, force=True) == ""


async def test_keys_that_are_left_are_erased_and_counted(hosting: Hosting) -> None:
    """Restored from a backup after the removal, say: those from before the epoch go, and nobody else's."""
    await hosting.instance("a")
    await hosting.instance("b", "connected")
    await hosting.host.start()
    await hosting.connected("b")
    for epoch in (1, 2, 10):
        await hosting.keys("a", epoch)

    assert await hosting.control.erase_files("a", epoch=10) == 2

    assert await hosting.epochs("a") == [10]
    assert await hosting.epochs("b") == [1]


async def test_removing_what_cannot_be_unlinked_is_tried_again_or_forced(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WhatsApp cannot be told: Unavailable, unless forced; then the note says that a device may remain."""
    monkeypatch.setattr("tomada.machines.control.REMOVAL_CONNECT_S", 0.3)
    await hosting.instance("a", "connected")
    hosting.behave("a", "refuse")
    await hosting.host.start()

    with pytest.raises(Unavailable):
        await hosting.control.remove("a", epoch=2, force=False)
    assert "a" in hosting.host.sessions
    assert "may remain" in await hosting.control.remove("a", epoch=2, force=True)


async def test_an_unknown_instance_is_not_found(hosting: Hosting) -> None:
    """Every call says so, and none makes a session of it."""
    await hosting.host.start()
    for call in (hosting.control.qr, hosting.control.status, hosting.control.logout, hosting.control.restart):
        with pytest.raises(NotFound):
            await call("nobody")
    assert hosting.host.sessions == {}
