"""Blobs in memory, for tests of one phone without the network's file."""


class MemoryBlobs:
    """A `BlobStore` that forgets with the process."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], bytes] = {}

    def get(self, number: str, key: str) -> bytes | None:
        """The bytes, or None."""
        return self.rows.get((number, key))

    def put(self, number: str, key: str, value: bytes) -> None:
        """Store one."""
        self.rows[number, key] = value

    def put_many(self, number: str, values: dict[str, bytes]) -> None:
        """Store several."""
        for key, value in values.items():
            self.rows[number, key] = value

    def delete(self, number: str, key: str) -> None:
        """Forget one."""
        self.rows.pop((number, key), None)

    def scan(self, number: str, prefix: str) -> list[tuple[str, bytes]]:
        """Sorted pairs with this prefix."""
        return sorted((k, v) for (n, k), v in self.rows.items() if n == number and k.startswith(prefix))

    def owners(self, key: str) -> list[tuple[str, bytes]]:
        """Sorted holders of a key."""
        return sorted((n, v) for (n, k), v in self.rows.items() if k == key)
