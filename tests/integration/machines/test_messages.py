"""Messages both ways over the protocol: whose ids they bear, in which order, and what stands beside them."""

import asyncio
from pathlib import Path

from tests.integration.machines.conftest import Pair
from tests.integration.machines.driven import Driven, e2e, text_of
from tests.integration.machines.stage import Stage, jid
from tomada.engine import building, port, reading, told
from tomada.engine.addresses import Own
from tomada.machines.protocol import CloseSession, Outgoing, Send


def read(event: told.Message, own: Own | None = None) -> port.MessageReceived:
    """As the host reads it."""
    found = reading.read(event, reading.Known(own or Own(), {}))
    assert isinstance(found, port.MessageReceived)
    return found


def mode_of(path: str) -> int | None:
    """Who may do what with this file; None if there is none."""
    return Path(path).stat().st_mode & 0o777 if Path(path).exists() else None


async def test_a_text_bears_our_id(stage: Stage, shared: Driven, pair: Pair) -> None:
    """The id is the request's, on both phones; its outcome comes before any receipt."""
    answer = await shared.send(pair.alice, "3EB0HELLO", jid(pair.bob_number), "olá, Bob")
    assert answer.kind == ""
    sent = await shared.outcome(pair.alice, "3EB0HELLO")
    assert isinstance(sent, told.Sent)
    got = await shared.event(pair.bob, told.Message, lambda e: e.wa_id == "3EB0HELLO")
    assert text_of(got) == "olá, Bob"
    assert abs(got.at_ms - sent.at_ms) < 60_000
    for number in (pair.alice_number, pair.bob_number):
        assert [one["id"] for one in await stage.messages(number) if one.get("text") == "olá, Bob"] == ["3EB0HELLO"]
    await stage.network.call("POST", f"phones/{pair.bob_number}/read", {"ids": ["3EB0HELLO"]})
    for kind in ("", "read"):
        await shared.event(pair.alice, told.Receipt, lambda e, k=kind: (e.kind, e.wa_ids) == (k, ("3EB0HELLO",)))  # type: ignore[misc]
    mine = [news.event for news in shared.happened if news.instance_id == pair.alice]
    about = [event for event in mine if "3EB0HELLO" in repr(event)]
    assert isinstance(about[0], told.Sent)


async def test_where_a_message_is_from(stage: Stage, shared: Driven, pair: Pair) -> None:
    """Chat and sender with both of their addresses, in whichever way WhatsApp addressed them."""
    wa_id = await stage.say(pair.bob_number, pair.alice_number, "who am I?")
    got = await shared.event(pair.alice, told.Message, lambda e: e.wa_id == wa_id)
    both = {jid(pair.bob_number), await stage.lid(pair.bob_number)}
    assert {got.chat, got.chat_alt} == {got.sender, got.sender_alt} == both
    assert (got.from_me, got.is_group, got.push_name) == (False, False, "Owner of bob")
    message = read(got)
    assert (message.chat, message.sender, message.chat_lid) == (
        pair.bob_number, pair.bob_number, await stage.lid(pair.bob_number),
    )  # fmt: skip


async def test_the_same_id_twice_is_one_message(stage: Stage, shared: Driven, pair: Pair) -> None:
    """So what may have been sent can be sent again: both are acknowledged, and the phone shows one."""
    other = await stage.network.phone("Other")
    for times in (1, 2):
        await shared.send(pair.alice, "3EB0TWICE", jid(other), "only once")
        await shared.until(lambda n=times: len(shared.outcomes(pair.alice, "3EB0TWICE")) == n)  # type: ignore[misc]
    assert all(isinstance(one, told.Sent) for one in shared.outcomes(pair.alice, "3EB0TWICE"))
    await shared.send(pair.alice, "3EB0AFTER", jid(other), "after")
    await shared.event(pair.alice, told.Receipt, lambda e: "3EB0AFTER" in e.wa_ids)
    assert await stage.texts(other) == ["only once", "after"]


async def test_sends_keep_their_order(shared: Driven, pair: Pair) -> None:
    """Sends of one session leave one by one in the order given, each with one outcome."""
    ids = [f"3EB0ORDERED{n:02}" for n in range(40)]
    await asyncio.gather(*(shared.send(pair.alice, wa_id, jid(pair.bob_number), wa_id) for wa_id in ids))
    await shared.text(pair.bob, ids[-1])
    await shared.outcome(pair.alice, ids[-1])
    assert [words for words in shared.texts(pair.bob) if words in ids] == ids
    assert [event.wa_id for event in shared.events(pair.alice, told.Sent) if event.wa_id in ids] == ids


async def test_receipts_come_after_outcomes(stage: Stage, shared: Driven) -> None:
    """However late WhatsApp's acknowledgement and however quick the phone, no receipt overtakes the outcome."""
    mine = stage.fresh("receipts")
    await stage.paired(shared, mine)
    other = await stage.network.phone("Other")
    ids = [f"3EB0QUICK{n:02}" for n in range(20)]
    for wa_id in ids:
        await shared.send(mine, wa_id, jid(other), wa_id)
    await shared.until(lambda: {i for e in shared.events(mine, told.Receipt) for i in e.wa_ids} >= set(ids))
    known: set[str] = set()
    for event in (news.event for news in shared.happened if news.instance_id == mine):
        if isinstance(event, told.Sent):
            known.add(event.wa_id)
        elif isinstance(event, told.Receipt):
            assert known.issuperset(event.wa_ids)


async def test_a_sent_message_names_its_chat_as_a_received_one_does(stage: Stage, shared: Driven, pair: Pair) -> None:
    """The chat's other address and our own are the same whether the API sends, the phone types or the other writes."""
    bob_lid, alice_lid = await stage.lid(pair.bob_number), await stage.lid(pair.alice_number)
    for wa_id, chat in (("3EB0NUMBER", jid(pair.bob_number)), ("3EB0LID", bob_lid)):
        await shared.send(pair.alice, wa_id, chat, wa_id)
        event = await shared.outcome(pair.alice, wa_id)
        assert isinstance(event, told.Sent)
        assert event.sender_alt == alice_lid
        assert {chat, event.chat_alt} == {jid(pair.bob_number), bob_lid}
    wa_id = await stage.say(pair.alice_number, pair.bob_number, "typed")
    mine = read(await shared.event(pair.alice, told.Message, lambda e: e.wa_id == wa_id))
    assert (mine.chat_lid, mine.chat) == (bob_lid, pair.bob_number)


async def test_own_phone_writes(stage: Stage, shared: Driven, pair: Pair) -> None:
    """What the account's own phone writes is told as from us, in the chat of the other person."""
    wa_id = await stage.say(pair.alice_number, pair.bob_number, "from my phone")
    mine = read(await shared.event(pair.alice, told.Message, lambda e: e.wa_id == wa_id), Own(pair.alice_number, ""))
    assert (mine.from_me, mine.chat, mine.sender) == (True, pair.bob_number, pair.alice_number)
    assert mine.content == port.TextReceived("from my phone")
    theirs = read(await shared.event(pair.bob, told.Message, lambda e: e.wa_id == wa_id))
    assert (theirs.from_me, theirs.chat) == (False, pair.alice_number)


async def test_group(stage: Stage, shared: Driven, pair: Pair) -> None:
    """Messages of a group go both ways, each told once; a receipt says whose it is."""
    third = await stage.network.phone("Third")
    members = [pair.alice_number, pair.bob_number]
    group = (await stage.network.call("POST", "groups", {"owner": third, "subject": "Team", "members": members}))["id"]
    first = await stage.say(third, group.partition("@")[0] + "-group", "welcome")
    for instance_id in (pair.alice, pair.bob):
        event = await shared.event(instance_id, told.Message, lambda e: e.wa_id == first and text_of(e) is not None)
        assert (event.chat, event.is_group, text_of(event)) == (group, True, "welcome")
        assert read(event).sender == third
    await shared.send(pair.alice, "3EB0GROUP", group, "hi all")
    got = await shared.event(pair.bob, told.Message, lambda e: e.wa_id == "3EB0GROUP" and text_of(e) == "hi all")
    assert read(got).sender == pair.alice_number
    receipt = await shared.event(pair.alice, told.Receipt, lambda e: "3EB0GROUP" in e.wa_ids)
    assert receipt.is_group
    whose = reading.read(receipt, reading.Known(Own(), {}))
    assert isinstance(whose, port.ReceiptReceived)
    assert whose.participant in {pair.bob_number, third}
    await shared.send(pair.bob, "3EB0AFTERGROUP", jid(pair.alice_number), "after the group")
    await shared.text(pair.alice, "after the group")
    assert [words for words in shared.texts(pair.bob) if words in {"welcome", "hi all"}] == ["welcome", "hi all"]


async def test_a_group_goes_by_its_subject(stage: Stage, shared: Driven, pair: Pair) -> None:
    """Received, typed on the own phone or sent: the group's subject is the chat's name; a new one counts at once."""
    third = await stage.network.phone("Third")
    body = {"owner": third, "subject": "Buyers", "members": [pair.alice_number]}
    group = (await stage.network.call("POST", "groups", body))["id"]
    wire = group.partition("@")[0] + "-group"

    async def name_of(number: str, text: str) -> str:
        wa_id = await stage.say(number, wire, text)
        return (await shared.event(pair.alice, told.Message, lambda e: e.wa_id == wa_id)).chat_name

    assert await name_of(third, "first in Buyers") == "Buyers"
    assert await name_of(pair.alice_number, "typed") == "Buyers"
    await stage.network.call("POST", f"groups/{group}/subject", {"by": third, "subject": "Sellers"})
    assert await name_of(third, "first in Sellers") == "Sellers"
    await shared.send(pair.alice, "3EB0SUBJECT", group, "sent")
    sent = await shared.outcome(pair.alice, "3EB0SUBJECT")
    assert isinstance(sent, told.Sent)
    assert sent.chat_name == "Sellers"


async def test_the_first_message_of_a_group_may_be_our_own(stage: Stage, shared: Driven, pair: Pair) -> None:
    """A group that is sent to before anything was heard from it has its name, too."""
    third = await stage.network.phone("Third")
    body = {"owner": third, "subject": "Silent", "members": [pair.alice_number]}
    group = (await stage.network.call("POST", "groups", body))["id"]
    await shared.send(pair.alice, "3EB0SILENT", group, "sent")
    sent = await shared.outcome(pair.alice, "3EB0SILENT")
    assert isinstance(sent, told.Sent)
    assert sent.chat_name == "Silent"


async def test_a_person_goes_by_the_last_name_that_was_seen(stage: Stage, shared: Driven, pair: Pair) -> None:
    """Once the other person has written, our messages to them bear their name, however they are addressed."""
    maria = await stage.network.phone("Maria")

    async def sent_to(wa_id: str, chat: str) -> str:
        await shared.send(pair.alice, wa_id, chat, "sent")
        sent = await shared.outcome(pair.alice, wa_id)
        assert isinstance(sent, told.Sent)
        return sent.chat_name

    assert await sent_to("3EB0STRANGER", jid(maria)) == ""
    theirs = await stage.say(maria, pair.alice_number, "Maria here")
    got = await shared.event(pair.alice, told.Message, lambda e: e.wa_id == theirs)
    assert got.push_name == "Maria"
    async with asyncio.timeout(20):  # the name is stored beside the message
        while await sent_to("3EB0BYNUMBER", jid(maria)) != "Maria":
            pass
    assert await sent_to("3EB0BYLID", await stage.lid(maria)) == "Maria"
    wa_id = await stage.say(pair.alice_number, maria, "typed")
    typed = await shared.event(pair.alice, told.Message, lambda e: e.wa_id == wa_id)
    assert (typed.chat_name, typed.push_name) == ("Maria", "Owner of alice")


async def test_quote_mention_and_edit(stage: Stage, shared: Driven, pair: Pair) -> None:
    """A reply names what it refers to, and an edit names the message whose text it replaces."""
    await shared.send(pair.bob, "3EB0QUESTION", jid(pair.alice_number), "question")
    await shared.text(pair.alice, "question")

    async def give(wa_id: str, content: port.Text) -> port.MessageReceived:
        raw = building.message_of(pair.bob_number, content, 1_700_000_000_000)
        await shared.done(Send(pair.alice, Outgoing(wa_id, jid(pair.bob_number), raw)))
        return read(await shared.event(pair.bob, told.Message, lambda e: e.wa_id == wa_id))

    quote = port.Quote("3EB0QUESTION", pair.bob_number, "question")
    reply = await give("3EB0REPLY", port.Text("answer", quote=quote, mentioned=(pair.bob_number,)))
    assert (reply.content, reply.quoted_wa_id, reply.quoted_sender) == (
        port.TextReceived("answer"), "3EB0QUESTION", pair.bob_number,
    )  # fmt: skip
    edit = await give("3EB0EDIT", port.Text("better answer", edits_wa_id="3EB0REPLY"))
    assert (edit.content, edit.is_edit, edit.edited_wa_id) == (port.TextReceived("better answer"), True, "3EB0REPLY")
    shown = [one for one in await stage.messages(pair.bob_number) if one["id"] == "3EB0EDIT"]
    assert shown


async def test_typing_before_a_send(stage: Stage, shared: Driven, pair: Pair) -> None:
    """With typing_s the other side sees somebody typing first, and the send comes after that time."""
    started_s = asyncio.get_running_loop().time()
    before = len(shared.events(pair.bob, told.Presence))
    await shared.send(pair.alice, "3EB0TYPED", jid(pair.bob_number), "typed", typing_s=0.5)
    await shared.until(lambda: len(shared.events(pair.bob, told.Presence)) > before)
    typing = shared.events(pair.bob, told.Presence)[before]
    assert typing.state == "composing"
    assert jid(pair.alice_number) in {typing.chat, typing.chat_alt}
    await shared.outcome(pair.alice, "3EB0TYPED")
    assert asyncio.get_running_loop().time() - started_s >= 0.5
    numbers = [news.number for news in shared.happened if isinstance(news.event, told.Presence)]
    assert set(numbers) == {0}  # nobody commits who types


async def test_sends_that_cannot_be(stage: Stage, shared: Driven, pair: Pair) -> None:
    """No address, no message, nobody: refused for good, each with an outcome, and the next one goes out."""
    nobody = jid("5599900000000")
    refused = {
        "3EB0ADDRESS": Outgoing("3EB0ADDRESS", "not an address", b"\x0a\x02hi"),
        "3EB0EMPTY": Outgoing("3EB0EMPTY", "", b"\x0a\x02hi"),
        "3EB0BYTES": Outgoing("3EB0BYTES", jid(pair.bob_number), b"\xff\xff"),
        "3EB0NOBODY": Outgoing("3EB0NOBODY", nobody, b"\x0a\x02hi"),
        "3EB0NOGROUP": Outgoing("3EB0NOGROUP", "12345@g.us", b"\x0a\x02hi"),
    }
    for message in refused.values():
        await shared.done(Send(pair.alice, message))
    await shared.send(pair.alice, "3EB0WELL", jid(pair.bob_number), "well")
    assert isinstance(await shared.outcome(pair.alice, "3EB0WELL"), told.Sent)
    outcomes = {wa_id: shared.outcomes(pair.alice, wa_id) for wa_id in refused}
    kinds = {wa_id: [getattr(one, "kind", "sent") for one in told_] for wa_id, told_ in outcomes.items()}
    assert kinds == {wa_id: ["refused"] for wa_id in refused}


async def test_closing_gives_back_what_waits(stage: Stage, shared: Driven) -> None:
    """The send under way goes out, those behind it come back to be given again; none twice, none without an outcome."""
    mine = stage.fresh("gives-back")
    await stage.paired(shared, mine)
    other = await stage.network.phone("Other")
    ids = [f"3EB0BACK{n}" for n in range(6)]
    for wa_id in ids:
        await shared.send(mine, wa_id, jid(other), wa_id, typing_s=60.0)
    await shared.done(CloseSession(mine))
    outcomes = [
        (event.wa_id, getattr(event, "kind", "sent")) for wa_id in ids for event in shared.outcomes(mine, wa_id)
    ]
    assert outcomes == [(ids[0], "sent"), *((wa_id, "retry") for wa_id in ids[1:])]
    assert await stage.texts(other) == ids[:1]
    await stage.reopen(shared, mine)
    for wa_id in ids:  # the first as well: it is the same message
        await shared.send(mine, wa_id, jid(other), wa_id)
    await shared.outcome(mine, ids[-1])
    await shared.event(mine, told.Receipt, lambda e: ids[-1] in e.wa_ids)
    assert await stage.texts(other) == ids


async def test_what_is_too_long_for_a_line_comes_as_a_file(stage: Stage, shared: Driven, pair: Pair) -> None:
    """A message of any length arrives whole, and so does the one after it; the file is the host's to remove."""
    long = "x" * 1_000_000
    wa_id = await stage.say(pair.bob_number, pair.alice_number, long)
    await stage.say(pair.bob_number, pair.alice_number, "and then")
    await shared.text(pair.alice, "and then")
    got = await shared.event(pair.alice, told.Message, lambda e: e.wa_id == wa_id)
    assert got.raw == b""
    assert Path(got.file).is_relative_to(stage.folder / "shared")
    assert mode_of(got.file) == 0o600
    assert text_of(got) == long


async def test_files_that_nobody_took_go_at_the_next_start(stage: Stage) -> None:
    """What a killed machine left is nobody's: WhatsApp brings the message again, and it gets a file of its own."""
    mine = stage.fresh("spilled")
    long = "y" * 1_000_000
    async with stage.machine("spilled") as first:
        number = await stage.paired(first, mine)
        first.held.add(mine)
        await stage.say(await stage.network.phone("Other"), number, long)
        left = (await first.text(mine, long)).file
        first.process.kill()
    assert mode_of(left)
    async with stage.machine("spilled") as second:
        assert mode_of(left) is None
        await stage.reopen(second, mine)
        await second.text(mine, long)


async def test_what_cannot_be_decrypted(stage: Stage, shared: Driven) -> None:
    """It is told as that, its sender is asked for it again, and then it is there."""
    mine = stage.fresh("corrupt")
    number = await stage.paired(shared, mine)
    other = await stage.network.phone("Other")
    await stage.say(other, number, "well")
    await shared.text(mine, "well")
    await stage.network.fault("corrupt", number=number)
    wa_id = await stage.say(other, number, "broken")
    undecryptable = await shared.event(mine, told.Undecryptable)
    assert (undecryptable.wa_id, undecryptable.push_name) == (wa_id, "Other")
    got = await shared.text(mine, "broken", 90)
    assert (got.wa_id, got.retries > 0) == (wa_id, True)


async def test_any_kind_of_message(stage: Stage, shared: Driven, pair: Pair) -> None:
    """The bytes that are told are the message's, whatever is in it: the machine knows no kinds."""
    content = e2e.Message(contactMessage=e2e.ContactMessage(displayName="Zé", vcard="BEGIN:VCARD\nEND:VCARD"))
    await shared.give(pair.alice, "3EB0CARD", jid(pair.bob_number), content)
    got = await shared.event(pair.bob, told.Message, lambda e: e.wa_id == "3EB0CARD")
    assert e2e.Message.FromString(got.raw).contactMessage == content.contactMessage
