"""The machine's side of the pipes: requests in, lines out.

Lines go out from a thread of their own, so that neither the event loop nor the engine waits for a slow host. Events
are bounded before they come here (the journal's size, see inside_told.py), answers by the host's own requests. A host
that is gone costs nothing: its end of the pipe is closed, writing fails once, and everything after is swallowed; the
journal has it.
"""

import asyncio
import os
from collections import deque
from threading import Condition, Thread

import msgspec

from tomada.machines.protocol import LINE_BYTES_MAX, FromHost, FromMachine

encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(FromHost).decode


def line_of(message: FromMachine) -> bytes:
    """A message as the line that carries it."""
    return encode(message) + b"\n"


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


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
