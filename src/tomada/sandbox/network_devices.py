"""Device lists and prekeys: what a sender must know before it can encrypt (`usync`, `encrypt`), and unlinking.

Clients cache device lists and never ask again by themselves. So the network remembers, durably, who has seen whose
list (the watchers) and delivers a `devices` notification to them whenever a device is linked or unlinked.
"""

from __future__ import annotations

from tomada.sandbox.network_ports import COMPANION_READY, Device, SignedPrekey
from tomada.sandbox.network_state import Account, StanzaError, World, log, owner_of
from tomada.sandbox.node import LID_SERVER, SERVER, Jid, Node, element, user_jid

_QUERY_USERS_MAX = 5_000
_PREKEYS_PER_UPLOAD_MAX = 2_000
_KEY_TYPE = b"\x05"


def handle_usync(world: World, sender: Device, iq: Node) -> list[Node]:
    """Answer what is asked about each user: devices, hidden number, about text, picture, whether they exist."""
    usync = iq.child("usync")
    query = iq.child("usync", "query")
    users = iq.child("usync", "list")
    if usync is None or query is None or users is None or len(users.nodes) > _QUERY_USERS_MAX:
        raise StanzaError(400, "bad-request")
    asked = {node.tag: node for node in query.nodes}
    answers = [_usync_user(world, sender, asked, user) for user in users.nodes]
    head = {name: usync.text(name) for name in ("sid", "mode", "context")}
    results = element("result", {}, [element(tag) for tag in asked])
    return [element("usync", {**head, "index": 0, "last": True}, [results, element("list", {}, answers)])]


def handle_encrypt(world: World, sender: Device, iq: Node) -> list[Node]:
    """Count, upload or hand out prekeys."""
    if iq.text("type") == "set":
        return _upload(world, sender, iq)
    wanted = iq.child("key")
    if wanted is not None:
        if len(wanted.nodes) > _QUERY_USERS_MAX:
            raise StanzaError(400, "bad-request")
        bundles = [_bundle(world, user.jid("jid")) for user in wanted.children("user")]
        return [element("list", {}, bundles)]
    if iq.child("digest") is not None:
        raise StanzaError(404, "item-not-found")
    return [element("count", {"value": world.storage.count_prekeys(owner_of(sender))})]


def mark_ready(world: World, device: Device) -> None:
    """Note that a linked device works for the first time and let its phone know (see `COMPANION_READY`)."""
    if device.ready or device.id == 0:
        return
    device.ready = True
    account = world.accounts[device.number]
    world.save(account)
    world.notify(account.devices[0], COMPANION_READY, SERVER, [], {"device": device.lid})


def announce_devices(world: World, account: Account, changed: Device) -> None:
    """Tell everybody who has seen the account's device list, and its own devices, that it changed.

    Once by number and once by hidden number, because clients keep a list under the address they asked with.
    """
    update = element("update", {"hash": world.fresh_id()}, [])
    for number in {account.number, *world.storage.watchers(account.number)}:
        watcher = world.accounts.get(number)
        for device in list(watcher.devices.values()) if watcher else []:
            if device.id != changed.id or device.number != changed.number:
                world.notify(device, "devices", account.pn, [update], {"lid": account.lid})
                world.notify(device, "devices", account.lid, [update])


def unlink(world: World, number: str, device_id: int) -> bool:
    """Remove a linked device: its keys and stanzas go, it is told, and so are all who knew it."""
    account = world.accounts.get(number)
    device = account.devices.get(device_id) if account and device_id else None
    if account is None or device is None:
        return False
    del account.devices[device_id]
    world.save(account)
    world.storage.erase_device(owner_of(device))
    announce_devices(world, account, device)
    link = world.link(device)
    if link:
        conflict = element("conflict", {"type": "device_removed"})
        world.after_commit(lambda: link.close(element("stream:error", {"code": "401"}, [conflict])))
    log.info("phone %s: device %d is unlinked", number, device_id)
    return True


def _usync_user(world: World, sender: Device, asked: dict[str, Node], user: Node) -> Node:
    jid = user.jid("jid")
    contact = user.child("contact")
    if jid is None and contact is not None:
        return _usync_contact(world, asked["contact"], contact)
    account = world.account(jid)
    if account is None:
        return element("user", {"jid": jid}, [element("contact", {"type": "out"})] if "contact" in asked else [])
    world.storage.watch(account.number, sender.number)
    found: list[Node] = []
    if "devices" in asked:
        found.append(_device_list(world, account))
    if "lid" in asked:
        found.append(element("lid", {"val": account.lid}))
    if "status" in asked:
        found.append(element("status", {"t": 1}, account.about.encode()))
    if "contact" in asked:
        found.append(element("contact", {"type": "in"}))
    picture = world.storage.record("picture", str(account.pn)) if "picture" in asked else None
    if picture:
        found.append(element("picture", {"id": picture.decode().partition(" ")[0]}))
    return element("user", {"jid": jid}, found)


def _usync_contact(world: World, asked: Node, contact: Node) -> Node:
    """One number typed by a person: `+` is optional; the text is echoed as it came."""
    number = contact.data.decode(errors="replace").partition("@")[0].lstrip("+")
    account = world.accounts.get(number)
    pn = user_jid(number)
    by_lid = account is not None and asked.text("addressing_mode") == LID_SERVER
    jid = account.lid if account and by_lid else pn
    answer = element("contact", {"type": "in" if account else "out"}, contact.data)
    return element("user", {"jid": jid, "pn_jid": pn}, [answer])


def _device_list(world: World, account: Account) -> Node:
    entries = [
        element("device", {"id": device.id, "key-index": device.key_index or None})
        for device in account.devices.values()
    ]
    index_list = element("key-index-list", {"ts": world.now_s()}, b"")
    return element("devices", {}, [element("device-list", {}, entries), index_list])


def _upload(world: World, sender: Device, iq: Node) -> list[Node]:
    keys, signed, identity = iq.child("list"), iq.child("skey"), iq.child("identity")
    if identity is not None and identity.data != sender.identity:
        raise StanzaError(406, "not-acceptable")
    if keys is not None:
        if len(keys.nodes) > _PREKEYS_PER_UPLOAD_MAX:
            raise StanzaError(400, "bad-request")
        world.storage.add_prekeys(owner_of(sender), [_key(key) for key in keys.children("key")])
    if signed is not None:
        key_id, key = _key(signed)
        signature = signed.child("signature")
        sender.signed_prekey = SignedPrekey(key_id, key, signature.data if signature else b"")
        world.save(world.accounts[sender.number])
    return []


def _key(node: Node) -> tuple[int, bytes]:
    key_id, value = node.child("id"), node.child("value")
    if key_id is None or value is None or len(value.data) != 32:
        raise StanzaError(400, "bad-request")
    return int.from_bytes(key_id.data, "big"), value.data


def _bundle(world: World, jid: Jid | None) -> Node:
    device = world.device(jid)
    if device is None:
        problem = element("error", {"code": 404, "text": "item-not-found"})
        return element("user", {"jid": jid, "t": world.now_s()}, [problem])
    parts = [
        element("registration", {}, device.registration_id.to_bytes(4, "big")),
        element("type", {}, _KEY_TYPE),
        element("identity", {}, device.identity),
    ]
    one_time = world.storage.take_prekey(owner_of(device))
    if one_time:
        key_id, key = one_time
        parts.append(element("key", {}, [element("id", {}, key_id.to_bytes(3, "big")), element("value", {}, key)]))
    signed = device.signed_prekey
    skey = [
        element("id", {}, signed.id.to_bytes(3, "big")),
        element("value", {}, signed.key),
        element("signature", {}, signed.signature),
    ]
    return element("user", {"jid": jid, "t": world.now_s()}, [*parts, element("skey", {}, skey)])
