"""One machine process and the pipes to it: start, whole lines in, whole lines out, end.

Nothing here understands a line. The reader is our own because a line has a bound (LINE_BYTES_MAX) and a machine that
breaks it is out of its mind: it raises `Babble`, and the process is killed. Lines to the machine are never waited
for: they go into the transport's buffer, and a machine that lets it grow past UNREAD_BYTES_MAX does not read.

Which guarantee rests on what. No machine outlives us: its standard input ends with us, and it has asked the kernel for
a signal when its parent dies (PR_SET_PDEATHSIG). That is bound to the *thread* that started it, so machines are started
from the main thread. None is left by a stop: `end` kills its process group after the time given and waits for it. One
that slips through all that still holds the lock of its directory, and slots.py ends it at the next start.
"""

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import AsyncIterator, Mapping, Sequence

import structlog

from tomada.machines.protocol import LINE_BYTES_MAX

log = structlog.get_logger(__name__)

UNREAD_BYTES_MAX = 8 << 20
LOG_LINE_CHARS_MAX = 2000
_CHUNK_BYTES = 1 << 16


class Babble(Exception):
    """The machine said something that is not of the protocol; the message is for the log."""


class NotReading(Exception):
    """The machine is gone, or does not read what it is told."""


class MachinePipe:
    """A running machine process."""

    def __init__(self, process: asyncio.subprocess.Process, slot: int) -> None:
        self._process = process
        self._slot = slot
        self._stderr = asyncio.create_task(self._drain_stderr(), name=f"machine {slot} stderr")

    @classmethod
    async def start(cls, command: Sequence[str], environment: Mapping[str, str], slot: int) -> "MachinePipe":
        """Start `command`. OSError if it cannot be started."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("machines are started from the main thread: they die with the thread that started them")
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,  # a Ctrl-C reaches us alone, and we stop them in our order
        )
        return cls(process, slot)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def lines(self) -> AsyncIterator[bytes]:
        """Each line without its end, until the machine closes its output. Raises Babble for one that is too long."""
        stdout = self._process.stdout
        assert stdout is not None
        rest = b""
        while chunk := await stdout.read(_CHUNK_BYTES):
            *whole, rest = (rest + chunk).split(b"\n") if b"\n" in chunk else (rest + chunk,)
            for line in whole:
                if len(line) > LINE_BYTES_MAX:
                    raise Babble(f"a line of more than {LINE_BYTES_MAX} bytes")
                yield line
            if len(rest) > LINE_BYTES_MAX:
                raise Babble(f"a line of more than {LINE_BYTES_MAX} bytes")

    def write(self, line: bytes) -> None:
        """Send one line. Raises NotReading if that cannot be; then nothing was sent."""
        stdin = self._process.stdin
        assert stdin is not None
        if self._process.returncode is not None or stdin.transport.is_closing():
            raise NotReading("the machine is gone")
        if stdin.transport.get_write_buffer_size() > UNREAD_BYTES_MAX:
            raise NotReading("the machine does not read")
        stdin.write(line + b"\n")

    def end_input(self) -> None:
        """Ask it to finish what is under way and exit."""
        stdin = self._process.stdin
        assert stdin is not None
        with contextlib.suppress(OSError, RuntimeError):
            stdin.close()

    def kill(self) -> None:
        """SIGKILL to the process and whatever it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def exited(self) -> int:
        """Wait for its end; the exit status, negative for a signal."""
        return await self._process.wait()

    async def end(self, timeout_s: float) -> int:
        """End of input, up to `timeout_s` to exit, then SIGKILL; the exit status. Nothing is left afterwards."""
        self.end_input()
        try:
            async with asyncio.timeout(timeout_s):
                await self._process.wait()
        except TimeoutError:
            log.warning("machine.killed_at_stop", slot=self._slot)
        finally:
            self.kill()
        status = await self._process.wait()
        self._stderr.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._stderr
        return status

    async def _drain_stderr(self) -> None:
        """Whatever it prints is a log line of ours, cut to a bearable length."""
        stderr = self._process.stderr
        assert stderr is not None
        rest = b""
        while chunk := await stderr.read(_CHUNK_BYTES):
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                self._log(line)
            if len(rest) > _CHUNK_BYTES:
                self._log(rest)
                rest = b""
        if rest:
            self._log(rest)

    def _log(self, line: bytes) -> None:
        words = line.decode(errors="replace").rstrip()[:LOG_LINE_CHARS_MAX]
        if words:
            log.info("machine.said", slot=self._slot, words=words)
