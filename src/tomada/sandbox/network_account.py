"""What belongs to an account besides its devices: privacy, block list, pictures, about text, app state.

App state is opaque to the network: collections of encrypted patches, numbered from 1. A device that sends a patch
must have seen all earlier ones, else it gets 409 together with those it lacks; the account's other devices, the
phone included, are told that there is a new version, once they have asked for app state at all (a new device has no
keys to read it with, and asks for everything when it gets them).
"""

from __future__ import annotations

import hashlib

import msgspec

from tomada.sandbox.media import MediaStore
from tomada.sandbox.network_devices import unlink
from tomada.sandbox.network_ports import Device
from tomada.sandbox.network_state import Account, StanzaError, World, log
from tomada.sandbox.node import Attrs, Node, element
from tomada.sandbox.protos import server_sync

_PRIVACY = ("readreceipts", "last", "status", "profile", "groupadd", "online", "calladd")
_PATCHES_PER_ANSWER = 500
_PATCH_BYTES_MAX = 1 << 20
_PICTURE_BYTES_MAX = 1 << 20
_ABOUT_CHARS_MAX = 139
_MEX_SET_ABOUT = "9152604461510864"
"""Number of the query that sets the about text, as in whatsmeow (user.go)."""


class _MexAboutInput(msgspec.Struct):
    text: str | None = None


class _MexAboutVariables(msgspec.Struct):
    input: _MexAboutInput


class _MexAbout(msgspec.Struct):
    variables: _MexAboutVariables


def handle_md(world: World, sender: Device, iq: Node) -> list[Node]:
    """A device logs itself out."""
    if iq.child("remove-companion-device") is not None:
        world.after_commit(lambda: _unlink_later(world, sender))
    return []


def _unlink_later(world: World, sender: Device) -> None:
    """Unlink after the answer has left, because unlinking closes the connection."""
    with world.work():
        unlink(world, sender.number, sender.id)


def handle_privacy(world: World, sender: Device, iq: Node) -> list[Node]:
    """Privacy settings (all of them `all` at first); tokens for contacts are taken and forgotten."""
    stored = (world.storage.record("privacy", sender.number) or b"").decode().split()
    settings = {**dict.fromkeys(_PRIVACY, "all"), **dict(pair.split("=", 1) for pair in stored)}
    asked = iq.child("privacy")
    if iq.text("type") == "set":
        if asked is None:
            return []
        for category in asked.children("category"):
            if category.text("name") not in _PRIVACY or not category.text("value").isidentifier():
                raise StanzaError(400, "bad-request")
            settings[category.text("name")] = category.text("value")
        text = " ".join(f"{name}={value}" for name, value in settings.items())
        world.storage.put_record("privacy", sender.number, text.encode())
    categories = [element("category", {"name": name, "value": value}) for name, value in settings.items()]
    return [element("privacy", {}, categories)]


def handle_blocklist(world: World, sender: Device, iq: Node) -> list[Node]:
    """Read or change whom an account has blocked; other devices of the account are told."""
    numbers = (world.storage.record("blocklist", sender.number) or b"").decode().split()
    item = iq.child("item")
    if iq.text("type") == "set" and item is not None:
        account = world.account(item.jid("jid"))
        if account is None:
            raise StanzaError(404, "item-not-found")
        numbers = [number for number in numbers if number != account.number]
        if item.text("action") == "block":
            numbers.append(account.number)
        world.storage.put_record("blocklist", sender.number, " ".join(numbers).encode())
        change = element("item", {"action": item.text("action"), "jid": account.lid})
        for device in _others(world, sender):
            body = [element("blocklist", {"action": "modify"}, [change])]
            world.notify(device, "account_sync", world.accounts[sender.number].pn, body)
    items = [element("item", {"jid": world.accounts[number].lid}) for number in numbers]
    digest = hashlib.sha256(" ".join(numbers).encode()).hexdigest()[:16]
    return [element("list", {"dhash": digest}, items)]


def handle_status(world: World, sender: Device, iq: Node) -> list[Node]:
    """Set the about text."""
    status = iq.child("status")
    if iq.text("type") == "set" and status is not None:
        _set_about(world, sender, status.data.decode(errors="replace"))
    return []


def handle_mex(world: World, sender: Device, iq: Node) -> list[Node]:
    """JSON queries: setting the about text is known; others answer that they are not simulated."""
    query = iq.child("query")
    if query is None:
        raise StanzaError(400, "bad-request")
    if query.text("query_id") != _MEX_SET_ABOUT:
        log.info("unknown query %s: %r", query.text("query_id"), query.data[:200])
        problem = {"message": "not simulated", "extensions": {"error_code": 501}}
        return [element("result", {}, msgspec.json.encode({"data": None, "errors": [problem]}))]
    try:
        text = msgspec.json.decode(query.data, type=_MexAbout).variables.input.text
    except msgspec.DecodeError as error:
        raise StanzaError(400, "bad-request") from error
    _set_about(world, sender, text or "")
    return [element("result", {}, msgspec.json.encode({"data": {"xwa2_update_text_status": {"result": "SUCCESS"}}}))]


def _set_about(world: World, sender: Device, text: str) -> None:
    account = world.accounts[sender.number]
    account.about = text[:_ABOUT_CHARS_MAX]
    world.save(account)


def handle_media_connection(world: World, sender: Device, iq: Node) -> list[Node]:
    """Where to upload and download media."""
    head: Attrs = {"auth": "sandbox", "ttl": 300, "auth_ttl": 21600, "max_buckets": 12}
    return [element("media_conn", head, [element("host", {"hostname": "mmg.whatsapp.net"})])]


def handle_picture(world: World, media: MediaStore, sender: Device, iq: Node) -> list[Node]:
    """Get or set the picture of an account or a group (`target`)."""
    own = world.accounts[sender.number]
    target = iq.jid("target") or (iq.jid("to") if iq.text("type") == "get" else None)
    if target is None or not target.user:
        target = own.pn
    account = world.account(target)
    key = str(account.pn if account else target.bare)
    picture = iq.child("picture")
    if iq.text("type") == "get":
        return _picture(world, key, picture)
    group = world.groups.get(target.user) if target.is_group else None
    if (account is not own) if group is None else not group.is_admin(sender.number):
        raise StanzaError(401, "not-authorized")
    if picture is None or not picture.data:
        world.storage.drop_record("picture", key)
        return []
    if len(picture.data) > _PICTURE_BYTES_MAX:
        raise StanzaError(406, "not-acceptable")
    picture_id = str(world.clock.now_ms())
    location = media.save("picture", picture.data)
    world.storage.put_record("picture", key, f"{picture_id} {location.direct_path}".encode())
    return [element("picture", {"id": picture_id})]


def _picture(world: World, key: str, asked: Node | None) -> list[Node]:
    record = world.storage.record("picture", key)
    if record is None:
        raise StanzaError(404, "item-not-found")
    picture_id, _, path = record.decode().partition(" ")
    if asked is not None and asked.text("id") == picture_id:
        return []
    kind = asked.text("type", "image") if asked is not None else "image"
    url = f"https://pps.whatsapp.net{path}"
    return [element("picture", {"id": picture_id, "type": kind, "url": url, "direct_path": path})]


def handle_app_state(world: World, sender: Device, iq: Node) -> list[Node]:
    """Take a patch of each named collection, or hand out what the device lacks."""
    sync = iq.child("sync")
    if sync is None:
        raise StanzaError(400, "bad-request")
    answers = [_collection(world, sender, collection) for collection in sync.children("collection")]
    return [element("sync", {}, answers)]


def _collection(world: World, sender: Device, asked: Node) -> Node:
    name, number = asked.text("name"), sender.number
    seen = asked.text("version", "0")
    if not name or not seen.isdigit():
        raise StanzaError(400, "bad-request")
    newest = world.storage.patch_version(number, name)
    patch = asked.child("patch")
    if patch is None:
        if not sender.synced:
            sender.synced = True
            world.save(world.accounts[number])
        body = _patches(world, number, name, int(seen))
        more = int(seen) + _PATCHES_PER_ANSWER < newest
        return element("collection", {"name": name, "version": newest, "has_more_patches": more}, body)
    if int(seen) != newest:
        problem = element("error", {"code": 409, "text": "conflict"})
        body = [problem, *(_patches(world, number, name, int(seen)) or [])]
        return element("collection", {"name": name, "type": "error", "version": newest}, body)
    if len(patch.data) > _PATCH_BYTES_MAX:
        raise StanzaError(406, "not-acceptable")
    stored = server_sync.SyncdPatch.FromString(patch.data)
    stored.version.version = newest + 1
    world.storage.append_patch(number, name, newest + 1, stored.SerializeToString())
    announced = element("collection", {"name": name, "version": newest + 1})
    for device in (other for other in _others(world, sender) if other.synced):
        world.notify(device, "server_sync", world.accounts[number].pn, [announced])
    return announced


def _patches(world: World, number: str, name: str, after: int) -> list[Node] | None:
    rows = world.storage.patches(number, name, after, _PATCHES_PER_ANSWER)
    if not rows:
        return None
    return [element("patches", {}, [element("patch", {}, body) for _, body in rows])]


def _others(world: World, sender: Device) -> list[Device]:
    account: Account = world.accounts[sender.number]
    return [device for device in account.devices.values() if device is not sender]
