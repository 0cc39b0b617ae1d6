"""Everything the sandbox must still know after `kill -9`, in one SQLite file.

Guarantee: a stanza is stored before its sender gets an acknowledgement, because every handler runs inside
`Storage.transaction` and answers leave only after the commit. The file is in WAL mode with `synchronous=OFF`: a
killed process loses nothing that was committed (the kernel has it), a machine that loses power may; the latter
does not matter to a simulated network and a commit costs some 30 microseconds instead of milliseconds.

One process, one thread, one connection: nothing here needs a lock.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (kind TEXT, key TEXT, value BLOB, PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blobs (number TEXT, key TEXT, value BLOB, PRIMARY KEY (number, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS blobs_by_key ON blobs (key);
CREATE TABLE IF NOT EXISTS prekeys (
    owner TEXT, id INTEGER, key BLOB, PRIMARY KEY (owner, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stanzas (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, owner TEXT, tag TEXT, id TEXT, detail TEXT, body BLOB);
CREATE INDEX IF NOT EXISTS stanzas_by_owner ON stanzas (owner, tag, id);
CREATE TABLE IF NOT EXISTS patches (
    number TEXT, collection TEXT, version INTEGER, body BLOB, PRIMARY KEY (number, collection, version));
CREATE TABLE IF NOT EXISTS watchers (watched TEXT, watcher TEXT, PRIMARY KEY (watched, watcher)) WITHOUT ROWID;
"""


class Storage:
    """The file `sandbox.db` in a directory, which is made if it is not there; `close` it at the end.

    `owner` is always a device as text, `number:device`.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._db = sqlite3.connect(directory / "sandbox.db", isolation_level=None, cached_statements=256)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.executescript(_SCHEMA)
        self._depth = 0

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing for the writes inside; may be nested, the outermost one commits. Never await inside."""
        if self._depth:
            yield
            return
        self._db.execute("BEGIN IMMEDIATE")
        self._depth = 1
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        else:
            self._db.execute("COMMIT")
        finally:
            self._depth = 0

    # Records: accounts, devices, groups, settings: few, small, loaded at start or read one at a time.

    def put_record(self, kind: str, key: str, value: bytes) -> None:
        """Store a record, replacing what was there."""
        self._db.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", (kind, key, value))

    def record(self, kind: str, key: str) -> bytes | None:
        """One record, or None."""
        row = self._db.execute("SELECT value FROM records WHERE kind=? AND key=?", (kind, key)).fetchone()
        return None if row is None else bytes(row[0])

    def records(self, kind: str) -> list[tuple[str, bytes]]:
        """All records of a kind, sorted by key."""
        rows = self._db.execute("SELECT key, value FROM records WHERE kind=? ORDER BY key", (kind,))
        return [(str(key), bytes(value)) for key, value in rows]

    def drop_record(self, kind: str, key: str) -> None:
        """Forget a record."""
        self._db.execute("DELETE FROM records WHERE kind=? AND key=?", (kind, key))

    # Prekeys: one-time keys of devices, each handed out once.

    def add_prekeys(self, owner: str, keys: Iterable[tuple[int, bytes]]) -> None:
        """Store one-time keys; a repeated id replaces the key."""
        rows = [(owner, key_id, key) for key_id, key in keys]
        self._db.executemany("INSERT OR REPLACE INTO prekeys VALUES (?, ?, ?)", rows)

    def take_prekey(self, owner: str) -> tuple[int, bytes] | None:
        """The one-time key with the lowest id, which is gone from now on; None if none is left."""
        row = self._db.execute(
            "DELETE FROM prekeys WHERE owner=? AND id=(SELECT min(id) FROM prekeys WHERE owner=?) RETURNING id, key",
            (owner, owner),
        ).fetchone()
        return None if row is None else (int(row[0]), bytes(row[1]))

    def count_prekeys(self, owner: str) -> int:
        """How many one-time keys are left."""
        row = self._db.execute("SELECT count(*) FROM prekeys WHERE owner=?", (owner,)).fetchone()
        return int(row[0])

    # Stanzas: what a device has not acknowledged yet.

    def queue(self, owner: str, tag: str, stanza_id: str, detail: str, body: bytes) -> int:
        """Store a stanza for a device; returns its sequence number. `detail` tells apart equal ids (receipts)."""
        cursor = self._db.execute(
            "INSERT INTO stanzas (owner, tag, id, detail, body) VALUES (?, ?, ?, ?, ?)",
            (owner, tag, stanza_id, detail, body),
        )
        return int(cursor.lastrowid or 0)

    def queued(self, owner: str, limit: int) -> list[tuple[int, bytes]]:
        """The oldest stored stanzas of a device as (sequence number, body), in order."""
        rows = self._db.execute("SELECT seq, body FROM stanzas WHERE owner=? ORDER BY seq LIMIT ?", (owner, limit))
        return [(int(seq), bytes(body)) for seq, body in rows]

    def count_queued(self, owner: str) -> int:
        """How many stanzas wait for a device."""
        row = self._db.execute("SELECT count(*) FROM stanzas WHERE owner=?", (owner,)).fetchone()
        return int(row[0])

    def settle(self, owner: str, tag: str, stanza_id: str, detail: str | None = None) -> int:
        """Forget a stanza that its device acknowledged; returns how many were forgotten."""
        if detail is None:
            cursor = self._db.execute("DELETE FROM stanzas WHERE owner=? AND tag=? AND id=?", (owner, tag, stanza_id))
        else:
            cursor = self._db.execute(
                "DELETE FROM stanzas WHERE owner=? AND tag=? AND id=? AND detail=?",
                (owner, tag, stanza_id, detail),
            )
        return cursor.rowcount

    def settle_seq(self, seq: int) -> None:
        """Forget one stanza by its sequence number."""
        self._db.execute("DELETE FROM stanzas WHERE seq=?", (seq,))

    def erase_device(self, owner: str) -> None:
        """Forget keys and stanzas of a device that was unlinked."""
        self._db.execute("DELETE FROM prekeys WHERE owner=?", (owner,))
        self._db.execute("DELETE FROM stanzas WHERE owner=?", (owner,))

    # App state: opaque patches, numbered from 1 in each collection of an account.

    def append_patch(self, number: str, collection: str, version: int, body: bytes) -> None:
        """Store the patch that makes this version."""
        self._db.execute("INSERT INTO patches VALUES (?, ?, ?, ?)", (number, collection, version, body))

    def patches(self, number: str, collection: str, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Patches above a version, in order."""
        rows = self._db.execute(
            "SELECT version, body FROM patches WHERE number=? AND collection=? AND version>? ORDER BY version LIMIT ?",
            (number, collection, after, limit),
        )
        return [(int(version), bytes(body)) for version, body in rows]

    def patch_version(self, number: str, collection: str) -> int:
        """The newest version of a collection; 0 if it is empty."""
        row = self._db.execute(
            "SELECT coalesce(max(version), 0) FROM patches WHERE number=? AND collection=?",
            (number, collection),
        ).fetchone()
        return int(row[0])

    # Watchers: who has asked for an account's device list and must hear of changes.

    def watch(self, watched: str, watcher: str) -> None:
        """Remember that one number has seen the device list of another."""
        self._db.execute("INSERT OR IGNORE INTO watchers VALUES (?, ?)", (watched, watcher))

    def watchers(self, watched: str) -> list[str]:
        """The numbers that have seen an account's device list."""
        rows = self._db.execute("SELECT watcher FROM watchers WHERE watched=?", (watched,))
        return [str(row[0]) for row in rows]

    # Blobs: what simulated phones keep (see `BlobStore`).

    def get(self, number: str, key: str) -> bytes | None:
        """The bytes, or None."""
        row = self._db.execute("SELECT value FROM blobs WHERE number=? AND key=?", (number, key)).fetchone()
        return None if row is None else bytes(row[0])

    def put(self, number: str, key: str, value: bytes) -> None:
        """Store, replacing what was there."""
        self._db.execute("INSERT OR REPLACE INTO blobs VALUES (?, ?, ?)", (number, key, value))

    def put_many(self, number: str, values: dict[str, bytes]) -> None:
        """Store several at once, all or none."""
        with self.transaction():
            for key, value in values.items():
                self.put(number, key, value)

    def delete(self, number: str, key: str) -> None:
        """Forget; nothing happens if it is not there."""
        self._db.execute("DELETE FROM blobs WHERE number=? AND key=?", (number, key))

    def scan(self, number: str, prefix: str) -> list[tuple[str, bytes]]:
        """All (key, bytes) whose key starts with the prefix, sorted by key."""
        rows = self._db.execute(
            "SELECT key, value FROM blobs WHERE number=? AND key>=? AND key<? ORDER BY key",
            (number, prefix, prefix + "\U0010ffff"),
        )
        return [(str(key), bytes(value)) for key, value in rows]

    def owners(self, key: str) -> list[tuple[str, bytes]]:
        """All (number, bytes) that hold this key, sorted by number."""
        rows = self._db.execute("SELECT number, value FROM blobs WHERE key=? ORDER BY number", (key,))
        return [(str(number), bytes(value)) for number, value in rows]
