"""A machine never outlives its host."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from tests.integration.hosting.hosting import alive, until
from tomada.postgres.machine_role import machine_dsn

_HOST = """
import asyncio, os, sys
from tomada.kit import machine_program
from tomada.machines.pipe import MachinePipe
from tomada.machines.program import STORE_VARIABLE, serve_arguments

async def main():
    arguments = [part.replace("{dir}", sys.argv[1]) for part in serve_arguments()]
    command = [machine_program.locate(os.environ), *arguments]
    pipe = await MachinePipe.start(command, {**os.environ, STORE_VARIABLE: sys.argv[2]}, 0)
    async for line in pipe.lines():
        print(pipe.pid, line.decode(), flush=True)

asyncio.run(main())
"""


async def test_a_machine_ends_when_its_host_is_killed(database: str, tmp_path: Path) -> None:
    """kill -9 of the host: the real machine program is gone within its few seconds, and with it the folder's lock."""
    store = await machine_dsn(database, None)
    host = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _HOST, str(tmp_path), store), stdout=asyncio.subprocess.PIPE
    )
    assert host.stdout is not None
    words = (await asyncio.wait_for(host.stdout.readline(), 60)).split()
    machine = int(words[0])
    assert b'"hello"' in words[1]

    os.kill(host.pid, signal.SIGKILL)
    await host.wait()

    await until(lambda: not alive(machine), 7)
