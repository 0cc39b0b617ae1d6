"""Messages, receipts, media, presence and groups between two real engine clients."""

import base64
import random  # noqa: TID251 - a document of any content

import pytest

from tests.integration.sandbox.conftest import Bench, Pair
from tests.integration.sandbox.engine_client import EngineError


async def test_a_text_arrives_and_is_reported_delivered_and_read(pair: Pair) -> None:
    """The sender's id is the receiver's id, and both receipts carry it."""
    sent = await pair.alice.do("send", to=pair.bob_number, text="hello bob")

    got = await pair.bob.text("hello bob")
    assert got["id"] == sent
    assert not got["from_me"]
    assert got["push_name"] == "Alice"
    assert got["sender_alt"].startswith(pair.alice_number)
    await pair.alice.wait("Receipt", lambda e: sent in e["ids"])
    await pair.bob.do("read", id=sent)
    await pair.alice.wait("Receipt", lambda e: sent in e["ids"] and not e["from_me"])


async def test_texts_go_both_ways_in_order(pair: Pair) -> None:
    """Ten each way, none lost, none twice, in order.

    One way after the other, because the engine spoils its own keys when it sends to and receives from one device at the
    same moment (docs/sandbox.md).
    """
    for number in range(10):
        await pair.alice.do("send", to=pair.bob_number, text=f"there {number}")
    await pair.bob.text("there 9")
    for number in range(10):
        await pair.bob.do("send", to=pair.alice_number, text=f"back {number}")
    await pair.alice.text("back 9")

    there = [e["text"] for e in pair.bob.events if e["event"] == "Message" and e["text"].startswith("there")]
    back = [e["text"] for e in pair.alice.events if e["event"] == "Message" and e["text"].startswith("back")]
    assert there == [f"there {number}" for number in range(9)]
    assert back == [f"back {number}" for number in range(9)]


async def test_the_network_knows_which_numbers_exist(pair: Pair) -> None:
    """A number without a phone is not on the network, and sending to it fails."""
    assert await pair.alice.do("exists", text="+15550002222")
    assert not await pair.alice.do("exists", text="+19990000000")

    with pytest.raises(EngineError):
        await pair.alice.do("send", to="19990000000", text="nobody")


async def test_a_broken_ciphertext_is_asked_for_again(bench: Bench, pair: Pair) -> None:
    """One damaged message leads to a retry receipt, and the text arrives."""
    bench.network.apply_fault({"kind": "corrupt", "number": pair.bob_number, "count": 1})

    await pair.alice.do("send", to=pair.bob_number, text="damaged once")

    await pair.bob.text("damaged once")


async def test_media_travel_through_the_media_server(pair: Pair) -> None:
    """A document of 3 MB comes out as it went in."""
    content = random.Random(3).randbytes(3_000_000)
    await pair.alice.send_document(pair.bob_number, content)

    got = await pair.bob.wait("Message", lambda e: "documentMessage" in e["kinds"])
    assert await pair.bob.download(got["id"]) == content


async def test_presence_and_typing_are_seen(pair: Pair) -> None:
    """A subscriber hears of availability; typing shows up at the other side."""
    await pair.alice.do("presence", action="available")
    await pair.bob.do("presence", action="available")
    await pair.bob.do("subscribe", to=pair.alice_number)
    await pair.bob.wait("Presence")
    await pair.alice.do("presence", action="unavailable")
    await pair.bob.wait("Presence", lambda e: e["data"]["Unavailable"])
    await pair.alice.do("presence", action="available")

    await pair.alice.do("typing", to=pair.bob_number)

    await pair.bob.wait("ChatPresence")


async def test_a_group_lives(bench: Bench, pair: Pair) -> None:
    """Create, write both ways, rename, describe, promote, remove: each is seen by the other side."""
    await bench.phone("15550007777", "Gus")
    group = await pair.alice.do("create_group", text="Team", others=[pair.bob_number])
    await pair.bob.wait("JoinedGroup", lambda e: e["data"]["JID"] == group)
    assert group in await pair.bob.do("groups")

    await pair.alice.do("send", to=group, text="hi group")
    assert (await pair.bob.text("hi group"))["group"]
    await pair.bob.do("send", to=group, text="hi back")
    assert (await pair.alice.text("hi back"))["chat"] == group

    await pair.alice.do("set_group_name", to=group, text="Team 2")
    await pair.bob.wait("GroupInfo", lambda e: (e["data"]["Name"] or {}).get("Name") == "Team 2")
    await pair.alice.do("set_group_topic", to=group, text="what we do")
    await pair.alice.do("change_members", to=group, others=["15550007777"], action="add")
    await pair.alice.do("change_members", to=group, others=[pair.bob_number], action="promote")
    info = await pair.bob.do("group", to=group)
    assert info["subject"] == "Team 2"
    assert info["topic"] == "what we do"
    assert info["members"] == {
        "15550001111@s.whatsapp.net": True,
        "15550002222@s.whatsapp.net": True,
        "15550007777@s.whatsapp.net": False,
    }

    link = await pair.alice.do("invite_link", to=group)
    assert "chat.whatsapp.com" in link
    await pair.alice.do("change_members", to=group, others=[pair.bob_number], action="remove")
    assert group not in await pair.bob.do("groups")
    with pytest.raises(EngineError):
        await pair.bob.do("send", to=group, text="let me in")
    await pair.bob.do("join", text=link)
    assert group in await pair.bob.do("groups")
    await pair.alice.do("leave", to=group)
    assert (await pair.bob.do("group", to=group))["members"].keys() >= {"15550002222@s.whatsapp.net"}


async def test_an_account_has_a_picture_an_about_text_and_a_block_list(pair: Pair) -> None:
    """Set by one client, seen by the other; what a blocked number writes does not arrive."""
    picture = bytes.fromhex("ffd8ffe0") + b"picture"
    await pair.alice.do("set_picture", data=base64.b64encode(picture).decode())
    assert "pps.whatsapp.net" in await pair.bob.do("picture_url", to=pair.alice_number)
    await pair.alice.do("set_about", text="out for lunch")
    assert await pair.bob.do("about", to=pair.alice_number) == "out for lunch"

    await pair.bob.do("change_blocked", to=pair.alice_number, action="block")
    await pair.alice.do("send", to=pair.bob_number, text="can you hear me")
    await pair.bob.do("change_blocked", to=pair.alice_number, action="unblock")
    await pair.alice.do("send", to=pair.bob_number, text="and now")
    await pair.bob.text("and now")
    assert not [e for e in pair.bob.events if e.get("text") == "can you hear me"]


async def test_nothing_was_left_unanswered(bench: Bench, pair: Pair) -> None:
    """Every request that the engine made so far is one the network knows."""
    assert not bench.network.unknown
