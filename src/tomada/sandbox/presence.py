"""Who is there and who is typing: stanzas that count only now and are never stored.

An account is available while one of its devices says so. A device that subscribed to an account's presence hears of
each change; subscriptions end with the subscriber's connection.
"""

from __future__ import annotations

from tomada.sandbox.groups import members_of
from tomada.sandbox.network_ports import Device
from tomada.sandbox.network_state import Account, World, owner_of
from tomada.sandbox.node import LID_SERVER, Jid, Node, element

_SUBSCRIPTIONS_MAX = 10_000


def handle_presence(world: World, sender: Device, node: Node) -> Node | None:
    """`available`, `unavailable` or `subscribe`; a subscription is answered with the present state."""
    kind = node.text("type", "available")
    if kind == "subscribe":
        to = node.jid("to")
        account = world.account(to)
        if account is None or to is None:
            return None
        subscribers = world.subscribers.setdefault(account.number, {})
        if len(subscribers) < _SUBSCRIPTIONS_MAX:
            subscribers[owner_of(sender)] = to.server
        return _presence(world, account, to.server)
    if kind in ("available", "unavailable"):
        change_presence(world, sender, available=kind == "available")
    return None


def change_presence(world: World, device: Device, *, available: bool) -> None:
    """Note a device's presence and tell the subscribers if the account's changed by it."""
    account = world.accounts[device.number]
    before = _is_available(world, account)
    if available:
        world.available.add(owner_of(device))
    else:
        world.available.discard(owner_of(device))
    if before == _is_available(world, account):
        return
    for owner, server in world.subscribers.get(account.number, {}).items():
        number, _, device_id = owner.partition(":")
        subscriber = world.accounts[number].devices.get(int(device_id)) if number in world.accounts else None
        if subscriber:
            world.send(subscriber, _presence(world, account, server))


def forget_subscriber(world: World, device: Device) -> None:
    """End the subscriptions of a device whose connection ended."""
    for subscribers in world.subscribers.values():
        subscribers.pop(owner_of(device), None)


def handle_chatstate(world: World, sender: Device, node: Node) -> None:
    """Typing, recording or paused: to all devices of the other side, or of the group's other members."""
    to = node.jid("to")
    if to is None:
        return
    if to.is_group:
        head = {"from": to, "participant": sender.lid}
        numbers = [number for number in members_of(world, to) if number != sender.number]
    else:
        by_lid = to.server == LID_SERVER
        own = world.accounts[sender.number]
        account = world.account(to)
        head = {"from": own.lid if by_lid else own.pn}
        numbers = [account.number] if account else []
    for number in numbers:
        for device in list(world.accounts[number].devices.values()) if number in world.accounts else []:
            world.send(device, element("chatstate", head, node.content))


def _is_available(world: World, account: Account) -> bool:
    return any(owner_of(device) in world.available for device in account.devices.values())


def _presence(world: World, account: Account, server: str) -> Node:
    sender: Jid = account.lid if server == LID_SERVER else account.pn
    if _is_available(world, account):
        return element("presence", {"from": sender})
    return element("presence", {"from": sender, "type": "unavailable", "last": world.now_s()})
