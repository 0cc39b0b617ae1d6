"""The file that keeps a machine's events until the host has committed them.

One line an event, in the very form in which the host is told, so telling again after a crash is reading the file. An
event is written before the host hears of it and before `append` returns.

No fsync: what must be survived is kill -9 of any process, and bytes handed to the operating system survive that. A
power cut may cost the last moments; so it does for the session's own keys (engine/neonize_store.py), and a sync per
event would cost more than all the rest of its way.

Numbers grow over the life of the folder: the first of a new process is the clock's, in microseconds, or one more than
the last in the file, whichever is more. So an emptied file needs to remember nothing.

The file is cut to nothing when everything is acknowledged, and rewritten without its acknowledged part when that part
is large. It holds at most `bytes_max`: then `append` waits for the host. The engine stops giving events meanwhile,
WhatsApp keeps what it could not deliver, and nothing is dropped. A torn last line (killed while writing) was told to
nobody and is cut off.
"""

import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from threading import Condition

import msgspec

from tomada.kit.clock import Clock
from tomada.machines.protocol import Happened

BYTES_MAX = 64 << 20
REWRITE_BYTES = 1 << 20
_decode = msgspec.json.Decoder(Happened).decode


class JournalFull(Exception):
    """No room, and the host did not acknowledge anything within the time given."""


class Journal:
    """An append-only file of told but unacknowledged events; safe to use from any thread."""

    def __init__(self, path: Path, clock: Clock, bytes_max: int = BYTES_MAX) -> None:
        """Open or make the file and read what is in it; a torn end is cut off."""
        self._path = path
        self._bytes_max = bytes_max
        self._changed = Condition()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._open: deque[tuple[int, int]] = deque()  # (number, bytes of the line), oldest first
        self._size = 0
        self._dead = 0  # bytes at the front that are acknowledged
        last = max((number for number, _ in self._read()), default=0)
        self._next = max(last + 1, clock.now_ms() * 1000)

    def append(
        self, line_of: Callable[[int], bytes], then: Callable[[bytes], None], wait_s: float | None = None
    ) -> int:
        """Write the line that `line_of(number)` makes (ends in a newline), then pass it on; returns the number.

        Lines are passed on in the order of their numbers: `then` is called under the journal's lock, so it must not
        block. Waits while the journal is full, `wait_s` at most (None: for ever); raises JournalFull after that.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._size - self._dead < self._bytes_max, wait_s):
                raise JournalFull
            number = self._next
            line = line_of(number)
            _write(self._file, line, self._size)
            self._next = number + 1
            self._open.append((number, len(line)))
            self._size += len(line)
            then(line)
            return number

    def acknowledge(self, number: int) -> None:
        """Forget every event up to and including this number."""
        with self._changed:
            while self._open and self._open[0][0] <= number:
                self._dead += self._open.popleft()[1]
            if self._dead and (not self._open or self._dead >= REWRITE_BYTES):
                self._rewrite()
            self._changed.notify_all()

    def lines(self) -> list[bytes]:
        """What is not acknowledged, oldest first, as it was told."""
        with self._changed:
            data = os.pread(self._file, self._size - self._dead, self._dead)
            return data.splitlines(keepends=True)

    def close(self) -> None:
        """Close the file; nothing may be appended afterwards."""
        with self._changed:
            os.close(self._file)

    def _read(self) -> deque[tuple[int, int]]:
        data = os.pread(self._file, os.fstat(self._file).st_size, 0)
        for line in data.splitlines(keepends=True):
            if (number := _number(line)) is None:
                break
            self._open.append((number, len(line)))
            self._size += len(line)
        os.ftruncate(self._file, self._size)
        return self._open

    def _rewrite(self) -> None:
        """Drop the acknowledged front. A reader after kill -9 finds the old file or the new one, both right."""
        rest = os.pread(self._file, self._size - self._dead, self._dead)
        if rest:
            fresh_path = self._path.with_suffix(".new")
            fresh = os.open(fresh_path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            _write(fresh, rest, 0)
            fresh_path.replace(self._path)
            os.close(self._file)
            self._file = fresh
        else:
            os.ftruncate(self._file, 0)
        self._size, self._dead = len(rest), 0


def _write(file: int, data: bytes, at: int) -> None:
    """All of it, at this place; raises OSError (disk full) with the file's end as it was, as far as that goes."""
    done = 0
    try:
        while done < len(data):
            done += os.pwrite(file, data[done:], at + done)
    except OSError:
        os.ftruncate(file, at)
        raise


def _number(line: bytes) -> int | None:
    """The number of a whole line, None if it is torn."""
    if not line.endswith(b"\n"):
        return None
    try:
        return _decode(line).journal
    except msgspec.DecodeError:
        return None
