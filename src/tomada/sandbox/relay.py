"""Messages: from one device to every device that can read them.

The sender encrypts once per receiving device (`participants`) and, in groups, once for all (`enc type=skmsg`); the
network cannot read any of it. It checks who may send, stores one stanza for every receiving device and
acknowledges. A message without `participants` goes to one device: a retry, or one between devices of an account.

In direct chats a stanza carries the sender's other address too (`sender_pn` or `sender_lid`), and a copy for the
sender's own devices names the chat as `recipient`.
"""

from __future__ import annotations

from tomada.sandbox.groups import group_for_sending
from tomada.sandbox.network_ports import Device
from tomada.sandbox.network_state import StanzaError, World
from tomada.sandbox.node import LID_SERVER, Attrs, Jid, Node, element

_NOT_RELAYED = ("participants", "enc", "reporting", "tctoken", "cstoken", "bot", "biz")
_SINKS = ("broadcast", "newsletter")
_PARTICIPANTS_MAX = 20_000


def handle_message(world: World, sender: Device, node: Node) -> Node:
    """Relay a message; returns the ack, which carries an `error` code if it was refused."""
    to = node.jid("to")
    ack: Attrs = {"class": "message", "id": node.text("id"), "from": to, "t": world.now_s()}
    try:
        if to is None or not node.text("id"):
            raise StanzaError(400, "bad-request")
        if to.is_group:
            _relay_to_group(world, sender, node, to)
        elif to.server not in _SINKS:
            _relay_to_chat(world, sender, node, to)
    except StanzaError as error:
        return element("ack", {**ack, "error": error.code})
    return element("ack", ack)


def _relay_to_group(world: World, sender: Device, node: Node, to: Jid) -> None:
    group = group_for_sending(world, to, sender)
    own = _encrypted_per_device(world, node)
    shared = node.children("enc")
    only = node.jid("participant")
    head: Attrs = {
        **_head(world, sender, node),
        "from": to,
        "participant": sender.lid,
        "participant_pn": sender.pn,
        "addressing_mode": "lid",
    }
    for number in group.members:
        account = world.accounts.get(number)
        for device in list(account.devices.values()) if account else []:
            if device is sender or (only and only not in (device.lid, device.pn)):
                continue
            encrypted = (*own.get((number, device.id), ()), *shared)
            if encrypted:
                world.deliver(device, element("message", head, (*encrypted, *_rest(node))))


def _relay_to_chat(world: World, sender: Device, node: Node, to: Jid) -> None:
    account = world.account(to)
    if account is None:
        raise StanzaError(404, "item-not-found")
    if node.child("participants") is None:
        target = account.devices.get(to.device)
        if target is None:
            raise StanzaError(404, "item-not-found")
        _deliver_to_chat(world, sender, node, to, target, node.children("enc"))
        return
    for (number, device_id), encrypted in _encrypted_per_device(world, node).items():
        device = world.accounts[number].devices[device_id]
        if device is not sender and number in (account.number, sender.number):
            _deliver_to_chat(world, sender, node, to, device, encrypted)


def _deliver_to_chat(
    world: World, sender: Device, node: Node, to: Jid, device: Device, encrypted: tuple[Node, ...]
) -> None:
    if blocked(world, device.number, sender.number):
        return
    by_lid = to.server == LID_SERVER
    head: Attrs = {
        **_head(world, sender, node),
        "from": sender.lid if by_lid else sender.pn,
    }
    if device.number == sender.number:
        if node.text("category") != "peer":
            head["recipient"] = node.jid("recipient") or to.bare
            head["peer_recipient_pn"] = node.jid("peer_recipient_pn")
    else:
        head["sender_pn" if by_lid else "sender_lid"] = sender.pn if by_lid else sender.lid
    world.deliver(device, element("message", head, (*encrypted, *_rest(node))))


def handle_call(world: World, sender: Device, node: Node) -> Node:
    """Pass a call's signalling on to all devices of the other side; media never flow."""
    to = node.jid("to")
    account = world.account(to)
    for device in list(account.devices.values()) if account else []:
        head: Attrs = {"from": sender.lid, "id": node.text("id"), "t": world.now_s(), "platform": "android"}
        world.deliver(device, element("call", {**head, "version": "2.24.1"}, node.content))
    return element("ack", {"class": "call", "id": node.text("id"), "from": to})


def blocked(world: World, number: str, sender_number: str) -> bool:
    """Whether an account has blocked a sender."""
    raw = world.storage.record("blocklist", number)
    return raw is not None and sender_number in raw.decode().split()


def _head(world: World, sender: Device, node: Node) -> Attrs:
    return {
        "id": node.text("id"),
        "t": world.now_s(),
        "type": node.text("type", "text"),
        "notify": world.name_of(sender),
        "edit": node.attrs.get("edit"),
        "category": node.attrs.get("category"),
    }


def _encrypted_per_device(world: World, node: Node) -> dict[tuple[str, int], tuple[Node, ...]]:
    participants = node.child("participants")
    if participants is None:
        return {}
    if len(participants.nodes) > _PARTICIPANTS_MAX:
        raise StanzaError(400, "bad-request")
    found: dict[tuple[str, int], tuple[Node, ...]] = {}
    for to in participants.children("to"):
        device = world.device(to.jid("jid"))
        if device:
            found[device.number, device.id] = to.children("enc")
    return found


def _rest(node: Node) -> tuple[Node, ...]:
    return tuple(child for child in node.nodes if child.tag not in _NOT_RELAYED)
