"""A simulated phone shares its settings (app state) with its companions; today that is the push name.

A companion that has just logged in gets the key (`welcome`), then asks the network for all collections by itself.
The phone writes its name once before that, and reads what its companions write, so that a name set through the API
becomes the phone's name too.
"""

import logging
from typing import Any

import msgspec

from tomada.sandbox import appstate, phone_outbox
from tomada.sandbox.appstate import Collection, SyncKey
from tomada.sandbox.node import SERVER, AttrValue, Jid, Node, element
from tomada.sandbox.phone import NetworkRefused, Phone

_ATTEMPTS_MAX = 5
_PAGES_MAX = 100
_KEY_NAME = "appstate/key"
_log = logging.getLogger(__name__)


async def welcome(phone: Phone, companion: Jid) -> None:
    """Give a companion the key, after making sure that there is a name to read."""
    async with phone.settings_lock:
        if _collection(phone, appstate.PUSH_NAME_COLLECTION).version == 0:
            await _write_name(phone, phone.name)
    key = _key(phone)
    message = appstate.key_share(key, phone.record.raw_id, phone.clock.now_ms())
    await phone_outbox.send_peer(phone, companion, message)


async def rename(phone: Phone, name: str) -> None:
    """Change the push name, here and on all companions."""
    async with phone.settings_lock:
        if phone.store.get(_KEY_NAME) is not None:
            await _write_name(phone, name)
        await _set_name(phone, name)


async def catch_up(phone: Phone, name: str) -> None:
    """Read what companions wrote to a collection since we last looked."""
    if phone.store.get(_KEY_NAME) is None:
        return
    async with phone.settings_lock:
        for _ in range(_PAGES_MAX):
            answer = await _sync(phone, _collection(phone, name), None)
            await _apply(phone, _collection(phone, name), answer)
            if answer.text("has_more_patches") != "true":
                return


async def _write_name(phone: Phone, name: str) -> None:
    for _ in range(_ATTEMPTS_MAX):
        collection = _collection(phone, appstate.PUSH_NAME_COLLECTION)
        value = appstate.push_name_value(name, phone.clock.now_ms())
        after, patch = appstate.make_patch(_key(phone), collection, appstate.PUSH_NAME_INDEX, value, 1)
        answer = await _sync(phone, collection, patch)
        if answer.text("type") != "error":
            _keep(phone, after)
            phone.store.commit()
            return
        await _apply(phone, collection, answer)
    raise NetworkRefused("the settings kept changing")


async def _sync(phone: Phone, collection: Collection, patch: bytes | None) -> Node:
    attrs: dict[str, AttrValue | int | bool | None] = {
        "name": collection.name,
        "version": collection.version,
        "return_snapshot": False,
    }
    content = None if patch is None else [element("patch", content=patch)]
    request = element(
        "iq",
        {"to": SERVER, "type": "set", "xmlns": "w:sync:app:state", "id": phone.new_id()},
        [element("sync", content=[element("collection", attrs, content)])],
    )
    answer = (await phone.ask(request)).child("sync", "collection")
    if answer is None:
        raise NetworkRefused("the network answered without a collection")
    return answer


async def _apply(phone: Phone, collection: Collection, answer: Node) -> None:
    patches = answer.child("patches")
    name = phone.name
    for patch in patches.children("patch") if patches else ():
        try:
            collection, mutations = appstate.apply_patch(_key(phone), collection, patch.data)
        except appstate.BrokenPatch:
            _log.warning("%s cannot read a patch of %s", phone.number, collection.name, exc_info=True)
            return
        for mutation in mutations:
            name = _pushed_name(mutation.index, mutation.value) or name
    _keep(phone, collection)
    phone.store.commit()
    await _set_name(phone, name)


async def _set_name(phone: Phone, name: str) -> None:
    if name != phone.name:
        phone.update(msgspec.structs.replace(phone.record, name=name))
        await phone.network.attach(phone)


def _pushed_name(index: list[str], value: Any) -> str:
    return str(value.pushNameSetting.name) if index == appstate.PUSH_NAME_INDEX and value is not None else ""


def _key(phone: Phone) -> SyncKey:
    stored = phone.store.get(_KEY_NAME)
    if stored is not None:
        return msgspec.msgpack.decode(stored, type=SyncKey)
    key = appstate.create_key()
    phone.store.put(_KEY_NAME, msgspec.msgpack.encode(key))
    return key


def _collection(phone: Phone, name: str) -> Collection:
    stored = phone.store.get(f"appstate/collection/{name}")
    return msgspec.msgpack.decode(stored, type=Collection) if stored else Collection(name)


def _keep(phone: Phone, collection: Collection) -> None:
    phone.store.put(f"appstate/collection/{collection.name}", msgspec.msgpack.encode(collection))
