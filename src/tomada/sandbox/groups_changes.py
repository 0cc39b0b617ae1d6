"""What alters a group, and its announcement to everybody concerned.

Each change is one `w:gp2` notification to all devices of all members, the acting device included: clients update
what they remember of a group only by it. Whoever is added gets the whole group instead, whoever is removed hears
of it too. Adding is open to members unless the group says otherwise; the rest of membership is for admins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tomada.sandbox.groups import (
    description_node,
    group_by_code,
    group_node,
    group_of_member,
    participant_node,
    participating,
)
from tomada.sandbox.network_ports import Device
from tomada.sandbox.network_state import Account, Group, StanzaError, World
from tomada.sandbox.node import Attrs, Node, element

MEMBERS_MAX = 1_024
_SUBJECT_CHARS_MAX = 100
_DESCRIPTION_CHARS_MAX = 2_048

Change = Callable[[World, Device, Group, Node], list[Node]]


def handle_groups(world: World, sender: Device, iq: Node) -> list[Node]:
    """Any `w:g2` request: to `g.us` (create, leave, join, list) or to one group."""
    request = iq.nodes[0] if iq.nodes else None
    if request is None:
        raise StanzaError(400, "bad-request")
    to = iq.jid("to")
    if to is None or not to.user:
        return _handle_without_group(world, sender, iq, request)
    group = group_of_member(world, to, sender)
    if iq.text("type") == "get":
        if request.tag == "invite":
            _require_admin(group, sender)
            return [element("invite", {"code": group.invite_code})]
        if request.tag == "membership_approval_requests":
            return [element(request.tag)]
        return [group_node(world, group)]
    change = _CHANGES.get(request.tag)
    if change is None:
        raise StanzaError(501, "feature-not-implemented")
    return change(world, sender, group, request)


def _handle_without_group(world: World, sender: Device, iq: Node, request: Node) -> list[Node]:
    if request.tag == "create":
        return _create(world, sender, request)
    if request.tag == "participating":
        return [participating(world, sender)]
    if request.tag == "leave":
        return _leave(world, sender, request)
    if request.tag == "invite":
        group = group_by_code(world, request.text("code"))
        if iq.text("type") == "get":
            return [group_node(world, group)]
        if sender.number not in group.members:
            _enter(world, sender, group, [world.accounts[sender.number]], reason="invite")
        return [element("group", {"jid": group.jid})]
    raise StanzaError(501, "feature-not-implemented")


def _create(world: World, sender: Device, request: Node) -> list[Node]:
    subject = request.text("subject")
    if not subject or len(subject) > _SUBJECT_CHARS_MAX:
        raise StanzaError(406, "not-acceptable")
    now = world.now_s()
    group = Group(
        id=_fresh_group_id(world),
        subject=subject,
        owner=sender.number,
        created_s=now,
        members={sender.number: "superadmin"},
        subject_s=now,
        subject_owner=sender.number,
        invite_code=_fresh_code(world),
        announce=request.child("announcement") is not None,
        locked=request.child("locked") is not None,
    )
    mode = request.child("member_add_mode")
    group.add_by_all = mode is None or mode.data != b"admin_add"
    unknown: list[Node] = []
    for participant in request.children("participant"):
        account = world.account(participant.jid("jid"))
        if account and len(group.members) < MEMBERS_MAX:
            group.members.setdefault(account.number, "")
        else:
            unknown.append(element("participant", {"jid": participant.jid("jid"), "error": 404}))
    world.save_group(group)
    whole = group_node(world, group)
    _announce(world, sender, group, [_create_node(world, whole, "new")], skip_actor=True)
    return [whole.with_content((*whole.nodes, *unknown))]


def _leave(world: World, sender: Device, request: Node) -> list[Node]:
    left = []
    for node in request.children("group"):
        group = group_of_member(world, node.jid("id"), sender)
        _exit(world, sender, group, [sender.number])
        left.append(element("group", {"id": group.jid}))
    return [element("leave", {}, left)]


def _add(world: World, sender: Device, group: Group, request: Node) -> list[Node]:
    if not group.add_by_all:
        _require_admin(group, sender)
    added: list[Account] = []
    answers: list[Node] = []
    for node in request.children("participant"):
        account = world.account(node.jid("jid"))
        if account is None:
            answers.append(element("participant", {"jid": node.jid("jid"), "error": 404}))
        elif account.number in group.members:
            answers.append(participant_node(world, account.number, error=409))
        elif len(group.members) + len(added) >= MEMBERS_MAX:
            answers.append(participant_node(world, account.number, error=500))
        else:
            added.append(account)
            answers.append(participant_node(world, account.number))
    _enter(world, sender, group, added)
    return [element("add", {}, answers)]


def _remove(world: World, sender: Device, group: Group, request: Node) -> list[Node]:
    _require_admin(group, sender)
    numbers, answers = _named_members(world, group, request)
    _exit(world, sender, group, [number for number in numbers if number != group.owner])
    return [element("remove", {}, answers)]


def _set_role(role: str, tag: str) -> Change:
    def change(world: World, sender: Device, group: Group, request: Node) -> list[Node]:
        _require_admin(group, sender)
        numbers, answers = _named_members(world, group, request)
        changed = [number for number in numbers if group.members[number] not in (role, "superadmin")]
        for number in changed:
            group.members[number] = role
        world.save_group(group)
        if changed:
            parts = [participant_node(world, number, role) for number in changed]
            _announce(world, sender, group, [element(tag, {}, parts)])
        return [element(tag, {}, answers)]

    return change


def _set_subject(world: World, sender: Device, group: Group, request: Node) -> list[Node]:
    _require_editor(group, sender)
    subject = request.data.decode(errors="replace")
    if not subject or len(subject) > _SUBJECT_CHARS_MAX:
        raise StanzaError(406, "not-acceptable")
    group.subject, group.subject_s, group.subject_owner = subject, world.now_s(), sender.number
    world.save_group(group)
    account = world.accounts[sender.number]
    head: Attrs = {"subject": subject, "s_t": group.subject_s, "s_o": account.lid, "s_o_pn": account.pn}
    _announce(world, sender, group, [element("subject", head)])
    return []


def _set_description(world: World, sender: Device, group: Group, request: Node) -> list[Node]:
    _require_editor(group, sender)
    body = request.child("body")
    text = body.data.decode(errors="replace") if body else ""
    if len(text) > _DESCRIPTION_CHARS_MAX:
        raise StanzaError(406, "not-acceptable")
    if group.description_id and request.text("prev") != group.description_id:
        raise StanzaError(409, "conflict")
    group.description, group.description_id = text, request.text("id")
    group.description_s, group.description_owner = world.now_s(), sender.number
    world.save_group(group)
    _announce(world, sender, group, [description_node(world, group)])
    return []


def _set_flag(name: str, value: bool) -> Change:
    def change(world: World, sender: Device, group: Group, request: Node) -> list[Node]:
        _require_admin(group, sender)
        setattr(group, name, value)
        world.save_group(group)
        _announce(world, sender, group, [element(request.tag, {"v_id": world.fresh_id()})])
        return []

    return change


def _set_ephemeral(world: World, sender: Device, group: Group, request: Node) -> list[Node]:
    _require_editor(group, sender)
    expiration = request.text("expiration", "0")
    if not expiration.isdigit() or len(expiration) > 9:
        raise StanzaError(400, "bad-request")
    group.expiration_s = int(expiration)
    world.save_group(group)
    tag = "ephemeral" if group.expiration_s else "not_ephemeral"
    _announce(world, sender, group, [element(tag, {"expiration": group.expiration_s or None})])
    return []


def _reset_invite(world: World, sender: Device, group: Group, request: Node) -> list[Node]:
    _require_admin(group, sender)
    group.invite_code = _fresh_code(world)
    world.save_group(group)
    invite = element("invite", {"code": group.invite_code})
    _announce(world, sender, group, [invite])
    return [invite]


def _enter(world: World, sender: Device, group: Group, accounts: list[Account], reason: str | None = None) -> None:
    if not accounts:
        return
    earlier = list(group.members)
    for account in accounts:
        group.members[account.number] = ""
    world.save_group(group)
    parts = [participant_node(world, account.number) for account in accounts]
    _announce(world, sender, group, [element("add", {"reason": reason}, parts)], numbers=earlier)
    whole = _create_node(world, group_node(world, group), None, reason)
    _announce(world, sender, group, [whole], numbers=[account.number for account in accounts])


def _exit(world: World, sender: Device, group: Group, numbers: list[str]) -> None:
    if not numbers:
        return
    everybody = list(group.members)
    for number in numbers:
        group.members.pop(number, None)
    heir = None
    if group.members and not any(map(group.is_admin, group.members)):
        heir = next(iter(group.members))
        group.members[heir] = "superadmin"
        group.owner = heir
    world.save_group(group)
    parts = [participant_node(world, number) for number in numbers]
    _announce(world, sender, group, [element("remove", {}, parts)], numbers=everybody)
    if heir:
        promoted = element("promote", {}, [participant_node(world, heir, "superadmin")])
        _announce(world, sender, group, [promoted])


def _announce(
    world: World,
    sender: Device,
    group: Group,
    content: list[Node],
    numbers: Iterable[str] | None = None,
    skip_actor: bool = False,
) -> None:
    actor: Attrs = {
        "participant": sender.lid.bare,
        "participant_pn": sender.pn.bare,
        "notify": world.name_of(sender),
        "addressing_mode": "lid",
    }
    for number in list(group.members) if numbers is None else numbers:
        account = world.accounts.get(number)
        for device in list(account.devices.values()) if account else []:
            if not (skip_actor and device is sender):
                world.notify(device, "w:gp2", group.jid, content, actor)


def _create_node(world: World, whole: Node, kind: str | None, reason: str | None = None) -> Node:
    return element("create", {"type": kind, "reason": reason, "key": world.fresh_id()}, [whole])


def _named_members(world: World, group: Group, request: Node) -> tuple[list[str], list[Node]]:
    numbers: list[str] = []
    answers: list[Node] = []
    for node in request.children("participant"):
        account = world.account(node.jid("jid"))
        if account and account.number in group.members:
            numbers.append(account.number)
            answers.append(participant_node(world, account.number))
        else:
            answers.append(element("participant", {"jid": node.jid("jid"), "error": 404}))
    return numbers, answers


def _require_admin(group: Group, sender: Device) -> None:
    if not group.is_admin(sender.number):
        raise StanzaError(401, "not-authorized")


def _require_editor(group: Group, sender: Device) -> None:
    if group.locked:
        _require_admin(group, sender)


def _fresh_group_id(world: World) -> str:
    return f"1203{world.random.randrange(10**14):014d}"


def _fresh_code(world: World) -> str:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    return "".join(world.random.choices(letters, k=22))


_CHANGES: dict[str, Change] = {
    "add": _add,
    "remove": _remove,
    "promote": _set_role("admin", "promote"),
    "demote": _set_role("", "demote"),
    "subject": _set_subject,
    "description": _set_description,
    "announcement": _set_flag("announce", True),
    "not_announcement": _set_flag("announce", False),
    "locked": _set_flag("locked", True),
    "unlocked": _set_flag("locked", False),
    "ephemeral": _set_ephemeral,
    "not_ephemeral": _set_ephemeral,
    "invite": _reset_invite,
}
