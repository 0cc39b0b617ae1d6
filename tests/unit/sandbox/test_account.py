"""Presence, privacy, block list, pictures, about text and app state."""

from tests.unit.sandbox.fake_network import FakePhone, Town, error_code
from tomada.sandbox.node import Attrs, Jid, Node, element
from tomada.sandbox.protos import server_sync


async def test_a_subscriber_hears_when_presence_changes(town: Town) -> None:
    """The present state first, then each change, no repetitions."""
    ann, ben = await town.phone("1001"), await town.phone("1002")

    first = await town.network.submit(ben, element("presence", {"type": "subscribe", "to": ann.lid}))
    for kind in ("available", "available", "unavailable"):
        await town.network.submit(ann, element("presence", {"type": kind}))

    assert first is not None
    assert first.text("type") == "unavailable"
    await town.until(lambda: len(ben.of("presence")) == 2)
    assert [n.text("type") for n in ben.of("presence")] == ["", "unavailable"]
    assert ben.of("presence")[0].attrs["from"] == ann.lid


async def test_typing_is_passed_on(town: Town) -> None:
    """To the other side, with the typist as sender."""
    ann, ben = await town.phone("1001"), await town.phone("1002")

    await town.network.submit(ann, element("chatstate", {"to": ben.lid}, [element("composing")]))

    await town.until(lambda: ben.of("chatstate"))
    assert ben.of("chatstate")[0].attrs["from"] == ann.lid


async def test_privacy_settings_are_kept(town: Town) -> None:
    """All `all` at first; a change stays."""
    ann = await town.phone("1001")
    before = await privacy(town, ann)
    wanted = element("privacy", {}, [element("category", {"name": "readreceipts", "value": "none"})])
    await town.iq(ann, "privacy", "set", wanted)

    assert set(before.values()) == {"all"}
    assert (await privacy(town, ann))["readreceipts"] == "none"


async def privacy(town: Town, phone: FakePhone) -> dict[str, str]:
    """The settings of an account."""
    node = (await town.iq(phone, "privacy", "get", element("privacy"))).child("privacy")
    assert node is not None
    return {c.text("name"): c.text("value") for c in node.nodes}


async def test_a_blocked_sender_gets_its_ack_and_nothing_arrives(town: Town) -> None:
    """As on WhatsApp: whoever is blocked cannot tell."""
    ann, ben = await town.phone("1001"), await town.phone("1002")
    for action, message_id in (("block", "M1"), ("unblock", "M2")):
        await town.iq(ben, "blocklist", "set", element("item", {"action": action, "jid": ann.lid}))
        assert "error" not in (await town.send(ann, ben.lid, [ben.lid], message_id)).attrs

    await town.until(lambda: ben.of("message"))
    assert [n.text("id") for n in ben.of("message")] == ["M2"]


async def test_a_picture_is_set_and_found(town: Town) -> None:
    """By its owner only; others see it; without one it is 404; a known id gives nothing new."""
    ann, ben = await town.phone("1001"), await town.phone("1002")

    async def get(attrs: Attrs) -> Node:
        head: Attrs = {"id": "q", "xmlns": "w:profile:picture", "type": "get", "target": ann.pn, "to": ann.pn}
        answer = await town.network.submit(ben, element("iq", head, [element("picture", attrs)]))
        assert answer is not None
        return answer

    assert error_code(await get({"type": "image"})) == 404
    await town.iq(ann, "w:profile:picture", "set", element("picture", {"type": "image"}, b"jpeg"))

    found = (await get({"type": "image"})).child("picture")
    assert found is not None
    assert town.network.download(found.text("direct_path")) == b"jpeg"
    assert (await get({"id": found.text("id")})).child("picture") is None


def patch(text: bytes) -> bytes:
    """A patch as a device sends it; the network reads nothing but its version."""
    return bytes(server_sync.SyncdPatch(snapshotMAC=text).SerializeToString())


async def sync(town: Town, phone: FakePhone, version: int, body: bytes | None = None) -> Node:
    """Send or fetch patches of one collection."""
    content = [] if body is None else [element("patch", {}, body)]
    collection = element("collection", {"name": "regular", "version": version}, content)
    answer = (await town.iq(phone, "w:sync:app:state", "set", element("sync", {}, [collection]))).child("sync")
    assert answer is not None
    return answer.nodes[0]


async def test_app_state_is_numbered_and_conflicts_are_refused(town: Town) -> None:
    """Patches get versions from 1; one that missed another gets 409 and what it lacks; others are told."""
    ann = await town.phone("1001")
    desk = town.companion(ann)
    asked = element("iq", {"id": "q", "xmlns": "w:sync:app:state", "type": "set"})
    collection = element("collection", {"name": "regular"})

    assert (await sync(town, ann, 0, patch(b"early"))).text("version") == "1"
    assert town.network.storage.count_queued("1001:1") == 0
    town.network.handle(desk, asked.with_content((element("sync", {}, [collection]),)), lambda _: None)
    assert (await sync(town, ann, 1, patch(b"a"))).text("version") == "2"
    late = await sync(town, ann, 1, patch(b"b"))
    fetched = await sync(town, ann, 1)

    assert (late.text("type"), error_code(late)) == ("error", 409)
    for node in (late, fetched):
        found = node.child("patches")
        assert found is not None
        (one,) = found.nodes
        decoded = server_sync.SyncdPatch.FromString(one.data)
        assert (decoded.version.version, decoded.snapshotMAC) == (2, b"a")
    assert town.network.storage.count_queued("1001:1") == 1
    assert (await sync(town, ann, 2)).nodes == ()


async def test_the_about_text_is_set_by_query(town: Town) -> None:
    """As the engine sets it; other queries say that they are not simulated."""
    ann = await town.phone("1001")
    body = b'{"variables": {"input": {"text": "busy", "ephemeral_duration_sec": 0}}}'

    await town.iq(ann, "w:mex", "get", element("query", {"query_id": "9152604461510864"}, body))
    other = (await town.iq(ann, "w:mex", "get", element("query", {"query_id": "1"}, b"{}"))).child("result")

    assert town.network.world.accounts["1001"].about == "busy"
    assert other is not None
    assert b"not simulated" in other.data


async def test_an_unknown_request_is_answered_and_written_down(town: Town) -> None:
    """So that a test can show that there are none."""
    ann = await town.phone("1001")

    answer = await town.iq(ann, "w:nonsense", "get", to=Jid("", "s.whatsapp.net"))

    assert answer.text("type") == "result"
    assert len(town.network.unknown) == 1


async def test_a_malformed_request_is_refused_not_fatal(town: Town) -> None:
    """Even where a handler trips over it."""
    ann = await town.phone("1001")

    for xmlns in ("usync", "encrypt", "w:g2", "w:sync:app:state", "blocklist", "privacy", "w:profile:picture"):
        for content in ((), (element("sync", {}, [element("collection")]),), (element("list", {}, b"x"),)):
            answer = await town.iq(ann, xmlns, "set", *content)
            assert answer.text("type") in ("result", "error")
