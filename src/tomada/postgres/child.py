"""Child processes that cannot outlive us: how `initdb` and `postgres` are started, watched and stopped.

The kernel sends PR_SET_PDEATHSIG to the child when the *thread* that forked it ends, so children are started from the
main thread only, which ends with the program. The signal survives `exec` but not a change of uid, hence the order in
the child: change the uid, ask for the signal, check that the parent is still there, run the program. `subprocess`
changes the uid before it calls `preexec_fn`, so that is where the rest happens.

Other systems than Linux have no such signal; there the next start finds the forgotten server (`locks.py`).

A child gets a session of its own, so that a Ctrl-C in the terminal reaches us alone and we stop it in our order.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from time import monotonic

from tomada.postgres.account import Account

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def spawn(
    command: Sequence[str],
    *,
    account: Account,
    output_fd: int,
    environment: Mapping[str, str],
    keep_fds: Sequence[int] = (),
    death_signal: signal.Signals,
) -> subprocess.Popen[bytes]:
    """Starts `command` as `account`, with `keep_fds` open; `death_signal` reaches it when this program dies."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("the embedded PostgreSQL must be started from the main thread: it dies with the thread")
    inherited = {name: value for name, value in os.environ.items() if name == "LD_LIBRARY_PATH"}
    return subprocess.Popen(
        list(command),
        cwd="/",
        env={"LC_ALL": "C", "PATH": os.defpath, **inherited, **environment},
        stdin=subprocess.DEVNULL,
        stdout=output_fd,
        stderr=output_fd,
        pass_fds=tuple(keep_fds),
        start_new_session=True,
        user=account.uid if account.foreign else None,
        group=account.gid if account.foreign else None,
        extra_groups=[] if account.foreign else None,
        preexec_fn=_die_with(os.getpid(), death_signal),  # noqa: PLW1509 - two system calls, no lock taken
    )


async def exited(process: subprocess.Popen[bytes], timeout_s: float | None = None, poll_s: float = 0.05) -> bool:
    """Waits until `process` has ended; False if it has not within `timeout_s`."""
    deadline = None if timeout_s is None else monotonic() + timeout_s
    while process.poll() is None:
        if deadline is not None and monotonic() > deadline:
            return False
        await asyncio.sleep(poll_s)
    return True


async def stop(process: subprocess.Popen[bytes], fast_timeout_s: float = 20.0) -> None:
    """Ends a PostgreSQL: fast shutdown (clients dropped, everything written), and harder if that takes too long.

    A cancelled stop still stops: it turns to the immediate shutdown, which needs crash recovery at the next start.
    """
    try:
        steps = ((signal.SIGINT, fast_timeout_s), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
        for step, timeout_s in steps:
            if process.poll() is None:
                process.send_signal(step)
            if await exited(process, timeout_s, poll_s=0.01):
                return
    except asyncio.CancelledError:
        process.send_signal(signal.SIGQUIT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5.0)
        if process.poll() is None:
            process.kill()
            process.wait()
        raise


def _die_with(parent_pid: int, death_signal: signal.Signals) -> Callable[[], None]:
    def in_child() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
            if os.getppid() != parent_pid:  # it died before we asked
                os._exit(1)

    return in_child
