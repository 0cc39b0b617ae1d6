"""What a simulated phone has received and sent, in the order of arrival, kept durably.

Each entry keeps the decrypted message as bytes: the JSON shown to a tester is made from it when asked for, and a retry
or a quote can be built from it. Entries are found by message id. At most `ENTRIES_MAX` are kept; the oldest go first.

What rests on what: changes go into the phone's `PhoneStore` and become durable with its `commit`.
"""

import msgspec

from tomada.sandbox.phone_store import PhoneStore

ENTRIES_MAX = 5000
_PREFIX = "log/"
_RANKS = {"pending": 0, "failed": 0, "sent": 1, "delivered": 2, "read": 3, "played": 4}


class ReceiptRow(msgspec.Struct, frozen=True):
    """One receipt for a message of ours: `kind` is delivered, read or played; `by` a phone number."""

    kind: str
    by: str
    at_ms: int


class LogEntry(msgspec.Struct, frozen=True):
    """One message. `sender` is a number, `chat` a number or a group address; `payload` the decrypted message."""

    sequence: int
    id: str
    sender: str
    sender_device: int
    chat: str
    from_me: bool
    at_ms: int
    payload: bytes
    state: str = ""
    """Of a message this phone sent: pending, sent (acknowledged by the network) or failed. Else empty."""
    receipts: tuple[ReceiptRow, ...] = ()

    @property
    def status(self) -> str:
        """The highest stage it has reached: pending, failed, sent, delivered, read, played; empty if not ours."""
        return max((self.state, *(receipt.kind for receipt in self.receipts)), key=lambda kind: _RANKS.get(kind, -1))


_decoder = msgspec.msgpack.Decoder(LogEntry)


class MessageLog:
    """The log of one phone; read from the store when first used."""

    def __init__(self, store: PhoneStore) -> None:
        self._store = store
        self._loaded: dict[str, LogEntry] | None = None
        self._next = 0

    def entries(self) -> list[LogEntry]:
        """All entries, the oldest first."""
        return list(self._entries().values())

    def find(self, message_id: str) -> LogEntry | None:
        """The entry with this id, or None."""
        return self._entries().get(message_id)

    def append(self, entry: LogEntry) -> bool:
        """Add at the end (its sequence is set here); False if the id is there already."""
        entries = self._entries()
        if entry.id in entries:
            return False
        self._keep(msgspec.structs.replace(entry, sequence=self._next))
        self._next += 1
        while len(entries) > ENTRIES_MAX:
            oldest = entries.pop(next(iter(entries)))
            self._store.delete(_key(oldest))
        return True

    def set_state(self, message_id: str, state: str) -> None:
        """Note what became of a message of ours."""
        if entry := self.find(message_id):
            self._keep(msgspec.structs.replace(entry, state=state))

    def add_receipt(self, message_id: str, receipt: ReceiptRow) -> None:
        """Note a receipt; the same kind by the same number counts once, and an unknown id is ignored."""
        entry = self.find(message_id)
        if entry is None or any(one.kind == receipt.kind and one.by == receipt.by for one in entry.receipts):
            return
        self._keep(msgspec.structs.replace(entry, receipts=(*entry.receipts, receipt)))

    def _entries(self) -> dict[str, LogEntry]:
        if self._loaded is None:
            rows = [_decoder.decode(value) for _, value in self._store.scan(_PREFIX)]
            self._loaded = {entry.id: entry for entry in rows}
            self._next = rows[-1].sequence + 1 if rows else 0
        return self._loaded

    def _keep(self, entry: LogEntry) -> None:
        self._entries()[entry.id] = entry
        self._store.put(_key(entry), msgspec.msgpack.encode(entry))


def _key(entry: LogEntry) -> str:
    return f"{_PREFIX}{entry.sequence:012d}"
