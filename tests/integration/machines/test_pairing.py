"""Pairing and what ends it: QR codes, codes for a phone, names, log-out, and WhatsApp's refusals."""

import asyncio
import time
from typing import Any

import pytest

from tests.integration.machines.conftest import Pair
from tests.integration.machines.driven import Driven
from tests.integration.machines.stage import Stage, jid
from tomada.engine import told
from tomada.machines.protocol import CloseSession, Logout, OpenSession, Probe, RequestPhoneCode


async def test_no_device_and_not_to_pair(stage: Stage, shared: Driven) -> None:
    """Then nothing is begun: no connection, no code, no session; the answer says that there is no device."""
    mine = stage.fresh("nothing")
    before = await stage.network.connects_ms()
    assert await shared.open(stage.spec(mine)) == ""
    assert (await shared.ask(Probe(mine))).kind == "retry"
    assert shared.events(mine, told.QrIssued) == []
    assert await stage.network.connects_ms() == before
    assert await shared.open(stage.spec(mine)) == ""  # nor is it open already


async def test_pairs_by_qr(stage: Stage, shared: Driven) -> None:
    """A phone that scans the QR shows the session's name; Paired is told before Connected, with both addresses."""
    mine = stage.fresh("by-qr")
    number = await stage.paired(shared, mine, "Loja do João")
    kinds = [type(news.event) for news in shared.happened if news.instance_id == mine]
    assert kinds.index(told.QrIssued) < kinds.index(told.Paired) < kinds.index(told.Connected)
    (paired,), (connected,) = shared.events(mine, told.Paired), shared.events(mine, told.Connected)
    assert paired.device == connected.device == f"{number}:1@s.whatsapp.net"
    assert paired.lid == (await stage.lid(number)).replace("@", ":1@")
    assert paired.platform
    phone = await stage.network.call("GET", f"phones/{number}")
    assert [device["name"] for device in phone["linkedDevices"]] == ["Loja do João"]
    key = stage.spec(mine).store_key
    assert await stage.store.count(
        "select count(*) from machine.tomada_session where key = $1 and jid = $2", key, paired.device
    )


async def test_codes_expire_in_the_future(stage: Stage, shared: Driven) -> None:
    """The first code lives a minute."""
    mine = stage.fresh("expiry")
    await stage.begin(shared, mine)
    (issued,) = shared.events(mine, told.QrIssued)
    assert 50_000 < issued.expires_ms - time.time_ns() // 1_000_000 <= 60_000
    await shared.done(CloseSession(mine))


async def test_pairs_by_code(stage: Stage, shared: Driven) -> None:
    """A code that is entered on the phone pairs as the QR would."""
    mine = stage.fresh("by-code")
    number = await stage.network.phone("Coder")
    await stage.begin(shared, mine)
    code = await shared.done(RequestPhoneCode(mine, number))
    await stage.network.call("POST", f"phones/{number}/link-code", {"code": code})
    assert (await shared.event(mine, told.Connected)).device == f"{number}:1@s.whatsapp.net"


async def test_no_code_outside_a_round(shared: Driven, pair: Pair) -> None:
    """A session that is paired refuses to give a pairing code; one that is not there is asked for too early."""
    assert (await shared.ask(RequestPhoneCode(pair.alice, "15550009999"))).kind == "refused"
    assert (await shared.ask(RequestPhoneCode("nobody", "15550009999"))).kind == "retry"


async def test_every_session_has_its_own_name(stage: Stage, shared: Driven) -> None:
    """Twelve that pair at the same moment each show theirs, though the library's name is one for the process."""
    names = {stage.fresh("name"): f"Filial {n}" for n in range(12)}

    async def pair_one(mine: str, name: str) -> None:
        number = await stage.network.phone(name)
        qr = await stage.begin(shared, mine, name)
        shown = await stage.network.call("POST", f"phones/{number}/scan", {"qr": qr})
        assert shown["name"] == name
        await shared.event(mine, told.Connected)

    await asyncio.gather(*(pair_one(mine, name) for mine, name in names.items()))


async def test_our_own_name_follows_the_pairing(stage: Stage, shared: Driven) -> None:
    """The phone says it after the login, and says it again when it changes. Connected is told once."""
    mine = stage.fresh("named")

    def names() -> list[str]:
        events = [news.event for news in shared.happened if news.instance_id == mine]
        return [one.push_name for one in events if isinstance(one, told.Connected | told.Named) and one.push_name]

    number = await stage.paired(shared, mine)
    await shared.until(lambda: names() == [f"Owner of {mine}"])
    await stage.network.call("POST", "phones", {"number": number, "name": "Loja A"})
    await shared.until(lambda: names() == [f"Owner of {mine}", "Loja A"])
    assert len(shared.events(mine, told.Connected)) == 1


async def test_killed_right_after_the_pairing(stage: Stage) -> None:
    """kill -9 in the moment in which a pairing is told costs nothing: the next process logs in with those keys."""
    mine = stage.fresh("killed-early")
    async with stage.machine("killed-early") as first:
        number = await stage.network.phone("Early")
        qr = await stage.begin(first, mine)
        scanning = asyncio.create_task(stage.network.scan(number, qr))
        await first.event(mine, told.Paired)
        first.process.kill()
        await asyncio.wait({scanning})
    async with stage.machine("killed-early") as second:
        device = f"{number}:1@s.whatsapp.net"
        assert await second.open(stage.spec(mine, pair=True)) == device
        assert (await second.event(mine, told.Connected)).device == device
        assert second.events(mine, told.QrIssued) == []


async def test_a_round_that_ends_without_a_phone(stage: Stage, shared: Driven) -> None:
    """If WhatsApp ends it, that is told once, the session does nothing more, and the next opening begins another."""
    mine = stage.fresh("round")
    await stage.begin(shared, mine)
    await stage.network.fault("drop")
    await shared.event(mine, told.PairingEnded)
    assert (await shared.ask(OpenSession(stage.spec(mine, pair=True)))).kind == "refused"  # still to be closed
    await shared.done(CloseSession(mine))
    await stage.begin(shared, mine)
    assert len(shared.events(mine, told.PairingEnded)) == 1
    await shared.done(CloseSession(mine))
    assert len(shared.events(mine, told.PairingEnded)) == 1


async def test_close_and_reopen(stage: Stage, shared: Driven) -> None:
    """Closing keeps the keys: the session comes back without a QR and receives what came meanwhile."""
    mine = stage.fresh("reopened")
    number = await stage.paired(shared, mine)
    assert (await shared.ask(OpenSession(stage.spec(mine)))).kind == "refused"  # open already
    await shared.done(CloseSession(mine))
    await shared.done(CloseSession(mine))  # harmless
    assert (await shared.send(mine, "3EB0CLOSED", jid(number), "x")).kind == "retry"
    await stage.say(await stage.network.phone("Other"), number, "while away")
    await stage.reopen(shared, mine)
    await shared.text(mine, "while away")
    assert len(shared.events(mine, told.QrIssued)) == 1
    assert shared.events(mine, told.Disconnected) == []  # what was asked for is no news


async def test_orders_of_one_session_are_carried_out_in_turn(stage: Stage, shared: Driven) -> None:
    """Whoever does not wait for the answers gets what waiting would have got."""
    mine = stage.fresh("turns")
    await stage.paired(shared, mine)
    orders: list[Any] = []
    for _ in range(4):
        orders += [CloseSession(mine), OpenSession(stage.spec(mine))]
    answers = await asyncio.gather(*(shared.ask(order, 60) for order in orders))
    assert [answer.kind for answer in answers] == [""] * 8
    await shared.until(lambda: len(shared.events(mine, told.Connected)) >= 2)
    assert await shared.done(Probe(mine)) is True
    assert shared.events(mine, told.Replaced) == []


async def test_logout(stage: Stage, shared: Driven) -> None:
    """The device vanishes from the phone and its keys from the store; what was asked for is no news; a QR is next."""
    mine = stage.fresh("leaver")
    number = await stage.paired(shared, mine)
    device = shared.events(mine, told.Connected)[0].device
    assert await stage.store.rows_of(device)
    await shared.done(Logout(mine))
    assert (await stage.network.call("GET", f"phones/{number}"))["linkedDevices"] == []
    assert await stage.store.rows_of(device) == {}
    assert shared.events(mine, told.LoggedOut) == []
    await stage.begin(shared, mine)
    await shared.done(CloseSession(mine))


async def test_logout_while_there_is_no_connection(stage: Stage, shared: Driven) -> None:
    """It cannot be done now, so the keys stay and it can be asked for again."""
    mine = stage.fresh("leaver-away")
    number = await stage.paired(shared, mine)
    await stage.network.fault("refuse")
    await stage.network.fault("drop", number=number)
    await shared.event(mine, told.Disconnected)
    assert (await shared.ask(Logout(mine))).kind == "retry"
    assert (await shared.ask(Logout("nobody"))).kind == "retry"
    await stage.network.well()
    await shared.until(lambda: len(shared.events(mine, told.Connected)) == 2)
    await shared.done(Logout(mine))
    assert (await stage.network.call("GET", f"phones/{number}"))["linkedDevices"] == []


async def test_unlinked_by_the_phone(stage: Stage, shared: Driven) -> None:
    """It is told once, and nothing of the device is left in the store: its address may soon be another's."""
    mine = stage.fresh("unlinked")
    number = await stage.paired(shared, mine)
    await stage.say(await stage.network.phone("Other"), number, "so that there is a ratchet")
    await shared.text(mine, "so that there is a ratchet")
    device = shared.events(mine, told.Connected)[0].device
    tokens = "insert into machine.whatsmeow_privacy_tokens values ($1, 'x', '', 0) returning 1"
    assert await stage.store.count(tokens, device)  # the one table that whatsmeow itself does not clear
    await stage.network.call("POST", f"phones/{number}/unlink", {"device": 1})
    await shared.event(mine, told.LoggedOut)
    async with asyncio.timeout(10):
        while await stage.store.rows_of(device):
            await asyncio.sleep(0.05)
    key = stage.spec(mine).store_key
    for table in ("tomada_session", "tomada_lid"):
        assert await stage.store.count(f"select count(*) from machine.{table} where key = $1", key) == 0
    await shared.done(CloseSession(mine))
    assert await shared.open(stage.spec(mine)) == ""
    assert len(shared.events(mine, told.LoggedOut)) == 1


async def test_unlinked_while_it_was_closed(stage: Stage, shared: Driven) -> None:
    """The next login learns it: told as LoggedOut, and the keys go."""
    mine = stage.fresh("unlinked-closed")
    number = await stage.paired(shared, mine)
    device = shared.events(mine, told.Connected)[0].device
    await shared.done(CloseSession(mine))
    await stage.network.call("POST", f"phones/{number}/unlink", {"device": 1})
    assert await shared.open(stage.spec(mine)) == device
    assert (await shared.event(mine, told.LoggedOut)).reason == "401"
    async with asyncio.timeout(10):
        while await stage.store.rows_of(device):
            await asyncio.sleep(0.05)


async def test_replaced(stage: Stage, shared: Driven) -> None:
    """Told once; it does not come back by itself, and comes back when it is opened anew."""
    mine = stage.fresh("replaced")
    number = await stage.paired(shared, mine)
    await stage.network.fault("replaced", number=number)
    await shared.event(mine, told.Replaced)
    connects = len(await stage.network.connects_ms())
    assert (await shared.send(mine, "3EB0GONE", jid(number), "x")).kind in {"", "retry"}
    await shared.done(CloseSession(mine))
    assert len(shared.events(mine, told.Connected)) == 1
    assert shared.events(mine, told.Disconnected) == []
    assert len(await stage.network.connects_ms()) == connects
    await stage.reopen(shared, mine)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [({"kind": "outdated"}, told.Outdated), ({"kind": "ban", "code": 102, "expire": 600}, told.Banned)],
)
@pytest.mark.parametrize("when", ["at the opening", "while connected"])
async def test_refused_at_login(
    stage: Stage, shared: Driven, fault: dict[str, Any], kind: type[told.Event], when: str
) -> None:
    """What WhatsApp refuses at a login is told once under its own name, with a ban's code and end; nothing tries on."""
    mine = stage.fresh("refused")
    number = await stage.paired(shared, mine)
    if when == "at the opening":
        await shared.done(CloseSession(mine))
        await stage.network.fault(**fault, number=number)
        assert await shared.open(stage.spec(mine))
    else:
        await stage.network.fault(**fault, number=number)
    event = await shared.event(mine, kind)
    if isinstance(event, told.Banned):
        assert event.code == 102
        assert 500_000 < event.expires_ms - time.time_ns() // 1_000_000 <= 600_000
    await stage.network.well()
    await shared.done(CloseSession(mine))
    assert len(shared.events(mine, kind)) == 1
    assert len(shared.events(mine, told.Connected)) == 1
    await stage.reopen(shared, mine)


async def test_sessions_keep_to_their_own_keys(stage: Stage) -> None:
    """Side by side in one store, opened in any order by another process, each is its own account."""
    names = [stage.fresh("side") for _ in range(3)]
    async with stage.machine("side-by-side") as first:
        numbers = {name: await stage.paired(first, name) for name in names}
        assert await first.end() == 0
    async with stage.machine("side-by-side") as second:
        await asyncio.gather(*(stage.reopen(second, name) for name in reversed(names)))
        for name, number in numbers.items():
            assert second.events(name, told.Connected)[0].device == f"{number}:1@s.whatsapp.net"
