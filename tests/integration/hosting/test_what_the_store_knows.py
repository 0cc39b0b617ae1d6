"""Whether a phone is paired is what the session store says: kills between it and our row, both ways.

Nothing is remembered by us in those moments; the next opening finds out.
"""

import asyncio

import pytest

from tests.integration.hosting.hosting import Hosting, until
from tomada.engine import port
from tomada.errors import DatabaseUnavailable, MachineTimeout, OutcomeUnknown, Unavailable
from tomada.machines import store
from tomada.machines.control import AlreadyConnected, QrCode
from tomada.machines.session_state import WORDS, SessionState


async def test_a_pairing_that_was_never_written_down_is_found_at_the_start(hosting: Hosting) -> None:
    """Killed between the phone's scan and our row: the next start makes the session wanted and connects it."""
    await hosting.instance("a")
    await hosting.instance("never")
    await hosting.keys("a")

    await hosting.host.start()

    await hosting.connected("a")
    assert (await hosting.row("a", "connected"))["wanted"]
    assert set(hosting.host.sessions) == {"a"}


async def test_a_found_device_is_tried_until_it_connects(hosting: Hosting) -> None:
    """No way to WhatsApp at that start: it is a paired session like any other, and not given up."""
    await hosting.instance("a")
    await hosting.keys("a")
    hosting.behave("a", "refuse")
    await hosting.host.start()
    assert (await hosting.row("a", "failed"))["wanted"]
    await until(lambda: len(hosting.asked("open_session", "a")) >= 3)
    hosting.behave("a", "well")

    await hosting.connected("a")


async def test_a_phone_that_was_paired_as_the_machine_died_is_found_at_once(hosting: Hosting) -> None:
    """The round of codes ends with the machine; but its keys are there, so the session connects."""
    await hosting.instance("a")
    await hosting.host.start()
    await hosting.control.qr("a")
    hosting.behave("a", "die-paired")
    await hosting.keys("a")

    with pytest.raises((MachineTimeout, OutcomeUnknown)):
        await hosting.control.phone_code("a", "5588")

    await hosting.connected("a")
    assert await hosting.control.qr("a") == AlreadyConnected()


async def test_a_machine_that_dies_in_a_round_leaves_an_unpaired_session(hosting: Hosting) -> None:
    """No phone had scanned: it is looked for one, nothing is opened, and the next call starts another round."""
    await hosting.instance("a")
    await hosting.host.start()
    await hosting.control.qr("a")
    hosting.behave("a", "die-paired")
    with pytest.raises((MachineTimeout, OutcomeUnknown)):
        await hosting.control.phone_code("a", "5588")
    hosting.behave("a", "well")

    await until(lambda: len(hosting.asked("open_session", "a")) == 2)
    assert (await hosting.control.status("a")).reason == WORDS["pairing_machine"]
    assert not (await hosting.control.status("a")).wanted
    assert isinstance(await hosting.control.qr("a"), QrCode)
    assert "LoggedOut" not in hosting.events.kinds("a")


async def test_a_round_that_is_asked_for_as_the_machine_comes_back_takes_place(hosting: Hosting) -> None:
    """The look for a paired phone is not in its way."""
    await hosting.instance("a")
    await hosting.host.start()
    await hosting.control.qr("a")
    hosting.behave("a", "die-paired")
    with pytest.raises((MachineTimeout, OutcomeUnknown)):
        await hosting.control.phone_code("a", "5588")

    assert isinstance(await hosting.control.qr("a"), QrCode)


async def test_a_log_out_that_was_never_written_down_is_found_and_told(hosting: Hosting) -> None:
    """Killed after the keys went and before anybody was told: shown as logged out, and told as an event."""
    await hosting.instance("a", "connected")
    await hosting.pool.execute("delete from machine.whatsmeow_device")

    await hosting.host.start()

    assert not (await hosting.row("a", "logged_out"))["wanted"]
    await until(lambda: hosting.events.kinds("a") == ["LoggedOut"])
    assert isinstance(await hosting.control.qr("a"), QrCode)
    await hosting.pair("a")


async def test_an_end_is_told_before_it_is_written_down(hosting: Hosting) -> None:
    """A kill in between leaves the row behind, and the next start finds the end again: better told twice than never."""
    await hosting.instance("a", "connected")
    await hosting.host.start()
    await hosting.connected("a")
    hosting.events.fail = lambda event: DatabaseUnavailable() if isinstance(event, port.LoggedOut) else None
    await hosting.order("a", '!event {"type": "logged_out", "reason": "unlinked"}')
    await until(lambda: hosting.events.failed != [])
    await until(lambda: hosting.host.sessions["a"].state.condition == "logged_out")
    async with asyncio.timeout(10):
        while await hosting.epochs("a"):
            await asyncio.sleep(0.01)
    await hosting.host.stop()
    assert await hosting.pool.fetchval("select wanted from session where instance_id = 'a'")
    hosting.events.fail = lambda _event: None

    await hosting.new_host().start()

    await hosting.row("a", "logged_out")
    assert hosting.events.kinds("a") == ["Connected", "LoggedOut"]


@pytest.mark.parametrize(
    "row",
    [
        SessionState(condition="unpaired", reason=WORDS["unlinked"]),
        SessionState(condition="logged_out", reason=WORDS["logged_out"]),
    ],
    ids=["disconnected by request", "logged out"],
)
async def test_keys_of_an_ended_session_are_erased_and_never_used(hosting: Hosting, row: SessionState) -> None:
    """Killed before the keys were erased: somebody said that this is over, so it does not connect again."""
    await hosting.instance("a", "connected")
    await hosting.instance("b", "connected")
    await store.save(hosting.pool, "a", 1, row)

    await hosting.host.start()

    await hosting.connected("b")
    async with asyncio.timeout(10):
        while await hosting.epochs("a"):
            await asyncio.sleep(0.01)
    assert hosting.asked("open_session", "a") == []
    assert not (await hosting.control.status("a")).wanted
    assert await hosting.epochs("b") == [1]


async def test_keys_of_a_former_machine_are_not_taken_for_a_pairing(hosting: Hosting) -> None:
    """They are for its deletion to log out; the machine that the instance has now is unpaired."""
    await hosting.instance("a")
    await hosting.keys("a", 1)
    await hosting.pool.execute("update instance set epoch = 3 where id = 'a'")
    await hosting.instance("expired")
    await hosting.keys("expired", 1)
    await hosting.pool.execute("update instance set state = 'expired', epoch = 2 where id = 'expired'")

    await hosting.host.start()

    assert hosting.host.sessions == {}
    assert isinstance(await hosting.control.qr("a"), QrCode)
    assert await hosting.epochs("a") == [1]


async def test_a_store_that_cannot_be_read_is_not_an_empty_one(hosting: Hosting) -> None:
    """The machine says that it cannot tell now: the session fails and is tried again, and keeps its keys."""
    await hosting.instance("a", "connected")
    hosting.behave("a", "no-store")
    await hosting.host.start()
    assert (await hosting.row("a", "failed"))["wanted"]
    assert await hosting.epochs("a") == [1]
    hosting.behave("a", "well")

    await hosting.connected("a")
    assert "LoggedOut" not in hosting.events.kinds("a")


async def test_a_removal_in_the_moment_of_a_pairing_logs_it_out(hosting: Hosting) -> None:
    """The row says unpaired, the store does not: only keys say what there is to unlink."""
    await hosting.instance("a")
    await hosting.host.start()
    await hosting.control.qr("a")
    await hosting.keys("a")
    await hosting.pool.execute("update instance set state = 'expired', epoch = 2 where id = 'a'")

    assert await hosting.control.remove("a", 2, force=False) != ""

    assert len(hosting.asked("logout", "a")) == 1
    assert await hosting.epochs("a") == []


async def test_a_removal_does_not_wait_for_a_look_that_fails(hosting: Hosting) -> None:
    """A machine died in a round and WhatsApp is away: the instance can be removed all the same."""
    await hosting.instance("a")
    await hosting.host.start()
    await hosting.control.qr("a")
    hosting.behave("a", "die-paired")
    with pytest.raises((MachineTimeout, OutcomeUnknown)):
        await hosting.control.phone_code("a", "5588")
    hosting.behave("a", "no-store")
    await until(lambda: len(hosting.asked("open_session", "a")) >= 3)
    with pytest.raises(Unavailable):
        await hosting.control.qr("a")

    async with asyncio.timeout(10):
        assert await hosting.control.remove("a", 2, force=False) == ""
    assert "a" not in hosting.host.sessions
