"""What lies where on disk for the embedded server, and the two names that can be too long or out of reach.

    <data_dir>/
        cluster/        PostgreSQL's own files; 0700, of the account the server runs as
        cluster.new/    an initdb that was cut short; thrown away at the next start
        launcher.lock   held by the program that may start the server
        server.lock     held by the server itself and all its processes (they inherit it), so that a new launcher
                        knows when the last of them is gone
        server.log      what PostgreSQL says, cut when it grows
        run/            the socket, if its path is short enough and reachable
        programs-18.6/  a copy of the programs, if the account cannot reach the installed ones but can reach this

A socket's path may have 107 bytes. If it is longer, or the account cannot reach it, the socket goes into a directory
of 0700 in a runtime or temporary folder, named after a hash of the data directory, so that the next start finds it.

Likewise for the copy of the programs, except that there it is this program's account that owns the directory, and that
the file system must allow execution. What lies outside of `data_dir` is removed at every stop.

An account that cannot pass through a parent of `cluster` still can work in it if it is handed the open directory: the
server inherits a descriptor of it, and is told that its data are in `/proc/self/fd/<descriptor>`. (Its current
directory would do for PostgreSQL 16 and newer; older ones leave it while they look for their own programs.)
"""

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tomada.postgres.account import Account, reachable
from tomada.postgres.errors import DataDirectoryUnusable

SOCKET_PATH_BYTES_MAX = 107
PORT = 5432
"""Only a part of the socket's name; nothing listens on TCP."""

_ABANDONED_S = 600.0
_TEMPORARY = tuple(dict.fromkeys([Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]))  # noqa: S108 - claimed
_SOCKET_NAME = f".s.PGSQL.{PORT}"
_SAFE_IN_LIST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+")


def prepare_data_dir(data_dir: Path) -> Path:
    """Creates `data_dir` if it is missing (0711: others may pass, not look) and returns its absolute path."""
    data_dir = data_dir.absolute()
    if not data_dir.exists():
        data_dir.mkdir(parents=True, mode=0o711)
        data_dir.chmod(0o711)
    return data_dir


def data_argument(cluster: Path, account: Account, cluster_fd: int) -> str:
    """How the server is told where its data are; it inherits `cluster_fd`, an open descriptor of `cluster`."""
    return str(cluster) if reachable(cluster.parent, account) else f"/proc/self/fd/{cluster_fd}"


def short_name(data_dir: Path) -> str:
    """What the directories for `data_dir` that lie outside of it are called, so that every start finds them."""
    return "tomada-" + hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:12]


def prepare_socket_dir(data_dir: Path, account: Account) -> Path:
    """A directory of 0700 that belongs to `account`, for a socket whose path fits. Raises `DataDirectoryUnusable`."""
    runtime_dir = os.environ.get("XDG_RUNTIME_DIR")
    places = [data_dir / "run"]
    if account.foreign:
        places += _named(data_dir, [Path("/run")])
    elif runtime_dir:
        places += _named(data_dir, [Path(runtime_dir)])
    places += _named(data_dir, _TEMPORARY)
    for place in places:
        if _fits(place) and reachable(place.parent, account) and _claim(place, account, 0o700):
            _sweep(place)
            return place
    raise DataDirectoryUnusable(f"no place for PostgreSQL's socket; tried {', '.join(map(str, places))}")


def prepare_programs_dir(data_dir: Path, account: Account) -> Path:
    """A directory from which `account` can run what we copy there. Raises `DataDirectoryUnusable`."""
    if reachable(data_dir, account):
        return data_dir
    places = _named(data_dir, [place for place in _TEMPORARY if _executable(place)], "-programs")
    for place in places:
        if reachable(place.parent, account) and _claim(place, Account(os.geteuid(), os.getegid(), False), 0o711):
            return place
    raise DataDirectoryUnusable(
        f"uid {account.uid}, as which PostgreSQL has to run, reaches neither its installed programs nor {data_dir}, "
        "and there is no temporary folder to copy them to. Choose a TOMADA_DATA_DIR that every user may pass through, "
        "/var/lib/tomada for example, or run Tomada as an ordinary user."
    )


def clear(data_dir: Path, socket_dir: Path | None, programs_dir: Path | None) -> None:
    """Removes what is of no use without a running server, and what a killed one left there."""
    if socket_dir is not None:
        shutil.rmtree(socket_dir, ignore_errors=True)
    if programs_dir is not None and not programs_dir.is_relative_to(data_dir):
        shutil.rmtree(programs_dir, ignore_errors=True)


def socket_path(socket_dir: Path) -> Path:
    """The socket itself."""
    return socket_dir / _SOCKET_NAME


def _named(data_dir: Path, folders: Iterable[Path], suffix: str = "") -> list[Path]:
    """A name of our own, and a second in case somebody took it, in each of `folders` that we can write to."""
    name = short_name(data_dir) + suffix
    writable = [folder for folder in folders if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)]
    return [folder / candidate for folder in writable for candidate in (name, f"{name}-2")]


def _executable(folder: Path) -> bool:
    return not os.statvfs(folder).f_flag & os.ST_NOEXEC


def _fits(place: Path) -> bool:
    return len(os.fsencode(socket_path(place))) <= SOCKET_PATH_BYTES_MAX and _SAFE_IN_LIST.issuperset(str(place))


def _sweep(place: Path) -> None:
    """Removes the empty directories of programs that were killed long ago and whose data never were started again."""
    for other in place.parent.glob("tomada-" + "[0-9a-f]" * 12):
        with contextlib.suppress(OSError):  # not empty (in use), not ours, or gone
            if other.stat().st_mtime < place.stat().st_mtime - _ABANDONED_S:
                other.rmdir()


def _claim(place: Path, owner: Account, mode: int) -> bool:
    """Makes `place`, or accepts it as it is if it is ours; a symbolic link or another's directory is not."""
    try:
        place.mkdir(mode=mode)
    except FileExistsError:
        status = place.lstat()
        return stat.S_ISDIR(status.st_mode) and status.st_uid == owner.uid and not status.st_mode & ~mode & 0o777
    place.chmod(mode)
    if owner.foreign:
        os.chown(place, owner.uid, owner.gid)
    return True
