"""A simulated phone's durable memory: named bytes, written together.

Why a buffer: one stanza changes several things (a session, the message log, a sender key). `put` only notes the change;
`commit` writes all of them in one transaction. A crash before it leaves the phone as it was before the stanza, which
the network then delivers again.
"""

from tomada.sandbox.network_ports import BlobStore


class PhoneStore:
    """The blobs of one phone. Reads see what was put and not committed yet."""

    def __init__(self, blobs: BlobStore, number: str) -> None:
        self._blobs = blobs
        self._number = number
        self._changed: dict[str, bytes | None] = {}

    def get(self, key: str) -> bytes | None:
        """The bytes, or None."""
        if key in self._changed:
            return self._changed[key]
        return self._blobs.get(self._number, key)

    def put(self, key: str, value: bytes) -> None:
        """Note a change; durable after `commit`."""
        self._changed[key] = value

    def delete(self, key: str) -> None:
        """Note that a key is to be forgotten; done after `commit`."""
        self._changed[key] = None

    def scan(self, prefix: str) -> list[tuple[str, bytes]]:
        """All committed (key, bytes) with this prefix, sorted by key."""
        return self._blobs.scan(self._number, prefix)

    def commit(self) -> None:
        """Write every noted change: first all new values at once, then the deletions."""
        changed, self._changed = self._changed, {}
        values = {key: value for key, value in changed.items() if value is not None}
        if values:
            self._blobs.put_many(self._number, values)
        for key in changed.keys() - values.keys():
            self._blobs.delete(self._number, key)
