"""The program inside a machine: `python -m tomada.machines.process --machine-dir DIR`.

It speaks protocol.py over the pipes it was started with, and hosts sessions until its standard input ends or SIGTERM
comes; then it finishes what is under way (FINISH_S at most) and exits with 0.

What it does before the first line, and why:
- it has the environment that the engine needs, or starts anew with it;
- the pipes move to descriptors of their own, and 1 becomes 2: the engine prints to standard output as it pleases;
- as many file handles as allowed, since the engine keeps some open for good;
- it dies with its parent, and waits for its predecessor in the folder (a lock on a file there), because two processes
  with the same session keys would throw each other out of WhatsApp;
- it ends by `os._exit`, from within the event loop: threads of the engine cannot be joined, and those that tell may
  wait for ever, for a host that acknowledges or a disk with room.
"""

import argparse
import asyncio
import contextlib
import ctypes
import fcntl
import logging
import os
import resource
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import msgspec
import structlog

from tomada.engine.environment import ENGINE_ENVIRONMENT
from tomada.engine.port import Engine
from tomada.kit.clock import SystemClock
from tomada.machines import inside_pipe
from tomada.machines.inside_commands import Inside
from tomada.machines.inside_pipe import LinesOut, line_of
from tomada.machines.inside_told import Told
from tomada.machines.journal import Journal
from tomada.machines.protocol import VERSION, Acknowledge, Hello, Ready, Request

log = structlog.get_logger("tomada.machine")

FINISH_S = 4.5
FLUSH_S = 1.0
PREDECESSOR_WAIT_S = 60.0
TELLING_THREADS = 64
SWITCH_S = 0.0005  # how long a thread of the engine waits for Python while it holds an event that nobody has stored
EXIT_FAULT, EXIT_NONSENSE, EXIT_OCCUPIED = 1, 65, 75
_PR_SET_PDEATHSIG = 1


def main(argv: list[str] | None = None) -> None:
    """Run a machine; does not return."""
    arguments = _arguments(argv)
    _have_environment()
    requests, answers = _own_pipes()
    _log_to_stderr()
    os.umask(0o077)  # the engine makes the files of the session store itself, and they hold keys
    _die_with_parent()
    _raise_handles()
    sys.setswitchinterval(SWITCH_S)
    folder = Path(arguments.machine_dir)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = _wait_for_predecessor(folder)
    if lock is None:
        log.error("folder_is_occupied", folder=str(folder))
        os._exit(EXIT_OCCUPIED)
    asyncio.run(_live(folder, requests, answers, _engine(arguments)))


async def _live(folder: Path, requests: int, answers: int, engine: Engine) -> NoReturn:
    """Host sessions, then end the process."""
    status = EXIT_FAULT
    try:
        status = await _run(folder, requests, answers, engine)
    except Exception:
        log.exception("machine_failed")
    sys.stderr.flush()
    os._exit(status)


async def _run(folder: Path, requests: int, answers: int, engine: Engine) -> int:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(TELLING_THREADS, "tell"))
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    out = LinesOut(answers)
    journal = Journal(folder / "journal", SystemClock())
    told = Told(journal, out)
    out.write(line_of(Hello(VERSION, os.getpid(), f"{engine.name} {engine.version}")))
    told.tell_again()
    out.write(line_of(Ready()))
    inside = Inside(engine, told)
    status = await _serve(inside, journal, out, await inside_pipe.reader(requests), over)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(inside.stop(), FINISH_S)
    out.flush(FLUSH_S)  # on the loop, which has nothing left to do: the threads may all be busy
    return status


async def _serve(
    inside: Inside, journal: Journal, out: LinesOut, lines: asyncio.StreamReader, over: asyncio.Event
) -> int:
    """Take messages until the end of the input or a signal; returns the exit status."""
    loop = asyncio.get_running_loop()
    acknowledging = ThreadPoolExecutor(1, "acknowledge")  # not on the loop: it may have to wait for the disk
    working: set[asyncio.Task[None]] = set()

    async def work(request: Request) -> None:
        out.write(line_of(await inside.answer(request)))

    async def take() -> int:
        while (message := await inside_pipe.next_message(lines)) is not None:
            if isinstance(message, Acknowledge):
                await loop.run_in_executor(acknowledging, journal.acknowledge, message.journal)
            else:
                task = asyncio.create_task(work(message))
                working.add(task)
                task.add_done_callback(working.discard)
        return 0

    taking = asyncio.create_task(take())
    ending = asyncio.create_task(over.wait())
    await asyncio.wait({taking, ending}, return_when=asyncio.FIRST_COMPLETED)
    ending.cancel()
    if not taking.done():
        taking.cancel()
        return 0
    try:
        return taking.result()
    except (ValueError, msgspec.MsgspecError) as error:
        log.error("host_speaks_nonsense", error=str(error)[:200])
        return EXIT_NONSENSE


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tomada-machine", description="Hosts sessions; started by the host.")
    parser.add_argument("--machine-dir", required=True, help="the machine's own folder: lock and journal")
    limits = parser.add_argument_group("limits of the engine; without them its own")
    limits.add_argument("--send-deadline-s", type=float, help="how long a send may take before its outcome is unknown")
    limits.add_argument("--probe-deadline-s", type=float, help="how long WhatsApp may take to answer a probe")
    limits.add_argument("--abandoned-max", type=int, help="given-up rounds of QR codes before a recycle is due")
    limits.add_argument("--started-max", type=int, help="starts of sessions before a recycle is due")
    return parser.parse_args(argv)


def _engine(arguments: argparse.Namespace) -> Engine:
    from tomada.engine.neonize_engine import NeonizeEngine
    from tomada.engine.neonize_session import Limits

    given = {name: value for name, value in vars(arguments).items() if name in Limits.__struct_fields__ and value}
    return NeonizeEngine(SystemClock(), Limits(**given))


def _have_environment() -> None:
    """Start anew if what the engine must find in the environment is not there: Go reads it once, at the beginning."""
    if ENGINE_ENVIRONMENT.items() - os.environ.items():
        command = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **ENGINE_ENVIRONMENT})  # noqa: S606 - ourselves


def _own_pipes() -> tuple[int, int]:
    """Take the pipes away from descriptors 0 and 1, where others would read and print."""
    requests = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 3)
    answers = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 3)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, answers


def _log_to_stderr() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def _die_with_parent() -> None:
    """SIGTERM when the parent dies; the end of standard input says the same to a parent's thread that only ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _raise_handles() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _wait_for_predecessor(folder: Path) -> int | None:
    """Lock the folder for the life of this process; None if another keeps it."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline_s = time.monotonic() + PREDECESSOR_WAIT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > deadline_s:
                return None
            time.sleep(0.02)
        else:
            return lock


if __name__ == "__main__":
    main()
