"""The examples, run where their runtime is here, else replayed as the bytes that their runtime sends."""

import asyncio
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.integration.wire.client import Answer
from tests.integration.wire.conftest import Wire
from tomada.accounts.model import NewAccount

EXAMPLES = Path(__file__).parents[3] / "examples" / "create"
HOOKS = "https://sistema.example.com.br/filial-centro"
BODY = {
    "name": "Filial Centro",
    "sessionName": "Atendimento",
    "deliveryCallbackUrl": f"{HOOKS}/delivery",
    "receivedCallbackUrl": f"{HOOKS}/receive",
    "disconnectedCallbackUrl": f"{HOOKS}/disconnected",
    "connectedCallbackUrl": f"{HOOKS}/connected",
    "messageStatusCallbackUrl": f"{HOOKS}/status",
}
COMPACT = json.dumps(BODY, separators=(",", ":"))

# What libcurl under PHP, and .NET's HttpClient with a StringContent, write for their examples; `{...}` is filled in.
PHP = (
    "POST /instances/integrator/on-demand HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\nAuthorization: Bearer {token}\r\n"
    "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
)
CSHARP = (
    "POST /instances/integrator/on-demand HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
    "Content-Type: application/json; charset=utf-8\r\nContent-Length: {length}\r\n\r\n"
)
# What the sample for Node on the seed page writes: no Content-Type, and a body in chunks.
SEED_NODE = (
    "POST /instances/integrator/on-demand HTTP/1.1\r\nauthorization: Bearer {token}\r\nHost: {host}\r\n"
    "Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
)


async def _is_created(wire: Wire, account: NewAccount, reply: bytes) -> None:
    created = json.loads(reply)
    assert set(created) == {"id", "token", "due"}
    me = (await wire.client().call("GET", f"/instances/{created['id']}/token/{created['token']}/me")).json()
    assert {key: me[key] for key in BODY if key in me} == {key: BODY[key] for key in BODY if key in me}
    row = await wire.pool.fetchrow("select account_id, session_name from instance where id = $1", created["id"])
    assert row is not None
    assert (row["account_id"], row["session_name"]) == (account.id, "Atendimento")


async def _run(wire: Wire, token: str, *command: str) -> tuple[int, bytes]:
    process = await asyncio.create_subprocess_exec(
        *command,
        env={"PATH": os.environ["PATH"], "TOMADA_URL": wire.url, "TOMADA_PARTNER_TOKEN": token},
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        output, _ = await process.communicate()
    return process.returncode or 0, output


@pytest.mark.parametrize(
    ("runtime", "file"),
    [("sh", "create.sh"), (sys.executable, "create.py"), ("node", "create.mjs"), ("php", "create.php")],
)
async def test_run(wire: Wire, runtime: str, file: str) -> None:
    """Creates the instance it says and ends with 0; with a wrong token it prints the error and ends with 1."""
    if shutil.which(runtime) is None or (file == "create.sh" and shutil.which("curl") is None):
        pytest.skip(f"{runtime} is not installed here")
    account = await wire.account()
    status, output = await _run(wire, account.partner_token, runtime, str(EXAMPLES / file))
    assert status == 0
    await _is_created(wire, account, output)
    status, output = await _run(wire, "wrong", runtime, str(EXAMPLES / file))
    assert status != 0
    assert json.loads(output) == {"error": "Unauthorized"}


async def _replay(wire: Wire, head: str, body: bytes, account: NewAccount) -> Answer:
    client = wire.client()
    filled = head.format(host=f"{client.host}:{client.port}", token=account.partner_token, length=len(body))
    return await client.raw(filled.encode() + body)


@pytest.mark.parametrize(("head", "file"), [(PHP, "create.php"), (CSHARP, "Create.cs")])
async def test_replay(wire: Wire, head: str, file: str) -> None:
    """The bytes that this runtime sends create the instance; the example's source holds the same fields and values."""
    account = await wire.account()
    answer = await _replay(wire, head, COMPACT.encode(), account)
    assert answer.status == 200
    await _is_created(wire, account, answer.body)
    source = (EXAMPLES / file).read_text()
    fields = re.findall(r"(\w+)\"? =>? \$?\"(?:\{?\$?hooks\}?/)?([\w /-]+)\"", source)
    assert {name: value for name, value in fields if name in BODY} == {
        name: value.removeprefix(f"{HOOKS}/") for name, value in BODY.items()
    }


async def test_sample_of_the_seed_page_without_content_type(wire: Wire) -> None:
    """The seed page's own Node sample has no Content-Type; the page's text says 415, and the text decides."""
    account = await wire.account()
    chunks = f"{len(COMPACT):x}\r\n{COMPACT}\r\n0\r\n\r\n".encode()
    assert (await _replay(wire, SEED_NODE, chunks, account)).status == 415
    with_type = SEED_NODE.replace("Host:", "content-type: application/json\r\nHost:")
    assert (await _replay(wire, with_type, chunks, account)).status == 200
