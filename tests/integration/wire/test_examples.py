"""The examples, run where their runtime is here, else replayed as the bytes that their runtime sends.

So are the samples of the seed page, which are what a program for PlugzAPI began as.
"""

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
# What the samples of the seed page write. All have the same body: one line, with a space behind each colon and comma.
SEED_HOOKS = "https://endereco-do-seu-sistema.com.br/instancia/SUA_INSTANCIA"
SEED_BODY = {
    "name": "Instancia PlugMessage - 9292812",
    "deliveryCallbackUrl": f"{SEED_HOOKS}/delivery",
    "receivedCallbackUrl": f"{SEED_HOOKS}/receive",
    "disconnectedCallbackUrl": f"{SEED_HOOKS}/disconnected",
    "messageStatusCallbackUrl": f"{SEED_HOOKS}/status",
}
# The one for PHP: libcurl, told to take any encoding that it knows.
SEED_PHP = (
    "POST /instances/integrator/on-demand HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n"
    "Accept-Encoding: deflate, gzip, br, zstd\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n"
    "Content-Length: {length}\r\n\r\n"
)
# The one for C#: RestSharp over HttpWebRequest. It takes a body parameter's name for its type, and the sample's name is
# "undefined"; since 106.2 (2017) the header that the sample adds wins.
SEED_CSHARP = (
    "POST /instances/integrator/on-demand HTTP/1.1\r\nauthorization: Bearer {token}\r\n"
    "Accept: application/json, text/json, text/x-json, text/javascript, application/xml, text/xml\r\n"
    "User-Agent: RestSharp/106.15.0.0\r\nContent-Type: application/json\r\nHost: {host}\r\nContent-Length: {length}\r\n"
    "Accept-Encoding: gzip, deflate\r\nConnection: Keep-Alive\r\n\r\n"
)
SEED_CSHARP_2016 = SEED_CSHARP.replace("106.15.0.0", "105.2.3.0").replace(
    "application/json\r\nHost", "undefined\r\nHost"
)
# The one for Node: no Content-Type, and a body in chunks.
SEED_NODE = (
    "POST /instances/integrator/on-demand HTTP/1.1\r\nauthorization: Bearer {token}\r\nHost: {host}\r\n"
    "Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
)


async def _is_created(wire: Wire, account: NewAccount, reply: bytes, body: dict[str, str] = BODY) -> None:
    created = json.loads(reply)
    assert set(created) == {"id", "token", "due"}
    me = (await wire.client().call("GET", f"/instances/{created['id']}/token/{created['token']}/me")).json()
    assert {key: me[key] for key in body if key in me} == {key: body[key] for key in body if key in me}
    row = await wire.pool.fetchrow("select account_id, session_name from instance where id = $1", created["id"])
    assert row is not None
    assert (row["account_id"], row["session_name"]) == (account.id, body.get("sessionName", body["name"]))


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


@pytest.mark.parametrize("head", [SEED_PHP, SEED_CSHARP])
async def test_sample_of_the_seed_page(wire: Wire, head: str) -> None:
    """The page's own samples for PHP and C# create the instance that they name."""
    account = await wire.account()
    answer = await _replay(wire, head, json.dumps(SEED_BODY).encode(), account)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert "content-encoding" not in answer.headers
    await _is_created(wire, account, answer.body, SEED_BODY)


async def test_sample_of_the_seed_page_without_content_type(wire: Wire) -> None:
    """Its Node sample has no Content-Type, its C# sample once had a wrong one; the page's text decides: 415."""
    account = await wire.account()
    body = json.dumps(SEED_BODY, separators=(",", ":"))
    chunks = f"{len(body):x}\r\n{body}\r\n0\r\n\r\n".encode()
    assert (await _replay(wire, SEED_NODE, chunks, account)).status == 415
    assert (await _replay(wire, SEED_CSHARP_2016, json.dumps(SEED_BODY).encode(), account)).status == 415
    with_type = SEED_NODE.replace("Host:", "content-type: application/json\r\nHost:")
    answer = await _replay(wire, with_type, chunks, account)
    assert answer.status == 200
    await _is_created(wire, account, answer.body, SEED_BODY)
