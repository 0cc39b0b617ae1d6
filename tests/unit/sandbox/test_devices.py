"""Device lists, prekeys, who hears of a change, and unlinking."""

from tests.unit.sandbox.fake_network import FakeLink, FakePhone, Town, error_code
from tomada.sandbox.network_devices import mark_ready
from tomada.sandbox.network_ports import COMPANION_READY
from tomada.sandbox.node import Attrs, Jid, Node, element, lid_jid


async def ask(town: Town, phone: FakePhone, jids: list[Jid], *what: str) -> tuple[Node, ...]:
    """A usync request; the users of its answer."""
    attrs: Attrs = {"sid": "1", "mode": "query", "context": "message"}
    query = element("query", {}, [element(tag) for tag in what])
    users = element("list", {}, [element("user", {"jid": jid}) for jid in jids])
    answer = await town.iq(phone, "usync", "get", element("usync", attrs, [query, users]))
    found = answer.child("usync", "list")
    assert found is not None
    return found.nodes


async def test_usync_lists_devices_and_hidden_number(town: Town) -> None:
    """By number or by hidden number; the phone is device 0; unknown ones come back empty."""
    ann, ben = await town.phone("1001"), await town.phone("1002")
    town.companion(ben)

    by_pn, by_lid, unknown = await ask(town, ann, [ben.pn, ben.lid, lid_jid("4")], "devices", "lid")

    for user in (by_pn, by_lid):
        listed = user.child("devices", "device-list")
        assert listed is not None
        assert [node.text("id") for node in listed.nodes] == ["0", "1"]
        lid = user.child("lid")
        assert lid is not None
        assert lid.attrs["val"] == ben.lid
    assert unknown.nodes == ()


async def test_usync_says_whether_a_number_exists(town: Town) -> None:
    """The text is echoed as it was typed."""
    ann = await town.phone("1001")
    await town.phone("1002")
    query = element("query", {}, [element("contact")])
    users = [element("user", {}, [element("contact", {}, text)]) for text in (b"+1002", b"+1999")]

    answer = await town.iq(ann, "usync", "get", element("usync", {}, [query, element("list", {}, users)]))

    found = answer.child("usync", "list")
    assert found is not None
    contacts = [user.child("contact") for user in found.nodes]
    assert [(c.text("type"), c.data) for c in contacts if c] == [("in", b"+1002"), ("out", b"+1999")]


async def test_a_prekey_is_given_once_and_the_signed_one_always(town: Town) -> None:
    """The first asker gets a one-time key, the second only the signed prekey; an unknown device 404."""
    ann, ben = await town.phone("1001"), await town.phone("1002")
    key = element("key", {}, [element("id", {}, b"\0\0\5"), element("value", {}, b"k" * 32)])
    await town.iq(ben, "encrypt", "set", element("list", {}, [key]))
    wanted = element("key", {}, [element("user", {"jid": jid}) for jid in (ben.lid, ben.lid.with_device(9))])

    first, second = [(await town.iq(ann, "encrypt", "get", wanted)).child("list") for _ in range(2)]

    assert first is not None
    assert second is not None
    given = first.nodes[0].child("key", "value")
    assert given is not None
    assert given.data == b"k" * 32
    assert second.nodes[0].child("key") is None
    assert second.nodes[0].child("skey") is not None
    assert error_code(first.nodes[1]) == 404


async def test_whoever_has_seen_a_device_list_hears_of_changes(town: Town) -> None:
    """Watchers are told by number and by hidden number; strangers are not."""
    ann, ben, eve = await town.phone("1001"), await town.phone("1002"), await town.phone("1003")
    town.companion(ben)
    await ask(town, ann, [ben.lid], "devices")

    assert await town.network.unlink("1002", 1)

    await town.until(lambda: len(ann.of("notification", "devices")) == 2)
    assert [n.attrs["from"] for n in ann.of("notification", "devices")] == [ben.pn, ben.lid]
    await town.until(lambda: ben.of("notification", "devices"))
    assert not eve.got


async def test_unlinking_tells_the_device_and_erases_its_keys(town: Town) -> None:
    """Stream error 401 with `device_removed`; prekeys and queue are gone; a second time there is nothing."""
    ben = await town.phone("1002")
    town.companion(ben)
    town.network.storage.add_prekeys("1002:1", [(1, b"k" * 32)])
    link = FakeLink()
    town.network.world.links["1002:1"] = link

    assert await town.network.unlink("1002", 1)

    assert link.last is not None
    assert (link.last.text("code"), link.closed) == ("401", True)
    assert town.network.storage.count_prekeys("1002:1") == 0
    assert [device.id for device in town.network.devices("1002")] == [0]
    assert not await town.network.unlink("1002", 1)
    assert not await town.network.unlink("1002", 0)


async def test_the_phone_learns_once_that_a_companion_is_ready(town: Town) -> None:
    """However often the companion logs in."""
    ben = await town.phone("1002")
    desk = town.companion(ben)

    for _ in range(2):
        with town.network.world.work():
            mark_ready(town.network.world, desk)

    await town.until(lambda: ben.of("notification", COMPANION_READY))
    assert [n.attrs["device"] for n in ben.of("notification", COMPANION_READY)] == [desk.lid]
