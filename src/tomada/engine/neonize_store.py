"""Where a session's keys live, in the words the library wants.

The library takes one string. If it begins with `postgres` it is a connection URL; else it is put between `file:` and
`?_foreign_keys=on`, so options ride along in it. Ours for SQLite:

- WAL with synchronous=NORMAL: a commit writes to the operating system and syncs nothing, a checkpoint syncs. After
  kill -9 nothing is lost; after a power cut the file is whole and may lack the last moments, which Signal's retry
  mends. Pairing is 812 single-row commits: with a sync each it takes seconds, so this is also what makes it quick.
- a busy timeout, because an abandoned round of QR codes may still hold the file open.

The last option swallows what the library appends.
"""

from urllib.parse import quote

_OPTIONS = "_journal_mode=WAL&_synchronous=NORMAL&_busy_timeout=10000&_foreign_keys=on&x="


def store_text(store: str) -> str:
    """A SessionSpec's `store` (file path or PostgreSQL URL) as the library's text."""
    if is_postgres(store):
        return store
    return f"{quote(store)}?{_OPTIONS}"


def is_postgres(store: str) -> bool:
    """Is this store a PostgreSQL URL?"""
    return store.startswith(("postgres://", "postgresql://"))
