"""A machine over its pipes, against the sandbox: pairing, messages both ways, and how a session ends."""

import asyncio

from tests.integration.machines.bench import Bench
from tests.integration.machines.conftest import Pair
from tests.integration.machines.driven import Driven, until
from tomada.engine import port
from tomada.machines.inside_pipe import CUT
from tomada.machines.protocol import LINE_BYTES_MAX, VERSION, CloseSession, Logout, Probe, RequestPhoneCode, Send


async def test_says_hello(shared: Driven) -> None:
    """The first line names the protocol's version, the process and the engine."""
    assert shared.hello is not None
    assert (shared.hello.version, shared.hello.pid) == (VERSION, shared.process.pid)
    assert shared.hello.engine == "neonize 0.5.2"


async def test_pairs_by_qr(bench: Bench, shared: Driven) -> None:
    """A phone that scans the QR shows the session name; Paired is told before Connected, and is journaled."""
    number = await bench.paired(shared, "by-qr", "Loja do João")
    told = [h for h in shared.happened if h.instance_id == "by-qr"]
    kinds = [type(h.event) for h in told]
    assert kinds.index(port.QrIssued) < kinds.index(port.Paired) < kinds.index(port.Connected)
    paired = next(h for h in told if isinstance(h.event, port.Paired))
    assert paired.journal is not None
    assert isinstance(paired.event, port.Paired)
    assert paired.event.phone == number
    assert paired.event.lid.endswith("@lid")
    phone = await bench.call("GET", f"phones/{number}")
    assert [device["name"] for device in phone["linkedDevices"]] == ["Loja do João"]


async def test_our_own_name_follows_the_pairing(bench: Bench, shared: Driven) -> None:
    """The phone says it after the login; another one is noticed with the next probe. Connected is told once."""

    def names() -> list[str]:
        told = [h.event for h in shared.happened if h.instance_id == "named"]
        return [event.push_name for event in told if isinstance(event, port.Connected | port.Named) and event.push_name]

    number = await bench.paired(shared, "named")
    await until(lambda: names() == ["Owner of named"])

    await bench.call("POST", "phones", {"number": number, "name": "Loja A"})
    async with asyncio.timeout(20):  # the phone tells its devices in its own time
        while len(names()) == 1:
            assert (await shared.ask(Probe("named"))).value == "yes"
    assert names() == ["Owner of named", "Loja A"]
    assert len(shared.events("named", port.Connected)) == 1


async def test_pairs_by_code(bench: Bench, shared: Driven) -> None:
    """A code that is entered on the phone pairs as the QR would."""
    number = await bench.phone()
    await bench.open(shared, "by-code")
    await shared.event("by-code", port.QrIssued)
    answer = await shared.ask(RequestPhoneCode("by-code", number))
    assert answer.value is not None
    await bench.call("POST", f"phones/{number}/link-code", {"code": answer.value})
    assert (await shared.event("by-code", port.Connected)).phone == number


async def test_no_code_outside_a_round(shared: Driven, pair: Pair) -> None:
    """A session that is paired, or not there, refuses to give a pairing code."""
    for instance_id in (pair.alice, "nobody"):
        assert (await shared.ask(RequestPhoneCode(instance_id, "15550009999"))).error


async def test_text_and_its_receipts(bench: Bench, shared: Driven, pair: Pair) -> None:
    """A sent text arrives on the other side, and its receipts are told after MessageSent."""
    await shared.send(pair.alice, "z-hello", pair.bob_number, "olá, Bob")
    sent = await shared.event(pair.alice, port.MessageSent, lambda e: e.zaap_id == "z-hello")
    got = await shared.event(pair.bob, port.MessageReceived, lambda e: e.wa_id == sent.wa_id)
    assert got.content == port.TextReceived("olá, Bob")
    assert (got.chat, got.sender, got.from_me, got.is_group) == (pair.alice_number, pair.alice_number, False, False)
    assert abs(got.at_ms - sent.at_ms) < 60_000
    await bench.call("POST", f"phones/{pair.bob_number}/read", {"ids": [sent.wa_id]})
    ours = (sent.wa_id,)
    read = await shared.event(pair.alice, port.ReceiptReceived, lambda e: e.kind == "read" and e.wa_ids == ours)
    got_it = await shared.event(pair.alice, port.ReceiptReceived, lambda e: e.kind == "delivered" and e.wa_ids == ours)
    assert read.chat == got_it.chat == pair.bob_number
    order = [type(h.event) for h in shared.happened if sent.wa_id in repr(h.event) and h.instance_id == pair.alice]
    assert order[0] is port.MessageSent


async def test_a_sent_message_names_its_chat_as_a_received_one_does(shared: Driven, pair: Pair, bench: Bench) -> None:
    """The chat's hidden id, and our own, are the same whether the API sends, the phone types or the other writes."""
    bob_lid = (await bench.call("GET", f"phones/{pair.bob_number}"))["lid"]
    alice_lid = (await bench.call("GET", f"phones/{pair.alice_number}"))["lid"]
    for zaap_id, chat in (("z-number", pair.bob_number), ("z-lid", bob_lid)):
        await shared.send(pair.alice, zaap_id, chat, zaap_id)
        sent = await shared.event(pair.alice, port.MessageSent, lambda e, z=zaap_id: e.zaap_id == z)  # type: ignore[misc]
        assert (sent.chat_lid, sent.sender_lid) == (bob_lid, alice_lid)
    typed = await bench.call("POST", f"phones/{pair.alice_number}/send", {"to": pair.bob_number, "text": "typed"})
    mine = await shared.event(pair.alice, port.MessageReceived, lambda e: e.wa_id == typed["id"])
    assert (mine.chat_lid, mine.sender_lid) == (bob_lid, alice_lid)


async def test_a_text_longer_than_a_line(bench: Bench, shared: Driven, pair: Pair) -> None:
    """A text of any length arrives, cut if it must be, and so does the one after it."""
    texts = ("x" * (LINE_BYTES_MAX - 100), "and then")  # the rest of the line is longer than 100
    for text in texts:
        await bench.call("POST", f"phones/{pair.bob_number}/send", {"to": pair.alice_number, "text": text})
    await shared.event(pair.alice, port.MessageReceived, lambda e: e.content == port.TextReceived("and then"))
    got = shared.events(pair.alice, port.MessageReceived)[-2].content
    assert isinstance(got, port.TextReceived)
    assert got.message[:3] == "xxx"
    assert got.message[-len(CUT) :] == CUT


async def test_sends_keep_their_order(shared: Driven, pair: Pair) -> None:
    """Sends of one session leave one by one in the order given, each with one outcome."""
    texts = [f"ordered {n}" for n in range(50)]
    await asyncio.gather(*(shared.send(pair.alice, text, pair.bob_number, text) for text in texts))
    await shared.event(pair.bob, port.MessageReceived, lambda e: e.content == port.TextReceived(texts[-1]))
    await shared.event(pair.alice, port.MessageSent, lambda e: e.zaap_id == texts[-1])
    got = [e.content.message for e in shared.events(pair.bob, port.MessageReceived) if hasattr(e.content, "message")]
    assert [text for text in got if text.startswith("ordered")] == texts
    outcomes = [e.zaap_id for e in shared.events(pair.alice, port.MessageSent)]
    assert [zaap_id for zaap_id in outcomes if zaap_id.startswith("ordered")] == texts


async def test_own_phone_writes(bench: Bench, shared: Driven, pair: Pair) -> None:
    """What the account's own phone writes is told as from_me, in the chat of the other person."""
    answer = await bench.call(
        "POST", f"phones/{pair.alice_number}/send", {"to": pair.bob_number, "text": "from my phone"}
    )
    mine = await shared.event(pair.alice, port.MessageReceived, lambda e: e.wa_id == answer["id"])
    assert (mine.from_me, mine.chat, mine.sender) == (True, pair.bob_number, pair.alice_number)
    other = await shared.event(pair.bob, port.MessageReceived, lambda e: e.wa_id == answer["id"])
    assert (other.from_me, other.chat) == (False, pair.alice_number)


async def test_group(bench: Bench, shared: Driven, pair: Pair) -> None:
    """Group messages go both ways under `<id>-group`, each told once though the engine tells some twice."""
    members = [pair.alice_number, pair.bob_number]
    third = await bench.phone("Third")
    made = await bench.call("POST", "groups", {"owner": third, "subject": "Team", "members": members})
    group = made["id"].partition("@")[0] + "-group"
    first = await bench.call("POST", f"phones/{third}/send", {"to": group, "text": "welcome"})
    got = await shared.event(pair.alice, port.MessageReceived, lambda e: e.wa_id == first["id"])
    assert (got.chat, got.is_group, got.sender, got.chat_lid) == (group, True, third, None)
    await shared.send(pair.alice, "z-group", group, "hi all")
    sent = await shared.event(pair.alice, port.MessageSent, lambda e: e.zaap_id == "z-group")
    assert (sent.chat_lid, sent.sender_lid) == (None, (await shared.event(pair.alice, port.Connected)).lid)
    got = await shared.event(pair.bob, port.MessageReceived, lambda e: e.wa_id == sent.wa_id)
    assert (got.chat, got.sender, got.content) == (group, pair.alice_number, port.TextReceived("hi all"))
    receipt = await shared.event(pair.alice, port.ReceiptReceived, lambda e: sent.wa_id in e.wa_ids)
    assert receipt.is_group
    assert receipt.participant in {pair.bob_number, third}
    await shared.send(pair.bob, "z-after", pair.alice_number, "after the group")
    await shared.event(pair.alice, port.MessageReceived, lambda e: e.content == port.TextReceived("after the group"))
    for wa_id in (first["id"], sent.wa_id):
        told = [e for e in shared.events(pair.bob, port.MessageReceived) if e.wa_id == wa_id]
        assert len(told) == 1


async def test_a_group_goes_by_its_subject(bench: Bench, shared: Driven, pair: Pair) -> None:
    """Received, typed on the own phone or sent: the group's subject is the chat's name; a new one counts at once."""
    third = await bench.phone("Third")
    made = await bench.call("POST", "groups", {"owner": third, "subject": "Buyers", "members": [pair.alice_number]})
    group = made["id"].partition("@")[0] + "-group"

    async def heard(text: str) -> str:
        await bench.call("POST", f"phones/{third}/send", {"to": group, "text": text})
        content = port.TextReceived(text)
        return (await shared.event(pair.alice, port.MessageReceived, lambda e: e.content == content)).chat_name

    assert await heard("first in Buyers") == "Buyers"
    typed = await bench.call("POST", f"phones/{pair.alice_number}/send", {"to": group, "text": "typed"})
    assert (
        await shared.event(pair.alice, port.MessageReceived, lambda e: e.wa_id == typed["id"])
    ).chat_name == "Buyers"
    await bench.call("POST", f"groups/{made['id']}/subject", {"by": third, "subject": "Sellers"})
    assert await heard("first in Sellers") == "Sellers"
    await shared.send(pair.alice, "z-subject", group, "sent")
    sent = await shared.event(pair.alice, port.MessageSent, lambda e: e.zaap_id == "z-subject")
    assert sent.chat_name == "Sellers"


async def test_the_first_message_of_a_group_may_be_our_own(bench: Bench, shared: Driven, pair: Pair) -> None:
    """A group that is sent to before anything was heard from it has its name, too."""
    third = await bench.phone("Third")
    made = await bench.call("POST", "groups", {"owner": third, "subject": "Silent", "members": [pair.alice_number]})
    await shared.send(pair.alice, "z-silent", made["id"].partition("@")[0] + "-group", "sent")
    sent = await shared.event(pair.alice, port.MessageSent, lambda e: e.zaap_id == "z-silent")
    assert sent.chat_name == "Silent"


async def test_a_person_goes_by_the_last_name_that_was_seen(bench: Bench, shared: Driven, pair: Pair) -> None:
    """Once the other person has written, our messages to them bear their name, however they are addressed."""
    maria = await bench.phone("Maria")
    lid = (await bench.call("GET", f"phones/{maria}"))["lid"]
    await shared.send(pair.alice, "z-stranger", maria, "who are you?")
    sent = await shared.event(pair.alice, port.MessageSent, lambda e: e.zaap_id == "z-stranger")
    assert sent.chat_name == ""
    theirs = await bench.call("POST", f"phones/{maria}/send", {"to": pair.alice_number, "text": "Maria"})
    assert (
        await shared.event(pair.alice, port.MessageReceived, lambda e: e.wa_id == theirs["id"])
    ).chat_name == "Maria"

    async def typed() -> port.MessageReceived:
        answer = await bench.call("POST", f"phones/{pair.alice_number}/send", {"to": maria, "text": "typed"})
        return await shared.event(pair.alice, port.MessageReceived, lambda e: e.wa_id == answer["id"])

    async with asyncio.timeout(20):  # the engine stores the name beside the message
        while (mine := await typed()).chat_name == "":
            pass
    assert mine.chat_name == "Maria"
    assert mine.push_name == "Owner of alice"
    for zaap_id, chat in (("z-by-number", maria), ("z-by-lid", lid)):
        await shared.send(pair.alice, zaap_id, chat, "sent")
        sent = await shared.event(pair.alice, port.MessageSent, lambda e, z=zaap_id: e.zaap_id == z)  # type: ignore[misc]
        assert sent.chat_name == "Maria"


async def test_quote_mention_and_edit(shared: Driven, pair: Pair) -> None:
    """A reply names what it refers to, and an edit names the message whose text it replaces."""
    await shared.send(pair.bob, "z-first", pair.alice_number, "question")
    first = await shared.event(pair.bob, port.MessageSent, lambda e: e.zaap_id == "z-first")
    quote = port.Quote(first.wa_id, pair.bob_number, "question")
    reply = port.Text("answer", quote=quote, mentioned=(pair.bob_number,))
    await shared.ask(Send(pair.alice, "z-reply", pair.bob_number, reply))
    got = await shared.event(pair.bob, port.MessageReceived, lambda e: e.content == port.TextReceived("answer"))
    assert (got.quoted_wa_id, got.quoted_sender) == (first.wa_id, pair.bob_number)
    edit = port.Text("better answer", edits_wa_id=got.wa_id)
    await shared.ask(Send(pair.alice, "z-edit", pair.bob_number, edit))
    got2 = await shared.event(pair.bob, port.MessageReceived, lambda e: e.content == port.TextReceived("better answer"))
    assert (got2.is_edit, got2.edited_wa_id) == (True, got.wa_id)


async def test_typing_before_a_send(bench: Bench, shared: Driven, pair: Pair) -> None:
    """With typing_s the other side sees somebody typing first, and the send comes after that time."""
    started_s = asyncio.get_running_loop().time()
    await shared.ask(Send(pair.alice, "z-typed", pair.bob_number, port.Text("typed", typing_s=0.5)))
    await shared.event(pair.bob, port.ChatPresence, lambda e: (e.chat, e.status) == (pair.alice_number, "COMPOSING"))
    await shared.event(pair.alice, port.MessageSent, lambda e: e.zaap_id == "z-typed")
    assert asyncio.get_running_loop().time() - started_s >= 0.5


async def test_nonsense_address(shared: Driven, pair: Pair) -> None:
    """A send to something that is no address fails for good: not unknown, not to be tried again."""
    await shared.send(pair.alice, "z-bad", "not a number", "x")
    failed = await shared.event(pair.alice, port.MessageFailed, lambda e: e.zaap_id == "z-bad")
    assert (failed.unknown, failed.retry) == (False, False)


async def test_close_and_reopen(bench: Bench, shared: Driven) -> None:
    """Closing keeps the keys: the session comes back without a QR and receives what came meanwhile."""
    number = await bench.paired(shared, "reopened")
    qr_count = len(shared.events("reopened", port.QrIssued))
    assert (await shared.ask(CloseSession("reopened"))).error is None
    assert (await shared.ask(CloseSession("reopened"))).error is None  # harmless
    assert (await shared.ask(Send("reopened", "z-closed", number, port.Text("x")))).error
    other = await bench.phone()
    await bench.call("POST", f"phones/{other}/send", {"to": number, "text": "while away"})
    await bench.open(shared, "reopened")
    await shared.event("reopened", port.MessageReceived, lambda e: e.content == port.TextReceived("while away"))
    assert len(shared.events("reopened", port.QrIssued)) == qr_count
    assert (await shared.open("reopened", bench.store("reopened"))).error  # open already


async def test_logout(bench: Bench, shared: Driven) -> None:
    """Logging out makes the device vanish from the phone; the next opening shows a QR code."""
    number = await bench.paired(shared, "leaver")
    before = len(shared.events("leaver", port.QrIssued))
    assert (await shared.ask(Logout("leaver"))).error is None
    assert (await bench.call("GET", f"phones/{number}"))["linkedDevices"] == []
    await bench.open(shared, "leaver")
    await shared.event("leaver", port.QrIssued, lambda _: len(shared.events("leaver", port.QrIssued)) > before)


async def test_unlinked_by_the_phone(bench: Bench, shared: Driven) -> None:
    """Unlinking on the phone is told as LoggedOut, journaled."""
    number = await bench.paired(shared, "unlinked")
    device = (await bench.call("GET", f"phones/{number}"))["linkedDevices"][0]["device"]
    await bench.call("POST", f"phones/{number}/unlink", {"device": device})
    await shared.event("unlinked", port.LoggedOut)
    told = next(h for h in shared.happened if isinstance(h.event, port.LoggedOut) and h.instance_id == "unlinked")
    assert told.journal is not None


async def test_probe(bench: Bench, shared: Driven) -> None:
    """A session that answers keepalives and nothing else is found deaf; a well one is alive."""
    number = await bench.paired(shared, "probed")
    assert (await shared.ask(Probe("probed"))).value == "yes"
    await bench.fault("deaf", number=number)
    assert (await shared.ask(Probe("probed"))).value == "no"
    await shared.ask(CloseSession("probed"))
    await bench.open(shared, "probed")
    await shared.event("probed", port.Connected, lambda _: len(shared.events("probed", port.Connected)) == 2)
    assert (await shared.ask(Probe("probed"))).value == "yes"


async def test_short_breaks_mend_themselves(bench: Bench, shared: Driven) -> None:
    """A cut connection and the stream errors 515 and 503 are followed by Connected without anybody's help."""
    number = await bench.paired(shared, "cut")
    breaks: tuple[dict[str, object], ...] = (
        {"kind": "drop"},
        {"kind": "stream-error", "code": 515},
        {"kind": "stream-error", "code": 503},
    )
    for fault in breaks:
        count = len(shared.events("cut", port.Connected))
        await bench.call("POST", "faults", {**fault, "number": number})
        await until(lambda count=count: len(shared.events("cut", port.Connected)) > count)  # type: ignore[misc]
    assert shared.events("cut", port.Disconnected)
