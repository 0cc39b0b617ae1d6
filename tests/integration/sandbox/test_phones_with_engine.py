"""Simulated phones and a real engine client talk to each other, driven by the control routes."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random  # noqa: TID251 - a seeded source of ids for the simulation
from typing import Any

import asyncpg
import msgspec
import pytest

from tests.integration.sandbox.conftest import Bench, Clients
from tests.integration.sandbox.control_client import Control, Refused, eventually
from tests.integration.sandbox.engine_client import EngineClient
from tomada.kit.clock import SystemClock
from tomada.sandbox.control import control_app
from tomada.sandbox.node import Node
from tomada.sandbox.server import Sandbox

SHOP, CUSTOMER = "5511970000001", "5511970000002"


class Scene:
    """A shop with a phone and a linked engine, and a customer with a phone only."""

    def __init__(self, control: Control, engine: EngineClient) -> None:
        self.control, self.engine = control, engine

    async def customer_sends(self, **body: Any) -> str:
        """The customer's phone sends something to the shop; the message id."""
        return str((await self.control.post(f"phones/{CUSTOMER}/send", to=SHOP, **body))["id"])


@pytest.fixture(scope="module")
async def bench(clients: Clients) -> AsyncIterator[Bench]:
    """A sandbox with its control routes, in this process."""
    with tempfile.TemporaryDirectory(prefix="tomada-phones-") as folder:
        sandbox = Sandbox(Path(folder), SystemClock(), Random(11))
        yield Bench(sandbox, await sandbox.start(control_app), Path(folder), clients)
        await sandbox.stop()


@pytest.fixture(scope="module")
async def scene(bench: Bench) -> Scene:
    """Paired once for the tests of this file."""
    control = Control(bench.ready.control)
    await control.post("phones", number=SHOP, name="Shop")
    await control.post("phones", number=CUSTOMER, name="Customer")
    engine = await bench.client("Shop Desk")
    qr = await engine.qr()
    assert await control.post(f"phones/{SHOP}/scan", qr=qr) == {"device": 1, "name": "Shop Desk"}
    await engine.wait("Connected")
    return Scene(control, engine)


async def test_the_phone_lists_the_linked_device_by_its_session_name(scene: Scene) -> None:
    """Name, platform and presence of the device show under linked devices."""

    async def online() -> Any:
        device = (await scene.control.get(f"phones/{SHOP}"))["linkedDevices"][0]
        return device if device["online"] else None

    assert await eventually(online) == {"device": 1, "name": "Shop Desk", "platform": 1, "online": True}


async def test_a_phone_writes_and_the_engine_answers(scene: Scene) -> None:
    """Text both ways; the phone decrypts the answer and confirms it by itself."""
    sent = await scene.customer_sends(text="do you have bread?")
    got = await scene.engine.text("do you have bread?")
    assert (got["id"], got["push_name"], got["from_me"]) == (sent, "Customer", False)
    answered = await scene.engine.do("send", to=CUSTOMER, text="yes")
    message = await scene.control.message(CUSTOMER, lambda one: one.get("text") == "yes")
    assert (message["id"], message["waId"], message["from"], message["to"]) == (answered, answered, SHOP, CUSTOMER)
    assert (message["chat"], message["fromMe"], message["kind"]) == (SHOP, False, "text")
    await scene.engine.wait("Receipt", lambda e: answered in e["ids"])


async def test_receipts_show_on_both_sides(scene: Scene) -> None:
    """The phone sees delivered and read of what it sent, and reports read and played on command."""
    sent = await scene.customer_sends(text="mark me")
    await scene.engine.text("mark me")
    await scene.control.message(CUSTOMER, lambda one: one["id"] == sent and one["status"] == "delivered")
    await scene.engine.do("read", id=sent)
    message = await scene.control.message(CUSTOMER, lambda one: one["id"] == sent and one["status"] == "read")
    assert {(one["kind"], one["by"]) for one in message["receipts"]} == {("delivered", SHOP), ("read", SHOP)}

    answered = await scene.engine.do("send", to=CUSTOMER, text="read me")
    await scene.control.message(CUSTOMER, lambda one: one["id"] == answered)
    await scene.engine.wait("Receipt", lambda e: answered in e["ids"])
    await scene.control.post(f"phones/{CUSTOMER}/read", ids=[answered])
    read = await scene.engine.wait("Receipt", lambda e: answered in e["ids"])
    await scene.control.post(f"phones/{CUSTOMER}/played", ids=[answered])
    played = await scene.engine.wait("Receipt", lambda e: answered in e["ids"] and e["type"] != read["type"])
    assert read["type"] != played["type"]


async def test_both_devices_of_an_account_see_everything(scene: Scene) -> None:
    """What the engine sends shows on the owner's phone, and what the owner types shows at the engine."""
    sent = await scene.engine.do("send", to=CUSTOMER, text="from the desk")
    copy = await scene.control.message(SHOP, lambda one: one["id"] == sent)
    assert (copy["fromMe"], copy["device"], copy["chat"]) == (True, 1, CUSTOMER)
    await scene.control.message(SHOP, lambda one: one["id"] == sent and one["status"] == "delivered")

    typed = await scene.control.post(f"phones/{SHOP}/send", to=CUSTOMER, text="from the phone")
    got = await scene.engine.text("from the phone")
    assert (got["id"], got["from_me"]) == (typed["id"], True)
    await scene.control.message(CUSTOMER, lambda one: one["id"] == typed["id"])


async def test_a_reply_names_what_it_quotes(scene: Scene) -> None:
    """A quote made by a phone reads as a reply at the engine."""
    asked = await scene.engine.do("send", to=CUSTOMER, text="which colour?")
    await scene.control.message(CUSTOMER, lambda one: one["id"] == asked)
    answer = await scene.customer_sends(text="red", quoted=asked)
    got = await scene.engine.text("red")
    assert got["id"] == answer
    listed = await scene.control.message(CUSTOMER, lambda one: one["id"] == answer)
    assert (listed["quoted"], listed["quotedFrom"]) == (asked, SHOP)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"image": {"caption": "look"}}, "imageMessage"),
        ({"audio": {"ptt": True, "seconds": 3}}, "audioMessage"),
        ({"video": {"gif": True}}, "videoMessage"),
        ({"document": {"fileName": "offer.pdf"}}, "documentMessage"),
        ({"sticker": {}}, "stickerMessage"),
    ],
)
async def test_the_engine_can_read_every_medium_of_a_phone(scene: Scene, body: dict[str, Any], field: str) -> None:
    """Each kind arrives as itself, and the engine downloads and decrypts it."""
    sent = await scene.customer_sends(**body)
    got = await scene.engine.wait("Message", lambda e: e["id"] == sent)
    assert field in got["kinds"]
    listed = await scene.control.message(CUSTOMER, lambda one: one["id"] == sent)
    assert len(await scene.engine.download(sent)) == listed["bytes"]


async def test_the_other_kinds_arrive_as_themselves(scene: Scene) -> None:
    """Location, contact, reaction, poll, vote, edit and revoke."""
    first = await scene.customer_sends(text="first")
    await scene.engine.text("first")
    poll = await scene.customer_sends(poll={"name": "when?", "options": ["now", "later"]})
    bodies: list[tuple[dict[str, Any], str]] = [
        ({"location": {"latitude": -23.5, "longitude": -46.6, "name": "Office"}}, "locationMessage"),
        ({"contact": {"name": "Ana", "phone": "5511999990000"}}, "contactMessage"),
        ({"reaction": {"id": first, "emoji": "👍"}}, "reactionMessage"),
        ({"revoke": {"id": first}}, "protocolMessage"),
    ]
    for body, field in bodies:
        sent = await scene.customer_sends(**body)
        got = await scene.engine.wait("Message", _with_id(sent))
        assert field in got["kinds"]
    vote = await scene.customer_sends(vote={"id": poll, "options": ["now"]})
    await scene.engine.wait("Message", _with_id(vote))
    got = await scene.engine.wait("Message", lambda e: e["id"] == poll)
    assert "pollCreationMessageV3" in got["kinds"]
    cast = await scene.engine.do("cast_vote", id=poll, text="later")
    listed = await scene.control.message(CUSTOMER, lambda one: one["id"] == cast)
    assert (listed["kind"], listed["target"], listed["options"]) == ("pollVote", poll, ["later"])
    chosen = await scene.engine.do("vote", id=vote)
    assert chosen == [hashlib.sha256(b"now").hexdigest()]
    edited = await scene.customer_sends(edit={"id": first, "text": "second"})
    await scene.engine.wait("Message", lambda e: e["id"] == edited or e["text"] == "second")


async def test_a_phone_reads_media_of_the_engine(scene: Scene) -> None:
    """A document sent through the engine comes out of the phone byte for byte."""
    document = bytes(index % 251 for index in range(1000)) * 100
    sent = await scene.engine.send_document(CUSTOMER, document)
    await scene.control.message(CUSTOMER, lambda one: one["id"] == sent and one["kind"] == "document")
    content = await scene.control.get(f"phones/{CUSTOMER}/messages/{sent}/media")
    assert content == document


async def test_the_push_name_travels_both_ways(scene: Scene) -> None:
    """The engine may say that it is there (it needs the name for that); a name set on either side reaches the other."""
    await eventually(lambda: _can_be_available(scene))
    await scene.control.post("phones", number=SHOP, name="Shop & Sons")
    sent = await scene.customer_sends(text="who is it?")
    await scene.engine.wait("Message", lambda e: e["id"] == sent)
    await eventually(lambda: _own_name_is(scene, "Shop & Sons"))
    await scene.engine.do("set_name", text="Shop Online")

    async def renamed() -> bool:
        return bool((await scene.control.get(f"phones/{SHOP}"))["name"] == "Shop Online")

    assert await eventually(renamed)
    assert (await scene.control.post("phones", number=SHOP, name="Shop"))["name"] == "Shop"
    await eventually(lambda: _own_name_is(scene, "Shop"))


async def test_presence_and_typing_are_seen(scene: Scene) -> None:
    """Both sides see the other come, go and type."""
    await eventually(lambda: _can_be_available(scene))
    await scene.control.post(f"phones/{CUSTOMER}/subscribe", to=SHOP)
    await scene.engine.do("subscribe", to=CUSTOMER)
    await scene.control.post(f"phones/{CUSTOMER}/presence", status="available")
    await scene.engine.wait("Presence", lambda e: not e["data"]["Unavailable"])
    await scene.control.post(f"phones/{CUSTOMER}/typing", to=SHOP, state="recording")
    await scene.engine.wait("ChatPresence")
    await scene.engine.do("typing", to=CUSTOMER)

    async def seen() -> bool:
        sightings = await scene.control.get(f"phones/{CUSTOMER}/sightings")
        return {"available", "composing"} <= {one["what"] for one in sightings if one["by"] == SHOP}

    assert await eventually(seen)


async def test_a_phone_makes_a_group_and_all_talk_in_it(scene: Scene) -> None:
    """The engine joins by the phone's doing; texts reach everybody, from phones and from the engine."""
    made = await scene.control.call("POST", "groups", {"owner": CUSTOMER, "subject": "Bakers", "members": [SHOP]})
    group = made["id"]
    await scene.engine.wait("JoinedGroup")
    sent = await scene.control.post(f"phones/{CUSTOMER}/send", to=group, text="hello group")
    got = await scene.engine.text("hello group")
    assert (got["id"], got["group"], got["chat"]) == (sent["id"], True, group)
    await scene.control.message(SHOP, lambda one: one["id"] == sent["id"] and one["chat"] == group)
    await scene.control.message(CUSTOMER, lambda one: one["id"] == sent["id"] and one["status"] == "delivered")
    answered = await scene.engine.do("send", to=group, text="hello baker")
    message = await scene.control.message(CUSTOMER, lambda one: one["id"] == answered)
    assert (message["from"], message["chat"], message["text"]) == (SHOP, group, "hello baker")
    await scene.control.post(f"phones/{CUSTOMER}/read", ids=[answered])
    await scene.engine.wait("Receipt", lambda e: answered in e["ids"])
    await scene.control.post(f"groups/{group}/participants", by=CUSTOMER, action="remove", members=[SHOP])
    await scene.control.post(f"phones/{CUSTOMER}/send", to=group, text="alone now")
    with pytest.raises(Refused):
        await scene.control.post(f"phones/{SHOP}/send", to=group, text="not in it")


@pytest.mark.parametrize("times", [1, 2])
async def test_a_phone_sends_again_what_the_engine_could_not_read(bench: Bench, scene: Scene, times: int) -> None:
    """Damaged on the way to the engine once or twice (then with new keys), the text arrives in the end."""
    bench.network.apply_fault({"kind": "corrupt", "number": SHOP, "count": times})
    text = f"damaged {times} times"
    sent = await scene.customer_sends(text=text)
    assert (await scene.engine.text(text))["id"] == sent


@pytest.mark.parametrize("times", [1, 2])
async def test_a_phone_asks_again_for_what_it_cannot_read(bench: Bench, scene: Scene, times: int) -> None:
    """Damaged on the way to the phone once or twice, the engine's text arrives in the end, and once."""
    damage = _Damage(bench, CUSTOMER, times)
    sent = await scene.engine.do("send", to=CUSTOMER, text=f"broken {times} times")
    await scene.control.message(CUSTOMER, lambda one: one["id"] == sent)
    assert damage.left == 0
    assert [one["id"] for one in await scene.control.messages(CUSTOMER)].count(sent) == 1


async def test_a_phone_that_lost_its_sessions_asks_with_new_keys(bench: Bench, scene: Scene) -> None:
    """The engine starts anew from the keys in the phone's second request, and its text arrives."""
    number = "5511970000006"
    await scene.control.post("phones", number=number, name="Lossy")
    before = await scene.engine.do("send", to=number, text="hello lossy")
    await scene.control.message(number, lambda one: one["id"] == before)
    await scene.control.post(f"phones/{number}/send", to=SHOP, text="hello shop")
    await scene.engine.text("hello shop")
    link: Any = bench.network.world.link(bench.network.devices(number)[0])
    link.phone.sessions._sessions = dict.fromkeys(link.phone.sessions._sessions, ())
    sent = await scene.engine.do("send", to=number, text="do you know me?")
    await scene.control.message(number, lambda one: one["id"] == sent)
    store = link.phone.store
    assert (store.get("prekey/last"), store.get("prekey/1")) == (b"\x00\x00\x01", None), "made, and used up"


async def test_an_engine_that_lost_its_sessions_gets_new_ones(bench: Bench, scene: Scene) -> None:
    """The phone starts anew from the keys in the engine's request, and its text arrives."""
    await scene.customer_sends(text="before the loss")
    await scene.engine.text("before the loss")
    answered = await scene.engine.do("send", to=CUSTOMER, text="answer before the loss")
    await scene.control.message(CUSTOMER, lambda one: one["id"] == answered)
    database = await asyncpg.connect(bench.clients.store)
    deleted = await database.execute(
        "delete from machine.whatsmeow_sessions using machine.tomada_session where our_jid = jid and key = 'Shop Desk'"
    )
    await database.close()
    assert deleted != "DELETE 0"
    sent = await scene.customer_sends(text="after the loss")
    assert (await scene.engine.text("after the loss"))["id"] == sent


async def test_a_new_device_gets_the_settings_even_if_the_first_word_is_damaged(bench: Bench, scene: Scene) -> None:
    """The phone answers a retry of the key share too, so presence works in the end."""
    number = "5511970000004"
    await scene.control.post("phones", number=number, name="Unlucky")
    engine = await bench.client("Unlucky Desk")
    qr = await engine.qr()
    bench.network.apply_fault({"kind": "corrupt", "number": number, "count": 1})
    await scene.control.post(f"phones/{number}/scan", qr=qr)
    await engine.wait("Connected")
    await eventually(lambda: _can_be_available(Scene(scene.control, engine)))
    assert bench.network.fault_report()["faults"] == []
    await engine.stop()


async def test_what_is_sent_right_after_the_scan_waits_for_the_first_login(bench: Bench, scene: Scene) -> None:
    """A device counts from the moment it is linked, also before it has logged in."""
    number = "5511970000005"
    await scene.control.post("phones", number=number, name="Quick")
    engine = await bench.client("Quick Desk")
    qr = await engine.qr()
    await scene.control.post(f"phones/{number}/scan", qr=qr)
    await scene.control.post(f"phones/{CUSTOMER}/send", to=number, text="already?")
    await engine.text("already?")
    await eventually(lambda: _can_be_available(Scene(scene.control, engine)))
    await scene.control.post(f"phones/{number}/send", to=CUSTOMER, text="typed by quick")
    assert (await engine.text("typed by quick"))["from_me"]
    await engine.stop()


async def test_pairing_by_code(bench: Bench, scene: Scene) -> None:
    """The code that the engine shows, typed into the phone, links the device; a wrong one is refused."""
    number = "5511970000003"
    await scene.control.post("phones", number=number, name="Coder")
    engine = await bench.client("Code Desk")
    await engine.qr()
    code = await engine.do("code", to=number)
    with pytest.raises(Refused, match="wrong pairing code"):
        await scene.control.post(f"phones/{number}/link-code", code="AAAA-AAAA")
    code = await engine.do("code", to=number)
    linked = await scene.control.post(f"phones/{number}/link-code", code=code.lower())
    assert linked == {"device": 1, "name": "Code Desk"}
    await engine.wait("Connected")
    await scene.control.post(f"phones/{CUSTOMER}/send", to=number, text="by code")
    await engine.text("by code")
    await scene.control.post(f"phones/{number}/unlink", device=1)
    await engine.wait("LoggedOut")
    assert (await scene.control.get(f"phones/{number}"))["linkedDevices"] == []
    await engine.stop()


def _with_id(message_id: str) -> Callable[[dict[str, Any]], bool]:
    return lambda event: event["id"] == message_id


async def _can_be_available(scene: Scene) -> bool:
    try:
        await scene.engine.do("presence", action="available")
    except Exception:  # noqa: BLE001 - the engine has not read the name yet
        return False
    return True


async def _own_name_is(scene: Scene, name: str) -> bool:
    return bool(await scene.engine.do("own_name") == name)


class _Damage:
    """Breaks the next messages that the network hands to a phone."""

    def __init__(self, bench: Bench, number: str, times: int) -> None:
        self.left = times
        link: Any = bench.network.world.link(bench.network.devices(number)[0])
        self._phone = link.phone
        self._deliver = self._phone.deliver
        self._phone.deliver = self.deliver

    async def deliver(self, node: Node) -> None:
        """Hand over, damaged while there is damage left."""
        if node.tag == "message" and self.left:
            self.left -= 1
            node = msgspec.structs.replace(node, content=tuple(map(_broken, node.nodes)))
        if self.left == 0:
            self._phone.deliver = self._deliver
        await self._deliver(node)


def _broken(child: Node) -> Node:
    if child.tag != "enc":
        return child
    data = bytearray(child.data)
    data[len(data) - 20] ^= 1
    return child.with_content(bytes(data))
