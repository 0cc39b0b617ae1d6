"""Which operating-system account the embedded server runs as.

PostgreSQL refuses to run as root. Started by an ordinary user it runs as that user. Started by root it runs as the
account that already owns the cluster, else as `tomada` if the computer has such an account, else as `nobody`. No
account is ever created, and no permission of a directory that is not ours is ever changed; what that account cannot
reach is handled by `programs.py` (a copy) and `layout.py` (another way to name the same directory).
"""

import os
import pwd
from pathlib import Path

import msgspec

from tomada.postgres.errors import DataDirectoryUnusable


class Account(msgspec.Struct, frozen=True):
    """An operating-system account; `foreign` when it is not the one this program runs as."""

    uid: int
    gid: int
    foreign: bool


def own_name() -> str:
    """The name of the account this program runs as; `peer` authentication goes by names. Raises if it has none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError as error:
        raise DataDirectoryUnusable(
            f"uid {os.geteuid()} has no name in /etc/passwd, and PostgreSQL needs one. Run Tomada as a user with a "
            "name (or as root), or set TOMADA_DATABASE_URL."
        ) from error


def server_account(cluster: Path) -> Account:
    """The account for the server whose data lie, or will lie, in `cluster`."""
    own = Account(os.geteuid(), os.getegid(), foreign=False)
    owner = cluster.stat() if cluster.exists() else None
    if own.uid != 0:
        if owner is not None and owner.st_uid != own.uid:
            raise DataDirectoryUnusable(f"{cluster} belongs to uid {owner.st_uid}; run Tomada as that user or as root.")
        return own
    if owner is not None and owner.st_uid != 0:
        return Account(owner.st_uid, owner.st_gid, foreign=True)
    for name in ("tomada", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(entry.pw_uid, entry.pw_gid, foreign=True)
    raise DataDirectoryUnusable(
        "PostgreSQL does not run as root, and there is neither an account `tomada` nor `nobody` to run it as. Run "
        "Tomada as an ordinary user, or set TOMADA_DATABASE_URL."
    )


def reachable(path: Path, account: Account) -> bool:
    """Whether `account` may pass through every directory on the way to `path`, and through `path` if it is one.

    Looks at the permission bits alone, which is enough to choose a place: the server's start is the real test.
    """
    if not account.foreign:
        return True
    real = path.resolve()
    folders = [*real.parents, real] if real.is_dir() else list(real.parents)
    return all(_may_pass(folder, account) for folder in folders)


def _may_pass(folder: Path, account: Account) -> bool:
    if not folder.exists():
        return False
    status = folder.stat()
    if status.st_uid == account.uid:
        return bool(status.st_mode & 0o100)
    if status.st_gid == account.gid:
        return bool(status.st_mode & 0o010)
    return bool(status.st_mode & 0o001)
