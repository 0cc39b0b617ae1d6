"""The directories of machines and instances, and what lies in them.

    <data>/machines/<slot>/journal*      the machine's events that we have not acknowledged (written by the machine)
    <data>/machines/<slot>/lock          held by the machine's process for as long as it lives
    <data>/machines/<slot>/poisoned      events that could not be stored for a fault of ours; one JSON object a line
    <data>/instances/<instance>/<epoch>/ the session store and whatever else belongs to one machine of an instance

A slot is a number from 0; it is used again by later machines, and its journal's numbers go on. The epoch is the
instance's when it was given that machine: keys lie under it, so that a new machine cannot open its predecessor's, and a
late deletion cannot touch its successor's.
"""

import asyncio
import contextlib
import fcntl
import os
import re
import shutil
import signal
from pathlib import Path
from time import monotonic

import msgspec
import structlog

from tomada.engine.port import EngineEvent

log = structlog.get_logger(__name__)

POISONED_BYTES_MAX = 256 << 20
LOCKS = Path("/proc/locks")
_INSTANCE_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")


class Poisoned(msgspec.Struct, frozen=True):
    """An event that was put aside, as it lies in the file; `error` names the kind of error, never its text."""

    at_ms: int
    instance_id: str
    journal: int | None
    error: str
    event: EngineEvent


class _Line(msgspec.Struct, frozen=True):
    """What must be known of a line of a journal."""

    instance_id: str


_decode_line = msgspec.json.Decoder(_Line).decode


class Folders:
    """Where things are under one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._machines = data_dir / "machines"
        self._instances = data_dir / "instances"

    def machine(self, slot: int) -> Path:
        """The directory of a slot, made if need be; readable by us alone, for journals hold messages."""
        return _private(self._machines / str(slot))

    def slots(self) -> list[int]:
        """Every slot that has a directory."""
        if not self._machines.is_dir():
            return []
        return sorted(int(path.name) for path in self._machines.iterdir() if path.name.isdecimal() and path.is_dir())

    def journaled(self, slot: int) -> set[str]:
        """The instances of which the slot's journal holds events, which must be told before these go on.

        How a machine keeps its place in the file is its own affair; an event is a line with a JSON object, as it is
        told. Some of these may be acknowledged already.
        """
        found = set()
        for path in self.machine(slot).glob("journal*"):
            with path.open("rb") as file:
                for line in file:
                    with contextlib.suppress(msgspec.DecodeError):  # no event, or cut off and told to nobody
                        found.add(_decode_line(line).instance_id)
        return found

    def in_journals(self, instance_id: str) -> bool:
        """Whether any slot's journal holds an event of an instance, acknowledged or not."""
        return any(instance_id in self.journaled(slot) for slot in self.slots())

    def instance(self, instance_id: str) -> Path:
        """The directory of an instance (not made). ValueError for an id that is no plain name."""
        if not _INSTANCE_ID.fullmatch(instance_id):
            raise ValueError("not an instance id")
        return self._instances / instance_id

    def epochs(self, instance_id: str) -> list[int]:
        """The machines of an instance that have a directory, oldest first."""
        folder = self.instance(instance_id)
        return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal()) if folder.is_dir() else []

    def store(self, instance_id: str, epoch: int) -> Path:
        """The default session store of a machine; its directory is made."""
        return _private(self.instance(instance_id) / str(epoch)) / "session.db"

    def has_keys(self, instance_id: str, epoch: int) -> bool:
        """Whether a machine has a session store that was not erased."""
        store = self.instance(instance_id) / str(epoch) / "session.db"
        return store.exists() and store.stat().st_size > 0

    def erase_store(self, instance_id: str, epoch: int) -> list[str]:
        """Remove a machine's keys and SQLite's files beside them; the names of what was removed."""
        return _erase(sorted((self.instance(instance_id) / str(epoch)).glob("session.db*")))

    def erase_machines(self, instance_id: str, before: int) -> list[str]:
        """Remove all that belongs to an instance's machines from before an epoch; the names of what was removed.

        Poisoned events do not tell of which machine they are, so they go with the last one.
        """
        folder, erased = self.instance(instance_id), list[str]()
        for epoch in [epoch for epoch in self.epochs(instance_id) if epoch < before]:
            erased += _erase(sorted((folder / str(epoch)).rglob("*"), reverse=True))
            shutil.rmtree(folder / str(epoch), ignore_errors=True)
        if self.epochs(instance_id):
            return erased
        shutil.rmtree(folder, ignore_errors=True)
        return erased + [f"machines/{slot}/poisoned" for slot in self.slots() if self._cleanse(slot, instance_id)]

    def put_aside(self, slot: int, poisoned: Poisoned) -> None:
        """Append to the slot's poisoned file, on the disk when this returns. OSError if that cannot be."""
        path = self.machine(slot) / "poisoned"
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size > POISONED_BYTES_MAX:
                raise OSError(f"{path} is full: look at it, mend what it shows, remove it")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(fd, "ab") as file:
            file.write(msgspec.json.encode(poisoned) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _cleanse(self, slot: int, instance_id: str) -> bool:
        """Drop one instance's lines from a poisoned file."""
        path = self.machine(slot) / "poisoned"
        if not path.exists():
            return False
        needle = f'"instance_id":"{instance_id}"'.encode()
        lines = path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if needle not in line]
        if len(kept) == len(lines):
            return False
        beside = path.with_suffix(".new")
        beside.touch(mode=0o600)
        beside.write_bytes(b"".join(kept))
        beside.replace(path)
        return True


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


def _private(folder: Path) -> Path:
    """The folder, made if need be; it and the two it lies in can be read by us alone."""
    for one in (folder.parent.parent, folder.parent, folder):
        one.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _erase(paths: list[Path]) -> list[str]:
    """Unlink files; the names of those that were there."""
    erased = []
    for path in paths:
        if path.is_file() or path.is_symlink():
            path.unlink(missing_ok=True)
            erased.append(path.name)
    return erased
