"""Groups: who is in them, what they look like on the wire, and the questions that change nothing.

Groups address their members by hidden number and tell the phone number beside it. Members may ask for a group; others
get 403. `groups_changes` holds what alters a group.
"""

from __future__ import annotations

from tomada.sandbox.network_ports import Device
from tomada.sandbox.network_state import Group, StanzaError, World
from tomada.sandbox.node import Attrs, Jid, Node, element


def members_of(world: World, jid: Jid) -> list[str]:
    """The numbers in a group; empty if there is no such group."""
    group = world.groups.get(jid.user)
    return list(group.members) if group else []


def group_for_sending(world: World, jid: Jid, sender: Device) -> Group:
    """The group a device wants to write to; refused if it is not a member or only admins may write."""
    group = group_of_member(world, jid, sender)
    if group.announce and not group.is_admin(sender.number):
        raise StanzaError(420, "not-acceptable")
    return group


def group_of_member(world: World, jid: Jid | None, sender: Device) -> Group:
    """The group at an address: 404 if there is none, 403 if the asking device's account is not in it."""
    group = world.groups.get(jid.user) if jid else None
    if group is None:
        raise StanzaError(404, "item-not-found")
    if sender.number not in group.members:
        raise StanzaError(403, "forbidden")
    return group


def group_by_code(world: World, code: str) -> Group:
    """The group with this invite code; 410 if there is none (any more)."""
    for group in world.groups.values():
        if group.invite_code == code:
            return group
    raise StanzaError(410, "gone")


def participating(world: World, sender: Device) -> Node:
    """All groups of an account."""
    groups = [group for group in world.groups.values() if sender.number in group.members]
    return element("groups", {}, [group_node(world, group) for group in groups])


def group_node(world: World, group: Group) -> Node:
    """A group with everything a client asks for."""
    owner, subject_owner = _account_jids(world, group.owner), _account_jids(world, group.subject_owner)
    head: Attrs = {
        "id": group.id,
        "subject": group.subject,
        "creation": group.created_s,
        "s_t": group.subject_s,
        "s_o": subject_owner[0],
        "s_o_pn": subject_owner[1],
        "creator": owner[0],
        "creator_pn": owner[1],
        "addressing_mode": "lid",
        "size": len(group.members),
    }
    body = [participant_node(world, number, role) for number, role in group.members.items()]
    if group.description:
        body.append(description_node(world, group))
    if group.announce:
        body.append(element("announcement"))
    if group.locked:
        body.append(element("locked"))
    if group.expiration_s:
        body.append(element("ephemeral", {"expiration": group.expiration_s}))
    mode = b"all_member_add" if group.add_by_all else b"admin_add"
    return element("group", head, [*body, element("member_add_mode", {}, mode)])


def participant_node(world: World, number: str, role: str = "", error: int | None = None) -> Node:
    """One member: hidden number, phone number, role, or the error that kept it out."""
    lid, pn = _account_jids(world, number)
    return element("participant", {"jid": lid, "phone_number": pn, "type": role or None, "error": error})


def description_node(world: World, group: Group) -> Node:
    """The description with who set it and when; `delete` inside if it was removed."""
    lid, pn = _account_jids(world, group.description_owner)
    head: Attrs = {"id": group.description_id, "t": group.description_s, "participant": lid, "participant_pn": pn}
    body = element("body", {}, group.description.encode()) if group.description else element("delete")
    return element("description", head, [body])


def _account_jids(world: World, number: str) -> tuple[Jid | None, Jid | None]:
    account = world.accounts.get(number)
    return (account.lid, account.pn) if account else (None, None)
