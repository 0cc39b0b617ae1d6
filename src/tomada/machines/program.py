"""The machine program from the host's side: that it is one we can speak to, and that its session store is ready.

It is asked once, before the first machine starts, so that what is wrong with it ends the start in one line instead of
showing as machines that die one after the other.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from tomada.kit import machine_program

STORE_VARIABLE = "TOMADA_MACHINE_STORE"
PREPARE_S = 90.0


def serve_arguments() -> tuple[str, ...]:
    """What a machine is told; `{dir}` is its slot's directory."""
    return ("-dir", "{dir}", "serve")


async def prepared(program: Path, environment: Mapping[str, str]) -> str:
    """Make the session store's tables, or bring them up to date; the engine's name. Raises MachineUnusable."""
    hello = await asyncio.to_thread(machine_program.greet, program)
    process = await asyncio.create_subprocess_exec(
        program,
        "prepare-store",
        env=dict(environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PREPARE_S):
            _, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise machine_program.MachineUnusable("the session store could not be made ready in time") from None
    if process.returncode != 0:
        words = errors.decode(errors="replace").strip().rpartition("\n")[2]
        raise machine_program.MachineUnusable(f"the session store could not be made ready: {words[:300]}")
    return hello.engine
