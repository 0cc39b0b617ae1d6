"""Two locks that decide who may start the server, and that outlive nobody.

`launcher.lock` is held by the program alone: if it is taken, another Tomada lives on this data directory. The kernel
releases it with the process, so a killed program leaves nothing to clean up.

`server.lock` is inherited by PostgreSQL and all its processes (same open file, same lock). Whoever gets it knows that
the last process of the previous server is gone. A `postmaster.pid` found then is stale for certain, even if its number
belongs to a living process again, as happens in containers, where numbers start anew.

A server left behind by a killed program stops by itself on Linux (`child.py`). Elsewhere, or if it was started
otherwise, it is recognised by answering on the socket that its `postmaster.pid` names, and is told to stop: gently at
first, after a while by an immediate shutdown, which loses nothing either but needs crash recovery.
"""

import asyncio
import fcntl
import os
import signal
import socket
from pathlib import Path
from time import monotonic

from tomada.postgres.errors import DataDirectoryInUse

_GENTLE_TIMES = 10
"""A forgotten server is told once a second: so often to stop gently, then at once."""


async def lock_launcher(data_dir: Path, timeout_s: float) -> int:
    """The descriptor that holds `launcher.lock`. Raises `DataDirectoryInUse`."""
    fd = await _lock(data_dir / "launcher.lock", timeout_s, None)
    if fd is None:
        raise DataDirectoryInUse(f"another Tomada runs on {data_dir}; one data directory serves one program.")
    return fd


async def lock_server(data_dir: Path, cluster: Path, timeout_s: float) -> int:
    """The descriptor that holds `server.lock`, once the previous server is gone. Raises `DataDirectoryInUse`."""
    fd = await _lock(data_dir / "server.lock", timeout_s, cluster)
    if fd is None:
        raise DataDirectoryInUse(f"a PostgreSQL still runs on {cluster} and does not stop; {_words(cluster)}.")
    return fd


def postmaster_pid(cluster: Path) -> int | None:
    """The process number that `postmaster.pid` names; None without such a file."""
    lines = _pid_file(cluster)
    return int(lines[0]) if lines and lines[0].strip().isdigit() else None


def is_ready(cluster: Path, pid: int) -> bool:
    """Whether the server `pid` accepts connections, by the status line that PostgreSQL writes for `pg_ctl`."""
    lines = _pid_file(cluster)
    return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"


async def _lock(path: Path, timeout_s: float, cluster: Path | None) -> int | None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    began = monotonic()
    told = 0
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waited_s = monotonic() - began
                if waited_s > timeout_s:
                    break
                if cluster is not None and waited_s >= told:
                    _stop_forgotten_server(cluster, signal.SIGINT if told < _GENTLE_TIMES else signal.SIGQUIT)
                    told += 1
                await asyncio.sleep(0.02)
            else:
                return fd
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def _stop_forgotten_server(cluster: Path, how: signal.Signals) -> None:
    """Tells the server of `cluster` to stop, if it is one beyond doubt: it answers on its own socket."""
    pid, lines = postmaster_pid(cluster), _pid_file(cluster)
    if pid is None or len(lines) < 5:
        return
    path = Path(lines[4].strip()) / f".s.PGSQL.{lines[3].strip()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
            os.kill(pid, how)
        except OSError:
            return


def _pid_file(cluster: Path) -> list[str]:
    try:
        return (cluster / "postmaster.pid").read_text(errors="replace").splitlines()
    except OSError:
        return []


def _words(cluster: Path) -> str:
    pid = postmaster_pid(cluster)
    return f"its process is {pid}" if pid else "stop the processes that use it"
