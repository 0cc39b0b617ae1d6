"""App state: the settings that all devices of one account share through the server, which cannot read them.

Settings live in named collections. A change is a patch: encrypted mutations, and MACs over the whole state after it, so
that a device notices any patch that was left out, doubled or swapped. The state is summed up in an LTHash: 64 lanes of
16 bits to which each setting's MAC is added and from which an overwritten one is subtracted, in whatever order.

Here a phone writes such patches (`make_patch`; the engine refuses to send presence before it has read the push name
from one) and reads those of its companions (`apply_patch`). Values are frozen.

Facts: keys are 160 bytes of HKDF "WhatsApp Mutation Keys" (index, value cipher, value MAC, snapshot MAC, patch MAC);
value = vector, AES-CBC, 32 bytes of HMAC-SHA512 over operation + 1, key id, ciphertext and the big-endian length of
key id + 1; snapshot MAC covers hash, version, name; patch MAC covers snapshot MAC, value MACs, version, name.
"""

import hmac
import json
import os
import struct
from collections.abc import Iterable
from typing import Any

import msgspec

from tomada.sandbox import protos
from tomada.sandbox.curve import hkdf
from tomada.sandbox.signal_ciphers import cbc_decrypt, cbc_encrypt

PUSH_NAME_COLLECTION = "critical_block"
PUSH_NAME_INDEX = ["setting_pushName"]
_MAC_BYTES = 32
_HASH_BYTES = 128
_LANES = struct.Struct("<64H")


class BrokenPatch(ValueError):
    """A patch does not follow from the state before it, or was changed"""


class SyncKey(msgspec.Struct, frozen=True, array_like=True):
    """The key that the account's devices share: 6 bytes of id, 32 of data."""

    id: bytes
    data: bytes


class Collection(msgspec.Struct, frozen=True, array_like=True):
    """One collection as far as it has been read: `values` maps an index MAC to its value MAC."""

    name: str
    version: int = 0
    hash: bytes = bytes(_HASH_BYTES)
    values: dict[bytes, bytes] = {}


class Mutation(msgspec.Struct, frozen=True):
    """One change in plain: `value` is a `SyncActionValue`; None = removed."""

    index: list[str]
    value: Any


class _Keys(msgspec.Struct, frozen=True):
    index: bytes
    cipher: bytes
    value_mac: bytes
    snapshot_mac: bytes
    patch_mac: bytes


def create_key() -> SyncKey:
    """A fresh key in the form phones use: device 0, then a random epoch."""
    return SyncKey(b"\x00\x01" + os.urandom(4), os.urandom(32))


def make_patch(
    key: SyncKey, collection: Collection, index: list[str], value: Any, action_version: int
) -> tuple[Collection, bytes]:
    """The patch that sets one value, and the collection after it.

    The patch carries no version: the server gives it the next one, which is what the MACs already count on.
    """
    keys = _derive(key)
    index_json = json.dumps(index, separators=(",", ":")).encode()
    data = protos.sync_action.SyncActionData(index=index_json, value=value, padding=b"", version=action_version)
    vector = os.urandom(16)
    ciphertext = vector + cbc_encrypt(keys.cipher, vector, data.SerializeToString())
    value_mac = _value_mac(keys, 0, key.id, ciphertext)
    index_mac = hmac.digest(keys.index, index_json, "sha256")
    after = _put(collection, {index_mac: value_mac})

    patch = protos.server_sync.SyncdPatch()
    mutation = patch.mutations.add()
    mutation.operation = protos.server_sync.SyncdMutation.SET
    mutation.record.index.blob = index_mac
    mutation.record.value.blob = ciphertext + value_mac
    mutation.record.keyID.ID = key.id
    patch.keyID.ID = key.id
    patch.snapshotMAC = _snapshot_mac(keys, after)
    patch.patchMAC = _patch_mac(keys, patch.snapshotMAC, [value_mac], after)
    return after, patch.SerializeToString()


def apply_patch(key: SyncKey, collection: Collection, data: bytes) -> tuple[Collection, list[Mutation]]:
    """Read one patch: the collection after it and what it changed; `BrokenPatch` if any MAC is wrong."""
    patch = protos.server_sync.SyncdPatch.FromString(data)
    if key.id != patch.keyID.ID:
        raise BrokenPatch("the patch is under a key we do not have")
    keys = _derive(key)
    changes: dict[bytes, bytes | None] = {}
    mutations, value_macs = [], []
    for mutation in patch.mutations:
        blob = mutation.record.value.blob
        ciphertext, value_mac = blob[:-_MAC_BYTES], blob[-_MAC_BYTES:]
        if not hmac.compare_digest(_value_mac(keys, mutation.operation, key.id, ciphertext), value_mac):
            raise BrokenPatch("a value was changed")
        removed = mutation.operation == protos.server_sync.SyncdMutation.REMOVE
        changes[mutation.record.index.blob] = None if removed else value_mac
        value_macs.append(value_mac)
        plain = protos.sync_action.SyncActionData.FromString(cbc_decrypt(keys.cipher, ciphertext[:16], ciphertext[16:]))
        mutations.append(Mutation(json.loads(plain.index), None if removed else plain.value))
    after = _put(collection, changes)
    if patch.HasField("version") and patch.version.version != after.version:
        raise BrokenPatch(f"patch {patch.version.version} does not follow {collection.version}")
    if not hmac.compare_digest(_snapshot_mac(keys, after), patch.snapshotMAC):
        raise BrokenPatch("the state after the patch is another one")
    if not hmac.compare_digest(_patch_mac(keys, patch.snapshotMAC, value_macs, after), patch.patchMAC):
        raise BrokenPatch("the patch was changed")
    return after, mutations


def key_share(key: SyncKey, raw_id: int, timestamp_ms: int) -> Any:
    """The message that gives a new companion the key."""
    message = protos.e2e.Message()
    message.protocolMessage.type = protos.e2e.ProtocolMessage.APP_STATE_SYNC_KEY_SHARE
    shared = message.protocolMessage.appStateSyncKeyShare.keys.add()
    shared.keyID.keyID = key.id
    shared.keyData.keyData = key.data
    shared.keyData.fingerprint.rawID = raw_id
    shared.keyData.fingerprint.currentIndex = 0
    shared.keyData.timestamp = timestamp_ms
    return message


def push_name_value(name: str, timestamp_ms: int) -> Any:
    """The setting that says how the account calls itself."""
    value = protos.sync_action.SyncActionValue(timestamp=timestamp_ms)
    value.pushNameSetting.name = name
    return value


def _put(collection: Collection, changes: dict[bytes, bytes | None] | dict[bytes, bytes]) -> Collection:
    values = dict(collection.values)
    minus = [values.pop(index) for index in changes if index in values]
    plus = {index: value for index, value in changes.items() if value is not None}
    summed = _sum(collection.hash, plus.values(), minus)
    return Collection(collection.name, collection.version + 1, summed, values | plus)


def _sum(state: bytes, plus: Iterable[bytes], minus: Iterable[bytes]) -> bytes:
    lanes = list(_LANES.unpack(state))
    for sign, macs in ((1, plus), (-1, minus)):
        for mac in macs:
            spread = _LANES.unpack(hkdf(mac, _HASH_BYTES, info=b"WhatsApp Patch Integrity"))
            lanes = [(lane + sign * more) & 0xFFFF for lane, more in zip(lanes, spread, strict=True)]
    return _LANES.pack(*lanes)


def _derive(key: SyncKey) -> _Keys:
    made = hkdf(key.data, 160, info=b"WhatsApp Mutation Keys")
    return _Keys(*(made[at : at + 32] for at in range(0, 160, 32)))


def _value_mac(keys: _Keys, operation: int, key_id: bytes, ciphertext: bytes) -> bytes:
    about = bytes([operation + 1]) + key_id
    covered = about + ciphertext + len(about).to_bytes(8, "big")
    return hmac.digest(keys.value_mac, covered, "sha512")[:_MAC_BYTES]


def _snapshot_mac(keys: _Keys, state: Collection) -> bytes:
    covered = state.hash + state.version.to_bytes(8, "big") + state.name.encode()
    return hmac.digest(keys.snapshot_mac, covered, "sha256")


def _patch_mac(keys: _Keys, snapshot_mac: bytes, value_macs: list[bytes], state: Collection) -> bytes:
    covered = snapshot_mac + b"".join(value_macs) + state.version.to_bytes(8, "big") + state.name.encode()
    return hmac.digest(keys.patch_mac, covered, "sha256")
