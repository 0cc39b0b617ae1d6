"""An instance that is subscribed again while its former machine is not removed yet: one goes, then the other comes.

The rows are changed as the lifecycle's swaps change them; machines, keys and calls are the host's own.
"""

import pytest

from tests.integration.hosting.hosting import ACCOUNT, Hosting, until
from tomada.errors import SubscriptionNeeded, Unavailable
from tomada.machines.control import KEYS_ERASED, NOT_TOLD, QrCode
from tomada.machines.host import FormerMachine

START = "insert into deletion (instance_id, account_id, epoch, scope, cause) values ($1, $2, $3, 'machine', 'expired')"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for a connection that does not come."""
    monkeypatch.setattr("tomada.machines.control.REMOVAL_CONNECT_S", 1.0)


async def expire(hosting: Hosting, name: str, epoch: int = 2) -> None:
    """The instance loses its machine."""
    await hosting.pool.execute("update instance set state = 'expired', epoch = $2 where id = $1", name, epoch)
    await hosting.pool.execute(START, name, ACCOUNT, epoch)


async def subscribe(hosting: Hosting, name: str, epoch: int = 3) -> None:
    """It is given another one; the row of its session is gone."""
    await hosting.pool.execute("update instance set state = 'active', epoch = $2 where id = $1", name, epoch)
    await hosting.pool.execute("delete from session where instance_id = $1", name)


async def finish(hosting: Hosting, name: str) -> None:
    """The receipt is written."""
    await hosting.pool.execute("update deletion set finished_ms = 1 where instance_id = $1", name)


async def pair(hosting: Hosting, name: str) -> None:
    """From the code to connected."""
    assert isinstance(await hosting.control.qr(name), QrCode)
    await hosting.pair(name, epoch=3)


@pytest.mark.usefixtures("quick")
async def test_a_new_pairing_is_not_touched_by_the_old_machine_s_removal(hosting: Hosting) -> None:
    """WhatsApp could not be told, the customer paid: no code before the old device is gone, and the new one stays."""
    await hosting.instance("a", "connected")
    hosting.behave("a", "refuse")
    await hosting.host.start()
    await expire(hosting, "a")
    with pytest.raises(Unavailable):
        await hosting.control.remove("a", epoch=2, force=False)
    await subscribe(hosting, "a")
    for call in (hosting.control.qr, hosting.control.restart, hosting.control.restore, hosting.control.logout):
        with pytest.raises(FormerMachine):
            await call("a")
    with pytest.raises(FormerMachine):
        await hosting.control.phone_code("a", "5588")
    status = await hosting.control.status("a")
    assert (status.condition, status.wanted, status.phone) == ("unpaired", False, None)

    hosting.behave("a", "well")
    assert await hosting.control.remove("a", epoch=2, force=False) == KEYS_ERASED
    assert await hosting.control.erase_files("a", epoch=2) == 0
    await finish(hosting, "a")
    await pair(hosting, "a")

    for force in (False, True):
        assert await hosting.control.remove("a", epoch=2, force=force) == ""
        assert await hosting.control.erase_files("a", epoch=2) == 0
    assert hosting.control.connected("a") == 3
    assert await hosting.epochs("a") == [3]
    assert len(hosting.asked("logout", "a")) == 1


async def test_keys_of_a_killed_server_are_logged_out_whatever_the_row_says(hosting: Hosting) -> None:
    """Killed between the end and the log-out, subscribed after the start: nobody hosts it, no row tells of it."""
    await hosting.instance("a", "connected")
    await expire(hosting, "a")
    await hosting.host.start()
    await subscribe(hosting, "a")
    with pytest.raises(FormerMachine):
        await hosting.control.qr("a")

    assert await hosting.control.remove("a", epoch=2, force=False) == KEYS_ERASED

    assert len(hosting.asked("logout", "a")) == 1
    assert await hosting.epochs("a") == []
    assert hosting.events.kinds("a") == []  # that device was never the new machine's
    await finish(hosting, "a")
    await pair(hosting, "a")


@pytest.mark.usefixtures("quick")
async def test_keys_that_could_not_be_logged_out_do_not_count_as_unlinked(hosting: Hosting) -> None:
    """No row, no hosted session, no way to WhatsApp: tried again, and if forced the note says so."""
    await hosting.instance("a", "connected")
    await expire(hosting, "a")
    await hosting.host.start()
    await subscribe(hosting, "a")
    hosting.behave("a", "refuse")

    with pytest.raises(Unavailable):
        await hosting.control.remove("a", epoch=2, force=False)
    assert await hosting.epochs("a") == [1]
    assert await hosting.control.remove("a", epoch=2, force=True) == NOT_TOLD
    assert await hosting.epochs("a") == []


async def test_every_former_machine_goes(hosting: Hosting) -> None:
    """Two lost one after the other, none removed so far: one deletion removes both."""
    await hosting.instance("a", "connected")
    await hosting.keys("a", 3)
    await expire(hosting, "a", 4)
    await hosting.host.start()

    assert await hosting.control.remove("a", epoch=4, force=False) == KEYS_ERASED

    assert len(hosting.asked("logout", "a")) == 2
    assert await hosting.control.erase_files("a", epoch=4) == 0
    assert await hosting.epochs("a") == []


async def test_what_an_old_session_tells_is_not_the_new_machine_s(hosting: Hosting) -> None:
    """It breaks and comes back after the subscribe, before anybody came to remove it: no callback, no row."""
    await hosting.instance("a", "connected")
    await hosting.instance("b", "connected")
    await hosting.host.start()
    await hosting.connected("a", "b")
    await expire(hosting, "a")
    await subscribe(hosting, "a")
    for name in ("a", "b"):
        await hosting.order(name, '!event {"type": "connect_failed", "reason": "x"}')

    await until(lambda: hosting.events.kinds("b").count("Connected") == 2)
    await until(lambda: len(hosting.asked("open_session", "a")) == 2 and hosting.control.connected("a") == 1)
    await hosting.host.committed("a")

    assert hosting.events.kinds("a") == ["Connected"]
    assert await hosting.pool.fetchval("select count(*) from session where instance_id = 'a'") == 0
    assert (await hosting.control.status("a")).condition == "unpaired"


async def test_a_machine_that_was_lost_is_not_paired_any_more(hosting: Hosting) -> None:
    """A QR code asked for in the moment of the end: no round begins that the removal would not see."""
    await hosting.instance("a")
    await hosting.host.start()
    session = await hosting.host.hosted("a")
    assert session is not None
    await expire(hosting, "a")

    with pytest.raises(Unavailable):
        await hosting.control.qr("a")

    assert hosting.asked("open_session", "a") == []
    assert await hosting.control.remove("a", epoch=2, force=False) == ""
    with pytest.raises(SubscriptionNeeded):
        await hosting.control.qr("a")


async def test_a_round_of_codes_is_ended_by_a_removal(hosting: Hosting) -> None:
    """Nobody can scan a code of a machine that is being removed; nothing is counted as unlinked."""
    await hosting.instance("a")
    await hosting.host.start()
    await hosting.control.qr("a")
    await expire(hosting, "a")

    assert await hosting.control.remove("a", epoch=2, force=False) == ""

    assert len(hosting.asked("close_session", "a")) == 1
    assert hosting.asked("logout", "a") == []
    assert "a" not in hosting.host.sessions
