"""A machine never outlives its host."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from tests.integration.hosting.hosting import alive, until

_HOST = """
import asyncio, os, sys
from tomada.machines.pipe import MachinePipe

async def main():
    command = [sys.executable, "-m", "tomada.machines.process", "--machine-dir", sys.argv[1]]
    pipe = await MachinePipe.start(command, os.environ, 0)
    async for line in pipe.lines():
        print(pipe.pid, line.decode(), flush=True)

asyncio.run(main())
"""


async def test_a_machine_ends_when_its_host_is_killed(tmp_path: Path) -> None:
    """kill -9 of the host: the real machine program is gone within its few seconds, and with it the folder's lock."""
    host = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _HOST, str(tmp_path)), stdout=asyncio.subprocess.PIPE
    )
    assert host.stdout is not None
    words = (await asyncio.wait_for(host.stdout.readline(), 60)).split()
    machine = int(words[0])
    assert b'"hello"' in words[1]

    os.kill(host.pid, signal.SIGKILL)
    await host.wait()

    await until(lambda: not alive(machine), 7)
