"""Messages and receipts: who gets what, and when the network forgets it."""

from tests.unit.sandbox.fake_network import FakeLink, Town
from tomada.sandbox.codec import decode
from tomada.sandbox.login import handle_passive
from tomada.sandbox.network_phone import PhoneLink
from tomada.sandbox.node import Jid, Node, element, lid_jid
from tomada.sandbox.relay_receipts import handle_ack


async def test_a_message_reaches_each_addressed_device_and_is_acknowledged(town: Town) -> None:
    """The receiver sees the sender's hidden number, phone number and push name."""
    ann, ben = await town.phone("1001", "Ann"), await town.phone("1002")

    ack = await town.send(ann, ben.lid, [ben.lid])

    await town.until(lambda: ben.of("message"))
    (message,) = ben.of("message")
    assert (ack.tag, ack.text("class"), ack.text("id"), "error" in ack.attrs) == ("ack", "message", "M1", False)
    assert (message.attrs["from"], message.attrs["sender_pn"]) == (ann.lid, ann.pn)
    assert message.text("notify") == "Ann"


async def test_own_devices_get_a_copy_that_names_the_chat(town: Town) -> None:
    """The copy for the sender's companion carries the chat as recipient."""
    ann, ben = await town.phone("1001"), await town.phone("1002")
    desk = town.companion(ann)

    await town.send(ann, ben.lid, [ben.lid, desk.lid])

    (stored,) = stored_for(town, "1001:1")
    assert stored.attrs["recipient"] == ben.lid


async def test_to_nobody_is_refused(town: Town) -> None:
    """An unknown number or group gives an ack with an error."""
    ann = await town.phone("1001")

    assert (await town.send(ann, lid_jid("5"), [])).text("error") == "404"
    assert (await town.send(ann, Jid("77", "g.us"), [])).text("error") == "404"


async def test_a_message_waits_for_its_device_until_it_is_acknowledged(town: Town) -> None:
    """It is stored, handed out after `active`, and gone after the receipt."""
    ann, ben = await town.phone("1001"), await town.phone("1002")
    desk = town.companion(ben)
    await town.send(ann, ben.lid, [ben.lid, desk.lid])
    link = FakeLink()
    town.network.world.links["1002:1"] = link

    with town.network.world.work():
        handle_passive(town.network.world, desk, element("iq", {}, [element("active")]))

    assert [n.tag for n in link.got] == ["ib", "message", "ib", "notification"]
    assert town.network.storage.count_queued("1002:1") == 1
    receipt = element("receipt", {"id": "M1", "to": ann.lid, "type": "inactive"})
    town.network.handle(desk, receipt, link.push)
    assert town.network.storage.count_queued("1002:1") == 0
    assert link.got[-1].tag == "ack"
    await town.until(lambda: ann.of("receipt", "inactive"))


async def test_a_retry_goes_to_the_sending_device_only(town: Town) -> None:
    """Other receipts go to all devices of the sender."""
    ann, ben = await town.phone("1001"), await town.phone("1002")
    desk = town.companion(ann)
    retry = element("receipt", {"id": "M1", "to": desk.lid, "type": "retry"}, [element("retry", {"count": 1})])

    await town.network.submit(ben, retry)
    await town.network.submit(ben, element("receipt", {"id": "M1", "to": desk.lid}))

    await town.until(lambda: ann.of("receipt"))
    assert [n.text("type") for n in stored_for(town, "1001:1")] == ["retry", ""]
    assert [n.text("type") for n in ann.of("receipt")] == [""]


async def test_read_receipts_reach_the_readers_other_devices(town: Town) -> None:
    """With the chat as recipient, so that they know what was read."""
    ann, ben = await town.phone("1001"), await town.phone("1002")
    town.companion(ben)

    await town.network.submit(ben, element("receipt", {"id": "M1", "to": ann.lid, "type": "read"}))

    (own,) = stored_for(town, "1002:1")
    assert (own.attrs["from"], own.attrs["recipient"]) == (ben.lid, ann.lid)
    await town.until(lambda: ann.of("receipt", "read"))


async def test_one_receipt_settles_all_ids_of_its_list(town: Town) -> None:
    """A batch read receipt forgets every message it names."""
    ann, ben = await town.phone("1001"), await town.phone("1002")
    desk = town.companion(ben)
    for number in range(3):
        await town.send(ann, ben.lid, [desk.lid], f"M{number}")
    items = [element("item", {"id": f"M{number}"}) for number in (1, 2)]

    town.network.handle(
        desk, element("receipt", {"id": "M0", "to": ann.lid, "type": "read"}, [element("list", {}, items)]), print
    )

    assert town.network.storage.count_queued("1002:1") == 0


async def test_an_ack_forgets_exactly_the_receipt_it_names(town: Town) -> None:
    """Two receipts with one id from two devices are two stanzas."""
    ann, ben = await town.phone("1001"), await town.phone("1002")
    desk, bens = town.companion(ann), town.companion(ben)
    for device in (0, 1):
        sender = town.network.world.accounts["1002"].devices[device]
        town.network.handle(sender, element("receipt", {"id": "M1", "to": desk.lid}), lambda _: None)
    assert town.network.storage.count_queued("1001:1") == 2

    handle_ack(town.network.world, desk, element("ack", {"class": "receipt", "id": "M1", "to": bens.lid, "type": None}))

    assert [n.attrs["from"] for n in stored_for(town, "1001:1")] == [ben.lid]
    assert ann.number


async def test_no_ack_keeps_silent_but_delivers(town: Town) -> None:
    """The fault is for senders only."""
    ann, ben = await town.phone("1001"), await town.phone("1002")
    town.network.apply_fault({"kind": "no-ack", "number": "1001"})

    content = [element("participants", {}, [element("to", {"jid": ben.lid}, [element("enc", {}, b"x")])])]
    answer = await town.network.submit(ann, element("message", {"id": "M1", "to": ben.lid}, content))

    assert answer is None
    await town.until(lambda: ben.of("message"))


async def test_a_phone_that_fails_does_not_stop_the_others(town: Town) -> None:
    """Its stanza is logged and forgotten; the next one is handed over."""
    ann, ben = await town.phone("1001"), await town.phone("1002")
    ben.broken = True
    await town.send(ann, ben.lid, [ben.lid], "M1")
    await town.until(lambda: not town.network.storage.count_queued("1002:0"))
    ben.broken = False

    await town.send(ann, ben.lid, [ben.lid], "M2")

    await town.until(lambda: ben.of("message"))
    assert [n.text("id") for n in ben.of("message")] == ["M2"]


async def test_what_a_phone_did_not_take_is_there_after_a_restart(town: Town) -> None:
    """A stanza stored but not handed over before a crash is handed over when the phone is attached again."""
    ann, ben = await town.phone("1001"), await town.phone("1002")
    link = town.network.world.links.pop("1002:0")
    assert isinstance(link, PhoneLink)
    await link.stop()
    await town.send(ann, ben.lid, [ben.lid])

    again = await town.phone("1002")

    await town.until(lambda: again.of("message"))


def stored_for(town: Town, owner: str) -> list[Node]:
    """What waits for a device."""
    return [decode(body) for _, body in town.network.storage.queued(owner, 100)]
