"""The file that keeps a machine's events until the host has committed them.

One line an event, in the very form in which the host is told, so telling again after a crash is reading the file. An
event is written before the host hears of it and before `append` returns.

No fsync per event: what must be survived is kill -9 of any process, and bytes handed to the operating system survive
that. A power cut may cost the last moments; so it does for the session's own keys (engine/neonize_store.py), and a sync
per event would cost more than all the rest of its way. It must not cost more than those, so a file is synced before it
takes the place of another.

The first line is the number up to which everything is acknowledged, in digits of fixed width, so that it can be
overwritten in place. Numbers only grow over the life of the folder.

The file is cut back to that line when everything is acknowledged, and rewritten without its acknowledged part when
that part is large and no smaller than the rest; while the rest is small, also REWRITE_S after the last time, so that
what is acknowledged does not lie there for long: whoever erases an instance waits for that. It holds at most
`bytes_max` that are not acknowledged: then `append` waits for the host. The engine stops giving events meanwhile,
WhatsApp keeps what it could not deliver, and nothing is dropped. A torn last line (killed while writing) was told to
nobody and is cut off.

On a full disk `append` raises, and its caller tries again. An acknowledgement is taken all the same: it makes room
here, and if it could not be written, the next process tells once more what it was for, no worse.
"""

import contextlib
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
REWRITE_S = 2.0  # a sync of the disk each
_DIGITS = 20
_HEAD_BYTES = _DIGITS + 1
_decode = msgspec.json.Decoder(Happened).decode


class JournalFull(Exception):
    """No room, and the host did not acknowledge anything within the time given."""


class Journal:
    """An append-only file of told but unacknowledged events; safe to use from any thread."""

    def __init__(self, path: Path, clock: Clock, bytes_max: int = BYTES_MAX) -> None:
        """Open or make the file and read what is in it; a torn end is cut off."""
        self._path = path
        self._clock = clock
        self._bytes_max = bytes_max
        self._changed = Condition()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._open: deque[tuple[int, int]] = deque()  # (number, bytes of the line), oldest first
        self._size = _HEAD_BYTES  # of the file
        self._dead = 0  # bytes after the head that are acknowledged
        self._shrunk_s = clock.monotonic_s()
        self._next = max(self._read() + 1, clock.now_ms() * 1000)  # the clock, in case somebody removed the file

    def append(
        self, line_of: Callable[[int], bytes], then: Callable[[bytes], None], wait_s: float | None = None
    ) -> int:
        """Write the line that `line_of(number)` makes (ends in a newline), then pass it on; returns the number.

        Lines are passed on in the order of their numbers: `then` is called under the journal's lock, so it must not
        block. Waits while the journal is full, `wait_s` at most (None: for ever); raises JournalFull after that.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._size - self._dead <= self._bytes_max, wait_s):
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
        """Forget every event up to and including this number; may take as long as the disk takes to sync."""
        with self._changed:
            if number >= self._next:
                raise ValueError("an acknowledgement of what was never told")
            while self._open and self._open[0][0] <= number:
                self._dead += self._open.popleft()[1]
            with contextlib.suppress(OSError):
                _write(self._file, _head(number), 0)
                self._shrink()
            self._changed.notify_all()

    def lines(self) -> list[bytes]:
        """What is not acknowledged, oldest first, as it was told."""
        with self._changed:
            return self._rest().splitlines(keepends=True)

    def close(self) -> None:
        """Close the file; nothing may be appended afterwards."""
        with self._changed:
            os.close(self._file)

    def _read(self) -> int:
        """Take in what is there; returns the highest number ever given out."""
        head, *lines = os.pread(self._file, os.fstat(self._file).st_size, 0).splitlines(keepends=True) or [b""]
        if len(head) != _HEAD_BYTES or not head[:_DIGITS].isdigit():
            os.ftruncate(self._file, 0)
            _write(self._file, _head(0), 0)
            return 0
        acknowledged = last = int(head)
        for line in lines:
            if (number := _number(line)) is None:
                break
            self._size += len(line)
            last = max(last, number)
            if number > acknowledged:
                self._open.append((number, len(line)))
            else:
                self._dead += len(line)
        os.ftruncate(self._file, self._size)
        return last

    def _rest(self) -> bytes:
        start = _HEAD_BYTES + self._dead
        return os.pread(self._file, self._size - start, start)

    def _shrink(self) -> None:
        """Drop the acknowledged front if that is worth it. An OSError leaves everything as it was."""
        rest_bytes = self._size - _HEAD_BYTES - self._dead
        time_is_up = self._clock.monotonic_s() - self._shrunk_s >= REWRITE_S and rest_bytes <= REWRITE_BYTES
        if not self._dead or (rest_bytes and not time_is_up and self._dead < max(REWRITE_BYTES, rest_bytes)):
            return
        if rest_bytes:
            self._replace(os.pread(self._file, _HEAD_BYTES, 0) + self._rest())
        else:
            os.ftruncate(self._file, _HEAD_BYTES)
        self._size, self._dead = _HEAD_BYTES + rest_bytes, 0
        self._shrunk_s = self._clock.monotonic_s()

    def _replace(self, content: bytes) -> None:
        """Go on with a file of this content. A reader after kill -9 finds the old one or the new one, both right."""
        path = self._path.with_suffix(".new")
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write(file, content, 0)
            os.fsync(file)  # else some file systems have the new name after a power cut, and nothing in it
            path.replace(self._path)
            os.dup2(file, self._file, inheritable=False)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(file)


def _head(acknowledged: int) -> bytes:
    return b"%0*d\n" % (_DIGITS, acknowledged)


def _write(file: int, data: bytes, at: int) -> None:
    """All of it, at this place. An OSError (disk full) may leave a part behind, which the next write covers."""
    done = 0
    while done < len(data):
        done += os.pwrite(file, data[done:], at + done)


def _number(line: bytes) -> int | None:
    """The number of a whole line, None if it is torn."""
    if not line.endswith(b"\n"):
        return None
    try:
        return _decode(line).journal
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
