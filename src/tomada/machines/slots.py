"""The directories of machines, and who may still live in them.

    <data>/machines/<slot>/lock     held by the machine's process for as long as it lives
    <data>/machines/<slot>/spill/   events too long for a line; the machine writes them, we remove them when committed

A slot is a number from 0; it is used again by later machines. Nothing that must survive lies here: keys are in the
session store (keys.py), and what was not committed WhatsApp brings again.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
from pathlib import Path
from time import monotonic

import structlog

log = structlog.get_logger(__name__)

LOCKS = Path("/proc/locks")


class Folders:
    """Where things are under one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._machines = data_dir / "machines"

    def machine(self, slot: int) -> Path:
        """The directory of a slot, made if need be; readable by us alone, for spilt events hold messages."""
        folder = self._machines / str(slot)
        for one in (self._machines, folder):
            one.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def slots(self) -> list[int]:
        """Every slot that has a directory."""
        if not self._machines.is_dir():
            return []
        return sorted(int(path.name) for path in self._machines.iterdir() if path.name.isdecimal() and path.is_dir())


async def until_unlocked(machine_dir: Path, timeout_s: float) -> bool:
    """Wait until no machine of an earlier host lives in this directory; kill it after `timeout_s`.

    A machine ends by itself within seconds of its host. One that hangs cannot; whoever holds this lock is a machine of
    ours beyond doubt, and its sessions must not be opened a second time beside it. False if it still lives.
    """
    fd = os.open(machine_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    kill_s = monotonic() + timeout_s
    give_up_s = kill_s + 2.0
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                now_s = monotonic()
                if now_s > give_up_s:
                    return False
                if now_s > kill_s:
                    kill_s = now_s + 0.2  # the kernel's list is read in parts: on a busy computer a line may be missing
                    _kill_holder(fd)
                await asyncio.sleep(0.02)
            else:
                return True
    finally:
        os.close(fd)


def _kill_holder(fd: int) -> None:
    """SIGKILL to the process that locked this file, as the kernel names it, and that has it open. Linux only."""
    lock = os.fstat(fd)
    lines = LOCKS.read_text().splitlines() if LOCKS.exists() else []
    for line in lines:
        fields = line.split()  # `1: FLOCK ADVISORY WRITE <pid> <major>:<minor>:<inode> 0 EOF`
        locked = len(fields) > 5 and fields[1] == "FLOCK" and fields[5].endswith(f":{lock.st_ino}")
        with contextlib.suppress(OSError):  # it has ended this moment
            if locked and _has_open(int(fields[4]), lock):
                log.error("machine.forgotten_killed", pid=int(fields[4]))
                os.kill(int(fields[4]), signal.SIGKILL)


def _has_open(pid: int, file: os.stat_result) -> bool:
    """Whether a process has this very file open: its number alone may be that of a file on another filesystem."""
    for path in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(OSError):  # closed this moment
            if os.path.samestat(path.stat(), file):
                return True
    return False
