"""The machine's side of the pipes: requests in, lines out.

Lines go out from a thread of their own, so that neither the event loop nor the engine waits for a slow host. Events
are bounded before they come here (the journal's size, see inside_told.py), answers by the host's own requests. A host
that is gone costs nothing: its end of the pipe is closed, writing fails once, and everything after is swallowed; the
journal has it.

No line is longer than LINE_BYTES_MAX: the host takes a longer one for nonsense, and one that lies in the journal would
be nonsense again in each successor. What others write has no such bound, so texts are cut to fit.
"""

import asyncio
import os
from collections import deque
from threading import Condition, Thread
from typing import TypeVar

import msgspec

from tomada.machines.protocol import LINE_BYTES_MAX, FromHost, FromMachine

CUT = "… [cut]"  # how a text ends that did not fit

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(FromHost).decode
T = TypeVar("T")


def line_of(message: FromMachine) -> bytes:
    """A message as the line that carries it. If that were too long, its longest texts are cut, and end in CUT."""
    line = _encode(message) + b"\n"
    chars_max = LINE_BYTES_MAX
    while len(line) > LINE_BYTES_MAX and chars_max > 0:
        chars_max //= 2
        line = _encode(_cut(message, chars_max)) + b"\n"
    return line


class LinesOut:
    """Writes lines in the order in which they were given."""

    def __init__(self, file: int) -> None:
        """`file`: the descriptor to write to, owned from now on."""
        self._file = file
        self._lines: deque[bytes] = deque()
        self._changed = Condition()
        self._idle = True
        self._closed = False
        Thread(target=self._run, name="lines-out", daemon=True).start()

    def write(self, line: bytes) -> None:
        """Queue a line; never blocks, may be called from any thread."""
        with self._changed:
            if not self._closed:
                self._lines.append(line)
                self._changed.notify_all()

    def waiting(self) -> int:
        """How many lines the host has not taken yet."""
        return len(self._lines)

    def flush(self, wait_s: float) -> bool:
        """Wait until all is written or the host is gone; False if it took longer than `wait_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed or (self._idle and not self._lines), wait_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._idle = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: bool(self._lines))
                self._idle = False
                chunk = b"".join(self._lines)
                self._lines.clear()
            try:
                _write_all(self._file, chunk)
            except OSError:
                with self._changed:
                    self._closed = True
                    self._lines.clear()
                    self._changed.notify_all()
                return


async def reader(file: int) -> asyncio.StreamReader:
    """Lines from a pipe's descriptor, which is owned from now on."""
    lines = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    protocol = asyncio.StreamReaderProtocol(lines)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(file, "rb", 0))
    return lines


async def next_message(lines: asyncio.StreamReader) -> FromHost | None:
    """The next message of the host, None at the end; raises ValueError or msgspec.MsgspecError for nonsense."""
    line = await lines.readline()
    return _decode(line) if line.endswith(b"\n") else None


def _cut(value: T, chars_max: int) -> T:
    """The same with no text in it longer than this and its mark."""
    match value:
        case str() if len(value) > chars_max:
            return value[:chars_max] + CUT  # type: ignore[return-value]
        case tuple():
            return tuple(_cut(part, chars_max) for part in value)  # type: ignore[return-value]
        case msgspec.Struct():
            fields = {name: _cut(getattr(value, name), chars_max) for name in value.__struct_fields__}
            return msgspec.structs.replace(value, **fields)
    return value


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
