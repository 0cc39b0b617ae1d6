"""Simulated phones among themselves, over the real network in this process: what needs no engine.

Includes what a person may type wrong into the control routes, and what a crash may do to a phone.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random  # noqa: TID251 - a seeded source of ids for the simulation
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.integration.sandbox.control_client import Control, Refused, eventually
from tomada.kit.clock import SystemClock
from tomada.sandbox import phone_actions
from tomada.sandbox.control import control_app
from tomada.sandbox.network import Network
from tomada.sandbox.node import Node
from tomada.sandbox.phone import Phone
from tomada.sandbox.phone_actions import send_body, show_message
from tomada.sandbox.phone_log import ENTRIES_MAX, LogEntry, MessageLog, ReceiptRow
from tomada.sandbox.phone_requests import SendBody
from tomada.sandbox.phone_store import PhoneStore
from tomada.sandbox.phonebook import Phonebook

ANA, BIA, CAI = "5511960000001", "5511960000002", "5511960000003"


class World:
    """A network with a phonebook, as after a start of the sandbox process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.network = Network(directory, SystemClock(), Random(3))
        self.phonebook = Phonebook(self.network, SystemClock(), os.urandom)

    async def restarted(self) -> World:
        """The same directory after a restart; nothing but the file is carried over."""
        await self.network.close()
        world = World(self.directory)
        await world.phonebook.load()
        return world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Three phones."""
    made = World(tmp_path)
    for number, name in ((ANA, "Ana"), (BIA, "Bia"), (CAI, "Cai")):
        await made.phonebook.add(number, name)
    yield made
    await made.network.close()


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[Control]:
    """The control routes with two phones."""
    network = Network(tmp_path, SystemClock(), Random(4))
    app: web.Application = await control_app(network)
    async with TestServer(app) as server:
        client = Control(str(server.make_url("")).rstrip("/"))
        await client.post("phones", number=ANA, name="Ana")
        await client.post("phones", number=BIA, name="Bia")
        yield client
    await network.close()


async def _arrived(phone: Phone, message_id: str) -> dict[str, Any]:
    async def find() -> LogEntry | None:
        return phone.log.find(message_id)

    return show_message(phone, await eventually(find))


async def test_a_hundred_messages_keep_their_order(world: World) -> None:
    """What one phone sends is listed at the other in the order of sending."""
    ana, bia = world.phonebook.get(ANA), world.phonebook.get(BIA)
    sent = [await send_body(ana, SendBody(to=BIA, text=f"{number}")) for number in range(100)]
    await _arrived(bia, sent[-1])
    assert [entry.id for entry in bia.log.entries()] == sent


async def test_everything_is_there_after_a_restart(world: World) -> None:
    """Phones, messages, receipts and sessions outlive the process."""
    ana, bia = world.phonebook.get(ANA), world.phonebook.get(BIA)
    first = await send_body(ana, SendBody(to=BIA, text="before"))
    await _arrived(bia, first)
    await _arrived(ana, await send_body(bia, SendBody(to=ANA, text="answer")))

    async def delivered() -> bool:
        entry = ana.log.find(first)
        return entry is not None and entry.status == "delivered"

    await eventually(delivered)
    before = {number: [e.id for e in world.phonebook.get(number).log.entries()] for number in (ANA, BIA)}
    again = await world.restarted()
    assert [phone.number for phone in again.phonebook.all()] == [ANA, BIA, CAI]
    for number, ids in before.items():
        assert [entry.id for entry in again.phonebook.get(number).log.entries()] == ids
    assert show_message(again.phonebook.get(ANA), again.phonebook.get(ANA).log.entries()[0])["status"] == "delivered"
    second = await send_body(again.phonebook.get(ANA), SendBody(to=BIA, text="after"))
    assert (await _arrived(again.phonebook.get(BIA), second))["text"] == "after"
    await again.network.close()


async def test_a_stanza_that_comes_twice_is_one_message(world: World) -> None:
    """After a crash the network hands a stanza over again: it is confirmed again and listed once."""
    ana, bia = world.phonebook.get(ANA), world.phonebook.get(BIA)
    seen: list[Node] = []
    deliver = bia.deliver

    async def keep(node: Node) -> None:
        seen.append(node)
        await deliver(node)

    bia.deliver = keep  # type: ignore[method-assign]
    sent = await send_body(ana, SendBody(to=BIA, text="once"))
    await _arrived(bia, sent)
    await deliver(next(node for node in seen if node.tag == "message"))
    assert [entry.id for entry in bia.log.entries()] == [sent]


async def test_a_crash_before_the_commit_leaves_the_phone_as_it_was(world: World) -> None:
    """A phone that dies while handling a stanza reads it after the restart as if for the first time."""
    ana, bia = world.phonebook.get(ANA), world.phonebook.get(BIA)
    warm = await send_body(ana, SendBody(to=BIA, text="warm"))
    await _arrived(bia, warm)

    def crash() -> None:
        raise KeyboardInterrupt

    held: list[Node] = []

    async def hold(node: Node) -> None:
        held.append(node)

    bia.deliver = hold  # type: ignore[method-assign]
    sent = await send_body(ana, SendBody(to=BIA, text="survives"))

    async def came() -> list[Node]:
        return held

    await eventually(came)
    bia.store.commit = crash  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        await Phone.deliver(bia, held[0])
    again = await world.restarted()
    reborn = again.phonebook.get(BIA)
    assert reborn.log.find(sent) is None
    await reborn.deliver(held[0])
    assert (await _arrived(reborn, sent))["text"] == "survives"
    await again.network.close()


async def test_a_phone_is_cheap(tmp_path: Path) -> None:
    """400 phones can be added; each costs a few milliseconds at most, and adding one again changes nothing."""
    world = World(tmp_path)
    start_s = world.network.world.clock.monotonic_s()
    for number in range(400):
        await world.phonebook.add(str(5511950000000 + number), "")
    assert (world.network.world.clock.monotonic_s() - start_s) / 400 < 0.02
    known = world.phonebook.get("5511950000000")
    assert await world.phonebook.add("5511950000000", "") is known
    assert known.name == "Phone 0000"
    await world.network.close()


def test_the_log_forgets_the_oldest_beyond_its_bound(world: World) -> None:
    """One more than the bound: the first is gone, also from the store, and a receipt for it is ignored."""
    store = PhoneStore(world.network.blobs, "5511940000000")
    log = MessageLog(store)
    blank = LogEntry(0, "", ANA, 0, ANA, True, 0, b"")
    for number in range(ENTRIES_MAX + 1):
        assert log.append(msgspec.structs.replace(blank, id=str(number)))
    assert not log.append(msgspec.structs.replace(blank, id="7"))
    log.add_receipt("0", ReceiptRow("read", BIA, 1))
    store.commit()
    reloaded = MessageLog(store).entries()
    assert (len(reloaded), reloaded[0].id, reloaded[-1].id) == (ENTRIES_MAX, "1", str(ENTRIES_MAX))


async def test_a_group_member_that_left_cannot_read_on(world: World) -> None:
    """After a removal the sender key is new: the removed phone gets nothing, the others read on."""
    ana, bia, cai = (world.phonebook.get(number) for number in (ANA, BIA, CAI))
    group = await phone_actions.create_group(ana, "Team", [BIA, CAI])
    first = await send_body(ana, SendBody(to=str(group), text="all"))
    await _arrived(bia, first)
    await _arrived(cai, first)
    old_key = ana.sessions.sender_key_distribution(group)
    await phone_actions.change_members(ana, group, "remove", [BIA])
    second = await send_body(ana, SendBody(to=str(group), text="two of us"))
    assert (await _arrived(cai, second))["text"] == "two of us"
    assert bia.log.find(second) is None
    assert ana.sessions.sender_key_distribution(group)[:6] != old_key[:6]


BAD_REQUESTS: list[tuple[str, str, Any]] = [
    ("POST", "phones", {}),
    ("POST", "phones", {"number": "12"}),
    ("POST", "phones", {"number": 5511}),
    ("POST", "phones", {"number": "55119abc"}),
    ("POST", "phones", []),
    ("POST", "phones", None),
    ("POST", f"phones/{ANA}/scan", {"qr": "rubbish"}),
    ("POST", f"phones/{ANA}/scan", {"qr": "https://wa.me/settings/linked_devices#a,b,c,d,e"}),
    ("POST", f"phones/{ANA}/scan", {"qr": "x," + ",".join(["A" * 43 + "="] * 3)}),
    ("POST", f"phones/{ANA}/link-code", {"code": "ABCD-1234"}),
    ("POST", f"phones/{ANA}/link-code", {"code": ""}),
    ("POST", f"phones/{ANA}/unlink", {"device": 9}),
    ("POST", f"phones/{ANA}/unlink", {"device": "one"}),
    ("POST", f"phones/{ANA}/send", {"to": BIA}),
    ("POST", f"phones/{ANA}/send", {"to": BIA, "text": "a", "image": {}}),
    ("POST", f"phones/{ANA}/send", {"to": BIA, "texto": "a"}),
    ("POST", f"phones/{ANA}/send", {"to": "", "text": "a"}),
    ("POST", f"phones/{ANA}/send", {"to": "5599999999999", "text": "a"}),
    ("POST", f"phones/{ANA}/send", {"to": "120363000000000000@g.us", "text": "a"}),
    ("POST", f"phones/{ANA}/send", {"to": BIA, "image": {"data": "***"}}),
    ("POST", f"phones/{ANA}/send", {"to": BIA, "reaction": {"id": "none", "emoji": "x"}}),
    ("POST", f"phones/{ANA}/send", {"to": BIA, "poll": {"name": "?", "options": ["same", "same"]}}),
    ("POST", f"phones/{ANA}/send", {"to": BIA, "text": "a", "quoted": "none"}),
    ("POST", f"phones/{ANA}/send", {"to": BIA, "contact": {"name": "no number"}}),
    ("POST", f"phones/{ANA}/read", {"ids": []}),
    ("POST", f"phones/{ANA}/read", {"ids": ["none"]}),
    ("POST", f"phones/{ANA}/presence", {"status": "asleep"}),
    ("POST", f"phones/{ANA}/typing", {"to": BIA, "state": "shouting"}),
    ("GET", f"phones/{ANA}/messages/none/media", None),
    ("POST", "groups", {"owner": ANA, "subject": "", "members": [BIA]}),
    ("POST", "groups", {"owner": ANA, "subject": "x", "members": ["5599999999999"]}),
    ("POST", "groups/1/participants", {"by": ANA, "action": "add", "members": [BIA]}),
    ("POST", "groups/1/participants", {"by": ANA, "action": "dance"}),
    ("POST", "groups/1/subject", {"by": ANA, "subject": "x"}),
    ("POST", "groups/1/subject", {"by": ANA}),
    ("POST", "faults", {"kind": "earthquake"}),
    ("POST", "faults", {}),
]


@pytest.mark.parametrize(("method", "path", "body"), BAD_REQUESTS)
async def test_bad_input_is_a_clear_400(control: Control, method: str, path: str, body: Any) -> None:
    """Whatever is wrong: status 400 and words."""
    with pytest.raises(Refused) as refused:
        await control.call(method, path, body)
    assert refused.value.status == 400
    assert len(str(refused.value)) > len("400: ")


@pytest.mark.parametrize("path", ["phones/5599999999999", "phones/5599999999999/messages", "nowhere"])
async def test_what_does_not_exist_is_a_404_in_json(control: Control, path: str) -> None:
    """An unknown phone or route."""
    with pytest.raises(Refused) as refused:
        await control.get(path)
    assert refused.value.status == 404


async def test_the_routes_show_phones_and_messages(control: Control) -> None:
    """The shapes of docs: phones, one phone, messages with their optional parts, narrowing by chat and id."""
    assert [one["number"] for one in await control.get("phones")] == [ANA, BIA]
    assert (await control.get(f"phones/+{ANA}"))["linkedDevices"] == []
    first = (await control.post(f"phones/{ANA}/send", to=f"+{BIA}", text="one"))["id"]
    got = await control.message(BIA, lambda one: one["id"] == first)
    second = (await control.post(f"phones/{BIA}/send", to=f"{ANA}@s.whatsapp.net", text="two", quoted=first))["id"]
    reply = await control.message(ANA, lambda one: one["id"] == second)
    assert {"id", "waId", "from", "to", "chat", "fromMe", "kind", "text", "at"} <= got.keys()
    assert (reply["quoted"], reply["quotedFrom"]) == (first, ANA)
    assert [one["id"] for one in await control.get(f"phones/{ANA}/messages?after={first}")] == [second]
    assert await control.get(f"phones/{ANA}/messages?chat=other") == []


async def test_faults_are_set_shown_and_cleared(control: Control) -> None:
    """The routes of faults, in full."""
    await control.post("faults", kind="no-ack", number=ANA)
    assert [one["kind"] for one in (await control.get("faults"))["faults"]] == ["no-ack"]
    await control.call("DELETE", "faults")
    assert (await control.get("faults"))["faults"] == []
