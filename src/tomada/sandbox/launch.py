"""Starting the sandbox as a child process, and what a machine process needs to reach it.

A machine is led here by another program than production's, built from the same packages (machine/cmd): it is given
the root key and the authority to trust, and a proxy for everything https, the media included.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec
import structlog

from tomada.kit.environment import inherited

log = structlog.get_logger(__name__)

_STOP_TIMEOUT_S = 10.0
_STARTS_MAX = 5


class Ready(msgspec.Struct, frozen=True, rename="camel"):
    """The sandbox's ready line: base URLs, the file with the authorities to trust, the root key in hex."""

    control: str
    proxy: str
    ca_bundle: str
    noise_root: str


Start = Callable[[], Awaitable[tuple[asyncio.subprocess.Process, Ready]]]


class RunningSandbox:
    """A sandbox process of ours; `stop` ends it, `keep` starts it again when it ends by itself."""

    def __init__(self, process: asyncio.subprocess.Process, ready: Ready, start: Start) -> None:
        self.process, self.ready, self._start = process, ready, start

    async def keep(self, pause_s: float = 0.5) -> None:
        """Until cancelled: whenever it ends, start it again on the same ports, with the same keys and phones.

        Raises RuntimeError if that cannot be done: who was led to the old ports would find nobody there.
        """
        while True:
            status = await self.process.wait()
            log.error("sandbox.ended", status=status)
            for attempt in range(1, _STARTS_MAX + 1):
                await asyncio.sleep(pause_s)
                try:
                    self.process, ready = await self._start()
                except RuntimeError as error:
                    log.error("sandbox.not_started", attempt=attempt, error=str(error))
                    continue
                break
            else:
                raise RuntimeError("the sandbox ended, and does not start again")
            if ready != self.ready:
                raise RuntimeError("the sandbox ended, and its ports are taken")
            log.info("sandbox.started_again")

    async def stop(self) -> int:
        """Ask it to end, kill it if it does not; returns the exit status."""
        if self.process.returncode is None:
            self.process.terminate()
        try:
            return await asyncio.wait_for(self.process.wait(), _STOP_TIMEOUT_S)
        except TimeoutError:
            self.process.kill()
            return await self.process.wait()


def sandbox_command(directory: Path) -> list[str]:
    """The command that starts a sandbox which ends with its parent."""
    return [sys.executable, "-m", "tomada.sandbox", "--dir", str(directory), "--die-with-parent"]


async def start_sandbox(
    directory: Path, environment: Mapping[str, str] | None = None, *, timeout_s: float = 20.0
) -> RunningSandbox:
    """Start a sandbox and wait until it is ready; `RuntimeError` if it ends or stays silent before that.

    `environment`: all of the child's; None is what every child of ours inherits.
    """
    given = inherited(os.environ) if environment is None else environment

    async def start() -> tuple[asyncio.subprocess.Process, Ready]:
        return await _start(directory, given, timeout_s)

    return RunningSandbox(*await start(), start)


async def _start(
    directory: Path, environment: Mapping[str, str], timeout_s: float
) -> tuple[asyncio.subprocess.Process, Ready]:
    process = await asyncio.create_subprocess_exec(
        *sandbox_command(directory),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env=dict(environment),
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(timeout_s):
            line = await process.stdout.readline()
        return process, msgspec.json.decode(line, type=Ready)
    except (TimeoutError, msgspec.DecodeError) as error:
        if process.returncode is None:
            process.kill()
        await process.wait()
        raise RuntimeError("the sandbox did not start; its standard error says why") from error


def machine_command(program: Path, ready: Ready) -> tuple[str, ...]:
    """The command of a machine that lives at this sandbox, without what every machine is told."""
    return (str(program), "-noise-root", ready.noise_root, "-ca", ready.ca_bundle, "-proxy", ready.proxy)
