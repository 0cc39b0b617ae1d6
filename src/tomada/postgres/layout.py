"""What lies where on disk for the embedded server, and the two names that can be too long or out of reach.

    <data_dir>/
        cluster/        PostgreSQL's own files; 0700, of the account the server runs as
        cluster.new/    an initdb that was cut short; thrown away at the next start
        launcher.lock   held by the program that may start the server
        server.lock     held by the server itself and all its processes (they inherit it), so that a new launcher
                        knows when the last of them is gone
        server.log      what PostgreSQL says, cut when it grows
        run/            the socket, if its path is short enough and reachable
        programs-18.6/  a copy of the programs, if the account cannot reach the installed ones

A socket's path may have 107 bytes. If it is longer, or the account cannot reach it, the socket goes into a directory
of 0700 in a runtime or temporary folder, named after a hash of the data directory, so that the next start finds it.

An account that cannot pass through a parent of `cluster` still can work in it when it is its current directory: the
server is started with that directory as its own and told that its data are in `/proc/self/cwd`.
"""

import hashlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

from tomada.postgres.account import Account, reachable
from tomada.postgres.errors import DataDirectoryUnusable

SOCKET_PATH_BYTES_MAX = 107
PORT = 5432
"""Only a part of the socket's name; nothing listens on TCP."""

_SOCKET_NAME = f".s.PGSQL.{PORT}"
_SAFE_IN_LIST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+")


def prepare_data_dir(data_dir: Path) -> Path:
    """Creates `data_dir` if it is missing (0711: others may pass, not look) and returns its absolute path."""
    data_dir = data_dir.absolute()
    if not data_dir.exists():
        data_dir.mkdir(parents=True, mode=0o711)
        data_dir.chmod(0o711)
    return data_dir


def data_argument(cluster: Path, account: Account) -> str:
    """How the server is told where its data are, given that `cluster` is its current directory."""
    return str(cluster) if reachable(cluster.parent, account) else "/proc/self/cwd"


def prepare_socket_dir(data_dir: Path, account: Account) -> Path:
    """A directory of 0700 that belongs to `account`, for a socket whose path fits. Raises `DataDirectoryUnusable`."""
    refused: list[str] = []
    for place in _socket_places(data_dir, account):
        if not _fits(place) or not reachable(place.parent, account):
            continue
        if _claim(place, account):
            return place
        refused.append(str(place))
    raise DataDirectoryUnusable(f"no place for PostgreSQL's socket; these exist and are not ours: {', '.join(refused)}")


def remove_socket_dir(socket_dir: Path) -> None:
    """Removes it with what a killed server left there (its socket and the socket's lock file)."""
    shutil.rmtree(socket_dir, ignore_errors=True)


def socket_path(socket_dir: Path) -> Path:
    """The socket itself."""
    return socket_dir / _SOCKET_NAME


def _socket_places(data_dir: Path, account: Account) -> list[Path]:
    name = "tomada-" + hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:12]
    shared = [Path("/run")] if account.foreign else []
    runtime_dir = os.environ.get("XDG_RUNTIME_DIR")
    if runtime_dir and not account.foreign:
        shared.append(Path(runtime_dir))
    shared += [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]  # noqa: S108 - 0700, owner checked
    writable = [place for place in shared if place.is_dir() and os.access(place, os.W_OK | os.X_OK)]
    return [data_dir / "run", *(place / name for place in writable), *(place / f"{name}-2" for place in writable)]


def _fits(place: Path) -> bool:
    return len(os.fsencode(socket_path(place))) <= SOCKET_PATH_BYTES_MAX and _SAFE_IN_LIST.issuperset(str(place))


def _claim(place: Path, account: Account) -> bool:
    """Makes `place`, or accepts it as it is if it is ours; a symbolic link or another's directory is not."""
    try:
        place.mkdir(mode=0o700)
    except FileExistsError:
        status = place.lstat()
        return stat.S_ISDIR(status.st_mode) and status.st_uid == account.uid and not status.st_mode & 0o077
    if account.foreign:
        os.chown(place, account.uid, account.gid)
    return True
