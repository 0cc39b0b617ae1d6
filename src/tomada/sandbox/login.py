"""Logging a linked device in, and handing it what waited for it.

A device proves who it is by its transport key: the number it names must have a device whose key was stored at
pairing. After `success` it tops up its prekeys and says `<active/>`; only then does it get its stored stanzas,
framed by `offline_preview` and `offline`, and from then on everything new.
"""

from __future__ import annotations

from typing import Any

from tomada.sandbox.codec import decode
from tomada.sandbox.network_devices import mark_ready
from tomada.sandbox.network_ports import Device
from tomada.sandbox.network_state import QUEUE_MAX, Link, World, owner_of
from tomada.sandbox.node import SERVER, Attrs, Node, element

_BAN_CODE, _BAN_EXPIRE_S = 101, 3600
_PREKEYS_LOW = 10


def refusal(world: World, number: str | None) -> Node | None:
    """The `<failure>` that a standing fault demands (`ban` needs a number, `outdated` does not)."""
    if world.faults.find("outdated", number):
        return element("failure", {"reason": 405, "location": "sandbox"})
    ban = world.faults.find("ban", number) if number else None
    if ban is None:
        return None
    code = _BAN_CODE if ban.code is None else ban.code
    expire = _BAN_EXPIRE_S if ban.expire is None else ban.expire
    return element("failure", {"reason": 402, "code": code, "expire": expire, "location": "sandbox"})


def log_in(world: World, link: Link, static: bytes, payload: Any) -> Device | Node:
    """Let a client in as the device it claims to be, or say why not with a `<failure>`.

    A connection that the device had before is closed as replaced.
    """
    number = str(payload.username)
    refused = refusal(world, number)
    if refused:
        return refused
    account = world.accounts.get(number)
    device = account.devices.get(payload.device) if account else None
    if account is None or device is None or not device.noise_key or device.noise_key != static:
        return element("failure", {"reason": 401, "location": "sandbox"})
    earlier = world.link(device)
    if earlier:
        earlier.close(element("stream:error", {}, [element("conflict", {"type": "replaced"})]))
    world.links[owner_of(device)] = link
    now = world.now_s()
    head: Attrs = {"t": now, "props": 27, "companion_enc_static": "", "location": "sandbox"}
    link.push(element("success", {**head, "lid": device.lid, "display_name": account.name, "creation": now - 1000}))
    return device


def handle_passive(world: World, sender: Device, iq: Node) -> list[Node]:
    """`<active/>`: start delivery, stored stanzas first. `<passive/>`: stop it."""
    link = world.link(sender)
    if link is None:
        return []
    if iq.child("passive") is not None:
        link.active = False
    elif iq.child("active") is not None:
        mark_ready(world, sender)
        world.after_commit(lambda: _flush(world, sender, link))
    return []


def _flush(world: World, device: Device, link: Link) -> None:
    """Send everything stored, then let new stanzas through; nothing awaits in between, so order holds."""
    owner = owner_of(device)
    waiting = [(seq, decode(body)) for seq, body in world.storage.queued(owner, QUEUE_MAX)]
    tags = [node.tag for _, node in waiting]
    preview: Attrs = {
        "count": len(tags),
        "appdata": 0,
        "message": tags.count("message"),
        "notification": tags.count("notification"),
        "receipt": tags.count("receipt"),
    }
    link.push(element("ib", {"from": SERVER}, [element("offline_preview", preview)]))
    for seq, node in waiting:
        link.push(node.with_attrs({"offline": "0"}), seq)
    link.push(element("ib", {"from": SERVER}, [element("offline", {"count": len(tags)})]))
    link.active = True
    left = world.storage.count_prekeys(owner)
    if left < _PREKEYS_LOW:
        head: Attrs = {"from": SERVER, "type": "encrypt", "id": world.fresh_id(), "t": world.now_s()}
        link.push(element("notification", head, [element("count", {"value": left})]))
