"""Starts `program.py` and talks to it: the tests' view of a program with an embedded server."""

import contextlib
import json
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

_ROOT = Path(__file__).parents[3]


class Launched:
    """A running program: `state()` and `sql()` ask it, `stop()` ends it cleanly, `kill()` by SIGKILL."""

    def __init__(self, data_dir: Path, *options: str, uid: int | None = None) -> None:
        become = () if uid is None else ("--uid", str(uid), "--gid", str(pwd.getpwuid(uid).pw_gid))
        self.data_dir = data_dir
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.postgres.program", str(data_dir), *become, *options],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def answer(self) -> Any:
        """The next answer, decoded."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            assert self.process.stderr is not None
            raise AssertionError(f"the program ended: {self.process.stderr.read()}")
        return json.loads(line)

    def ask(self, **command: object) -> Any:
        """Sends a command and returns its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def sql(self, statement: str) -> list[list[Any]]:
        """Runs one statement as the program would, and returns its rows."""
        rows: list[list[Any]] = self.ask(sql=statement)
        return rows

    def state(self) -> dict[str, Any]:
        """`server_pid`, `dsn` and `restarts`."""
        state: dict[str, Any] = self.ask(state=True)
        return state

    def stop(self) -> None:
        """The clean end: standard input is closed, the program stops its server and exits with 0."""
        _, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, errors

    def kill(self) -> None:
        """SIGKILL for the program alone."""
        self.process.kill()
        self.process.communicate()


def servers_of(data_dir: Path) -> list[psutil.Process]:
    """All living PostgreSQL processes of `data_dir`: those that hold its `server.lock`."""
    found = []
    for process in psutil.process_iter(["name"]):
        with contextlib.suppress(psutil.Error, OSError):
            ours = process.info["name"] in ("postgres", "initdb") and process.status() != psutil.STATUS_ZOMBIE
            if ours and any(file.path == str(data_dir / "server.lock") for file in process.open_files()):
                found.append(process)
    return found


def is_alive(pid: int) -> bool:
    """Whether `pid` is a process that still runs; one that ended but was not reaped yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill_all(data_dir: Path) -> None:
    """SIGKILL for every PostgreSQL process of `data_dir` at once."""
    for process in servers_of(data_dir):
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)


@contextlib.contextmanager
def started(data_dir: Path, *options: str, uid: int | None = None) -> Iterator[tuple[Launched, dict[str, Any]]]:
    """A program whose server is ready, and its first answer (`server_pid`, `dsn`, or `error`, `message`)."""
    with Launched(data_dir, *options, uid=uid) as program:
        yield program, program.answer()


def as_root() -> bool:
    """Whether the tests themselves run as root, so that both kinds of user can be tried."""
    return os.geteuid() == 0
