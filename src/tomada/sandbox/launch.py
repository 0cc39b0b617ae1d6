"""Starting the sandbox as a child process, and what a machine process needs to reach it.

A machine is led here by another program than production's, built from the same packages (machine/cmd): it is given
the root key and the authority to trust, and a proxy for everything https, the media included.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec

_STOP_TIMEOUT_S = 10.0


class Ready(msgspec.Struct, frozen=True, rename="camel"):
    """The sandbox's ready line: base URLs, the file with the authorities to trust, the root key in hex."""

    control: str
    proxy: str
    ca_bundle: str
    noise_root: str


class RunningSandbox:
    """A sandbox process of ours; `stop` ends it."""

    def __init__(self, process: asyncio.subprocess.Process, ready: Ready) -> None:
        self.process, self.ready = process, ready

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


async def start_sandbox(directory: Path, *, timeout_s: float = 20.0) -> RunningSandbox:
    """Start a sandbox and wait until it is ready; `RuntimeError` if it ends or stays silent before that."""
    process = await asyncio.create_subprocess_exec(
        *sandbox_command(directory), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(timeout_s):
            line = await process.stdout.readline()
        return RunningSandbox(process, msgspec.json.decode(line, type=Ready))
    except (TimeoutError, msgspec.DecodeError) as error:
        if process.returncode is None:
            process.kill()
        await process.wait()
        raise RuntimeError("the sandbox did not start; its standard error says why") from error


def machine_command(program: Path, ready: Ready) -> tuple[str, ...]:
    """The command of a machine that lives at this sandbox, without what every machine is told."""
    return (str(program), "-noise-root", ready.noise_root, "-ca", ready.ca_bundle, "-proxy", ready.proxy)
