"""Settings shared between devices: what one device writes another reads, and tampering is noticed."""

import pytest

from tomada.sandbox import appstate, protos
from tomada.sandbox.appstate import BrokenPatch, Collection, SyncKey, apply_patch, make_patch

KEY = appstate.create_key()
EMPTY = Collection("critical_block")


def _name_patch(collection: Collection, name: str, key: SyncKey = KEY) -> tuple[Collection, bytes]:
    value = appstate.push_name_value(name, 1)
    return make_patch(key, collection, appstate.PUSH_NAME_INDEX, value, 1)


def test_a_reader_arrives_at_the_writers_state() -> None:
    """After each patch both have the same hash and version, and the reader knows the value."""
    written = read = EMPTY
    for name in ("Ana", "Ana Maria", "Ana"):
        written, patch = _name_patch(written, name)
        read, mutations = apply_patch(KEY, read, patch)
        assert read == written
        assert [one.value.pushNameSetting.name for one in mutations] == [name]


def test_setting_a_value_back_gives_another_state_but_the_same_size() -> None:
    """An overwritten value leaves the hash, so one index holds one value."""
    one, _ = _name_patch(EMPTY, "a")
    two, _ = _name_patch(one, "b")
    assert len(two.values) == 1
    assert two.hash != one.hash


def test_different_settings_live_side_by_side() -> None:
    """A second index in one collection is kept beside the first, and read as itself."""
    value = protos.sync_action.SyncActionValue(timestamp=1)
    value.pinAction.pinned = True
    named, _ = _name_patch(EMPTY, "a")
    both, patch = make_patch(KEY, named, ["pin_v1", "1@lid"], value, 5)
    read, mutations = apply_patch(KEY, named, patch)
    assert (len(read.values), read) == (2, both)
    assert [(one.index, one.value.pinAction.pinned) for one in mutations] == [(["pin_v1", "1@lid"], True)]


@pytest.mark.parametrize("place", ["value", "snapshot", "patch"])
def test_a_changed_patch_is_refused(place: str) -> None:
    """Any changed MAC or value is noticed."""
    _, data = _name_patch(EMPTY, "a")
    patch = protos.server_sync.SyncdPatch.FromString(data)
    match place:
        case "value":
            blob = patch.mutations[0].record.value.blob
            patch.mutations[0].record.value.blob = blob[:20] + bytes([blob[20] ^ 1]) + blob[21:]
        case "snapshot":
            patch.snapshotMAC = bytes(32)
        case _:
            patch.patchMAC = bytes(32)
    with pytest.raises(BrokenPatch):
        apply_patch(KEY, EMPTY, patch.SerializeToString())


def test_a_left_out_patch_is_noticed() -> None:
    """The second patch does not fit on the empty state, and its announced version says so too."""
    one, _ = _name_patch(EMPTY, "a")
    _, second = _name_patch(one, "b")
    with pytest.raises(BrokenPatch):
        apply_patch(KEY, EMPTY, second)
    numbered = protos.server_sync.SyncdPatch.FromString(second)
    numbered.version.version = 7
    with pytest.raises(BrokenPatch, match="does not follow"):
        apply_patch(KEY, one, numbered.SerializeToString())


def test_a_patch_under_another_key_is_refused() -> None:
    """Only the shared key reads."""
    _, data = _name_patch(EMPTY, "a", appstate.create_key())
    with pytest.raises(BrokenPatch, match="key"):
        apply_patch(KEY, EMPTY, data)


def test_the_key_share_carries_the_key() -> None:
    """The message for a new companion holds id, data and the phone's fingerprint."""
    share = appstate.key_share(KEY, 77, 5).protocolMessage.appStateSyncKeyShare.keys[0]
    assert (share.keyID.keyID, share.keyData.keyData, share.keyData.fingerprint.rawID) == (KEY.id, KEY.data, 77)
