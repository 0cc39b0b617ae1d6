"""Groups: who may do what, and who hears of it."""

import pytest

from tests.unit.sandbox.fake_network import FakePhone, Town, error_code
from tomada.sandbox.node import Jid, Node, element

_SERVER = Jid("", "g.us")


async def make_group(town: Town, owner: FakePhone, *members: FakePhone) -> Jid:
    """Create a group; its address."""
    people = [element("participant", {"jid": member.lid}) for member in members]
    answer = await town.iq(owner, "w:g2", "set", element("create", {"subject": "Team"}, people), to=_SERVER)
    group = answer.child("group")
    assert group is not None
    return Jid(group.text("id"), "g.us")


async def change(town: Town, who: FakePhone, group: Jid, node: Node) -> Node:
    """Ask for a change of the group."""
    return await town.iq(who, "w:g2", "set", node, to=group)


def people(tag: str, *phones: FakePhone) -> Node:
    """`<add><participant/>…</add>` and its like."""
    return element(tag, {}, [element("participant", {"jid": phone.lid}) for phone in phones])


async def members(town: Town, who: FakePhone, group: Jid) -> dict[str, str]:
    """Number to role, as a member sees it."""
    answer = await town.iq(who, "w:g2", "get", element("query", {"request": "interactive"}), to=group)
    node = answer.child("group")
    assert node is not None
    return {str(p.attrs["phone_number"]).split("@")[0]: p.text("type") for p in node.children("participant")}


async def test_everybody_invited_hears_of_a_new_group(town: Town) -> None:
    """The creator is superadmin; its own device is not told what it did itself."""
    ann, ben = await town.phone("1001", "Ann"), await town.phone("1002")

    group = await make_group(town, ann, ben)

    await town.until(lambda: ben.of("notification", "w:gp2"))
    (told,) = ben.of("notification", "w:gp2")
    assert (told.attrs["from"], told.attrs["participant"]) == (group, ann.lid)
    assert told.child("create", "group") is not None
    assert await members(town, ben, group) == {"1001": "superadmin", "1002": ""}
    assert not ann.got


async def test_group_messages_reach_all_members_but_the_sending_device(town: Town) -> None:
    """Each with the group as sender and the author as participant."""
    ann, ben, eve = await town.phone("1001"), await town.phone("1002"), await town.phone("1003")
    group = await make_group(town, ann, ben)

    assert "error" not in (await town.send(ann, group, [])).attrs
    assert (await town.send(eve, group, [])).text("error") == "403"

    await town.until(lambda: ben.of("message"))
    (message,) = ben.of("message")
    assert (message.attrs["from"], message.attrs["participant"]) == (group, ann.lid)
    assert not ann.of("message")


async def test_membership_changes_are_for_admins_and_announced(town: Town) -> None:
    """Promote, demote, remove: refused to members (401), announced when an admin does it."""
    ann, ben, cid = await town.phone("1001"), await town.phone("1002"), await town.phone("1003")
    group = await make_group(town, ann, ben, cid)
    for tag in ("promote", "demote", "remove"):
        assert error_code(await change(town, ben, group, people(tag, cid))) == 401

    await change(town, ann, group, people("promote", ben))
    assert (await members(town, ann, group))["1002"] == "admin"
    await change(town, ben, group, people("remove", cid))

    assert set(await members(town, ann, group)) == {"1001", "1002"}
    await town.until(lambda: len(cid.of("notification", "w:gp2")) == 3)
    assert [n.nodes[0].tag for n in cid.of("notification", "w:gp2")] == ["create", "promote", "remove"]


async def test_adding_answers_for_each_person(town: Town) -> None:
    """New ones get the whole group, those already in 409, unknown ones 404."""
    ann, ben, cid = await town.phone("1001"), await town.phone("1002"), await town.phone("1003")
    group = await make_group(town, ann, ben)

    answer = await change(town, ben, group, people("add", cid, ann, FakePhone("1999")))

    added = answer.child("add")
    assert added is not None
    assert [n.text("error") for n in added.nodes] == ["", "409", "404"]
    await town.until(lambda: cid.of("notification", "w:gp2"))
    assert cid.of("notification", "w:gp2")[0].child("create", "group") is not None
    await town.until(lambda: ann.of("notification", "w:gp2"))
    assert ann.of("notification", "w:gp2")[0].child("add") is not None


async def test_a_locked_group_is_edited_by_admins_and_an_announcing_one_written_by_them(town: Town) -> None:
    """`locked` guards the subject, `announcement` the messages."""
    ann, ben = await town.phone("1001"), await town.phone("1002")
    group = await make_group(town, ann, ben)
    assert error_code(await change(town, ben, group, element("subject", {}, b"Ours"))) == 0
    await change(town, ann, group, element("locked"))
    await change(town, ann, group, element("announcement"))

    assert error_code(await change(town, ben, group, element("subject", {}, b"Mine"))) == 401
    assert (await town.send(ben, group, [])).text("error") == "420"
    await change(town, ann, group, element("not_announcement"))
    assert "error" not in (await town.send(ben, group, [])).attrs


async def test_a_description_follows_its_predecessor(town: Town) -> None:
    """Setting one needs the id of the last one, so that two editors do not undo each other."""
    ann = await town.phone("1001")
    group = await make_group(town, ann)

    def describe(text: bytes, new: str, previous: str | None) -> Node:
        return element("description", {"id": new, "prev": previous}, [element("body", {}, text)])

    assert error_code(await change(town, ann, group, describe(b"one", "D1", None))) == 0
    assert error_code(await change(town, ann, group, describe(b"two", "D2", "D0"))) == 409
    assert error_code(await change(town, ann, group, describe(b"two", "D2", "D1"))) == 0


async def test_an_invite_code_lets_in_until_it_is_reset(town: Town) -> None:
    """Joining by code is announced; an old code is gone (410)."""
    ann, ben = await town.phone("1001"), await town.phone("1002")
    group = await make_group(town, ann)
    code = (await town.iq(ann, "w:g2", "get", element("invite"), to=group)).child("invite")
    assert code is not None
    joining = element("invite", {"code": code.text("code")})

    assert error_code(await town.iq(ben, "w:g2", "set", joining, to=_SERVER)) == 0

    assert "1002" in await members(town, ann, group)
    await change(town, ann, group, element("invite"))
    assert error_code(await town.iq(ben, "w:g2", "set", joining, to=_SERVER)) == 410


async def test_when_the_last_admin_leaves_another_takes_over(town: Town) -> None:
    """A group with members is never without an admin; who left may not look."""
    ann, ben = await town.phone("1001"), await town.phone("1002")
    group = await make_group(town, ann, ben)

    await town.iq(ann, "w:g2", "set", element("leave", {}, [element("group", {"id": group})]), to=_SERVER)

    assert await members(town, ben, group) == {"1002": "superadmin"}
    asked = element("query", {"request": "interactive"})
    assert error_code(await town.iq(ann, "w:g2", "get", asked, to=group)) == 403


async def test_groups_survive_a_restart(town: Town) -> None:
    """A network opened on the same directory knows them."""
    ann, ben = await town.phone("1001"), await town.phone("1002")
    group = await make_group(town, ann, ben)
    await town.network.close()

    town.__init__(town.folder)  # type: ignore[misc]
    ann = await town.phone("1001")

    assert set(await members(town, ann, group)) == {"1001", "1002"}


@pytest.mark.parametrize("subject", ["", "x" * 101])
async def test_a_subject_has_limits(town: Town, subject: str) -> None:
    """Neither empty nor longer than 100 characters."""
    ann = await town.phone("1001")

    answer = await town.iq(ann, "w:g2", "set", element("create", {"subject": subject}), to=_SERVER)

    assert error_code(answer) == 406
