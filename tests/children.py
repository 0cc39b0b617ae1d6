"""The child processes of this test run: who may be left, and who is not.

A test that starts a process has to wait for its end too. One that is only killed stays in the process table until
somebody asks for its exit status, and a later test that counts processes would find it.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil


def ended_children() -> list[int]:
    """Pids of children that have ended and that nobody has waited for: at most one, for the kernel tells one by one."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return []
    return [found.si_pid] if found else []


def children_of(folder: Path) -> list[list[str]]:
    """The command lines of running children that were started for a folder."""
    lines = []
    for child in psutil.Process().children():
        try:
            lines.append(child.cmdline())
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue  # ended this moment
    return [line for line in lines if str(folder) in " ".join(line)]


def until_none(look: Callable[[], list[int]], timeout_s: float = 5.0) -> list[int]:
    """What `look` still finds after the time given."""
    deadline = time.monotonic() + timeout_s
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found
