"""The store: what is committed is there, what is settled is gone."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tomada.sandbox.storage import Storage


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    """A store in a fresh directory."""
    made = Storage(tmp_path)
    yield made
    made.close()


def test_a_prekey_is_handed_out_once(storage: Storage) -> None:
    """Lowest id first, each once, then none."""
    storage.add_prekeys("1:1", [(2, b"b"), (1, b"a")])

    assert storage.count_prekeys("1:1") == 2
    assert [storage.take_prekey("1:1") for _ in range(3)] == [(1, b"a"), (2, b"b"), None]


def test_stanzas_keep_their_order_until_they_are_settled(storage: Storage) -> None:
    """Settling removes by tag and id, for that device only; equal ids of receipts are told apart."""
    storage.queue("1:1", "message", "A", "", b"1")
    storage.queue("1:1", "receipt", "A", "read x ", b"2")
    storage.queue("1:1", "receipt", "A", "read y ", b"3")
    storage.queue("1:2", "message", "A", "", b"4")

    assert storage.settle("1:1", "message", "A") == 1
    assert storage.settle("1:1", "receipt", "A", "read x ") == 1
    assert [body for _, body in storage.queued("1:1", 10)] == [b"3"]
    assert storage.count_queued("1:2") == 1


def test_a_failed_transaction_leaves_nothing(storage: Storage) -> None:
    """Nested work is part of the outermost; an error undoes all of it."""

    def fail() -> None:
        with storage.transaction():
            storage.put_record("a", "b", b"c")
            with storage.transaction():
                storage.put("1", "k", b"v")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()

    assert storage.record("a", "b") is None
    assert storage.get("1", "k") is None


def test_committed_work_survives_without_a_clean_close(tmp_path: Path) -> None:
    """A second connection sees what the first committed, though that was never closed."""
    first = Storage(tmp_path)
    first.put("1", "k", b"v")
    first.queue("1:1", "message", "A", "", b"1")

    second = Storage(tmp_path)
    assert second.get("1", "k") == b"v"
    assert second.count_queued("1:1") == 1
    second.close()
    first.close()


def test_blobs_are_found_by_prefix_and_by_owner(storage: Storage) -> None:
    """`scan` keeps to the prefix and the number, sorted; `owners` finds all numbers with a key."""
    storage.put_many("1", {"log/2": b"b", "log/1": b"a", "other": b"x", "log": b"y"})
    storage.put("2", "other", b"z")

    assert storage.scan("1", "log/") == [("log/1", b"a"), ("log/2", b"b")]
    assert storage.owners("other") == [("1", b"x"), ("2", b"z")]
    storage.delete("1", "other")
    assert storage.owners("other") == [("2", b"z")]


def test_patches_are_numbered(storage: Storage) -> None:
    """Patches above a version come in order; the newest version is known."""
    for version in (1, 2, 3):
        storage.append_patch("1", "regular", version, b"%d" % version)

    assert storage.patch_version("1", "regular") == 3
    assert storage.patch_version("1", "critical_block") == 0
    assert storage.patches("1", "regular", after=1, limit=10) == [(2, b"2"), (3, b"3")]
