"""The Go tests of the session store, machine/internal/store, which need a PostgreSQL: here the embedded one is theirs.

`go test` by itself skips them in words. To run some of them by hand, set TOMADA_TEST_POSTGRES to the address of a
superuser of a database that may be written over, and say
`python machine/build.py go test ./internal/store -run Device -v`.
"""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import _run
from tomada.postgres.launcher import EmbeddedServer

_BUILD = Path(__file__).parents[3] / "machine" / "build.py"
_LIMIT_S = 540  # Go compiles all of whatsmeow where nobody did before


@pytest.mark.timeout(_LIMIT_S + 30)
async def test_the_session_store(postgres: EmbeddedServer) -> None:
    """Every test of the store passes, and none is skipped."""
    await _run(postgres, "create database machine_store")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(_BUILD), "test", "-count=1", "-v", "./internal/store"),
        env={**os.environ, "TOMADA_TEST_POSTGRES": postgres.dsn_of("machine_store", "postgres")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(_LIMIT_S):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    said = output.decode()

    assert process.returncode == 0, said
    assert "--- PASS: TestADeviceUnderItsKey" in said
    assert "--- SKIP" not in said
