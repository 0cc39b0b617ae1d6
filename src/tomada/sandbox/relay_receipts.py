"""Receipts and acknowledgements: what lets the network forget a stanza, and lets senders see that it arrived.

A device settles a message by its receipt (delivered, or a request to retry) or by an `ack`; either removes it from
the store. Delivered, read and played receipts travel to all devices of the message's sender, a retry only to the
device that sent it. Read and played ones also go to the reader's own other devices, with the chat as `recipient`.
"""

from __future__ import annotations

from tomada.sandbox.network_ports import Device
from tomada.sandbox.network_state import Account, World, owner_of
from tomada.sandbox.node import LID_SERVER, AttrValue, Jid, Node, element

_ONLY_FOR_THE_NETWORK = ("sender", "peer_msg", "hist_sync", "read-self", "played-self", "inactive-self")
_SEEN = ("read", "played")


def handle_ack(world: World, sender: Device, node: Node) -> None:
    """Forget what the device acknowledges."""
    tag = node.text("class")
    detail = None
    if tag == "receipt":
        detail = f"{node.text('type')} {node.text('to')} {node.text('participant')}"
    world.storage.settle(owner_of(sender), tag, node.text("id"), detail)


def handle_receipt(world: World, sender: Device, node: Node) -> Node:
    """Settle the messages of a receipt and pass it on; returns the ack."""
    to, kind = node.jid("to"), node.attrs.get("type")
    for message_id in receipt_ids(node):
        world.storage.settle(owner_of(sender), "message", message_id)
    ack = {"class": "receipt", "id": node.text("id"), "from": to, "type": kind}
    if to is not None and kind not in _ONLY_FOR_THE_NETWORK:
        _pass_on(world, sender, node, to)
    return element("ack", {**ack, "participant": node.attrs.get("participant")})


def receipt_ids(node: Node) -> list[str]:
    """The message ids a receipt is about: its own and those of its list."""
    listed = node.child("list")
    return [node.text("id"), *(item.text("id") for item in (listed.nodes if listed else ()))]


def _pass_on(world: World, sender: Device, node: Node, to: Jid) -> None:
    author_jid = node.jid("participant") if to.is_group else to
    author = world.account(author_jid)
    if author is None or author_jid is None:
        return
    kind = node.text("type")
    head: dict[str, AttrValue | int | None] = {
        "id": node.text("id"),
        "t": world.now_s(),
        "type": node.attrs.get("type"),
    }
    if to.is_group:
        head |= {"from": to, "participant": sender.lid, "participant_pn": sender.pn}
    else:
        head["from"] = sender.lid if to.server == LID_SERVER else sender.pn
    for device in _receivers(author, author_jid, kind):
        if device is not sender:
            world.deliver(device, element("receipt", head, node.content))
    if kind in _SEEN and author.number != sender.number:
        _tell_own_devices(world, sender, node, head, to)


def _receivers(author: Account, author_jid: Jid, kind: str) -> list[Device]:
    if kind == "retry":
        device = author.devices.get(author_jid.device)
        return [device] if device else []
    return list(author.devices.values())


def _tell_own_devices(
    world: World, sender: Device, node: Node, head: dict[str, AttrValue | int | None], to: Jid
) -> None:
    if not to.is_group:
        head = {**head, "recipient": to.bare}
    for device in list(world.accounts[sender.number].devices.values()):
        if device is not sender:
            world.deliver(device, element("receipt", head, node.content))
