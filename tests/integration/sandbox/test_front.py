"""The control routes on the product's own port, over a stand-in for the sandbox's process and one for the clock."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from litestar import Litestar

from tests.integration.wire.client import JSON, Client
from tomada.sandbox.front import Front
from tomada.wire.failing import EXCEPTION_HANDLERS
from tomada.wire.server import serving


async def _told(scope: dict[str, Any], _receive: object, send: object) -> None:
    """An ASGI application in place of the control API: says what it was asked, with the type that the query names."""
    assert callable(send)
    kind = str(scope["query_string"], "ascii").partition("type=")[2].encode()
    body = f"{scope['raw_path']!r} {scope['query_string']!r}".encode()
    headers = [(b"content-length", b"%d" % len(body)), *([(b"content-type", kind)] if kind else [])]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """Calls the routes on a port of their own; the clock says by how much it was moved."""

    async def read() -> object:
        return 0

    async def advance(seconds: int) -> object:
        return seconds

    async with serving(_told, "127.0.0.1", 0) as control_url:
        front = Front(control_url, read, advance)
        app = Litestar(front.handlers(), exception_handlers=EXCEPTION_HANDLERS, openapi_config=None, debug=False)
        async with serving(app, "127.0.0.1", 0) as url:
            yield Client(url)
        await front.close()


@pytest.mark.parametrize("host", ["x", "x:99999"])
async def test_passed_on_as_it_came(client: Client, host: str) -> None:
    """Path and query reach the sandbox unchanged, whatever the header Host says."""
    answer = await client.raw(f"GET /sandbox/a%2Bb+c?d=e%20f+g HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert (answer.status, answer.body) == (200, b"b'/sandbox/a%2Bb+c' b'd=e%20f+g'")


@pytest.mark.parametrize("kind", ["image/jpeg", "audio/ogg; codecs=opus", "text/plain", "application/json", ""])
async def test_content_type_as_it_came(client: Client, kind: str) -> None:
    """Media keep their type on the product's port; what names none is JSON."""
    path = f"/sandbox/phones/1/messages/2/media?type={kind}"
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(f"GET {path.replace(' ', '')} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    async with asyncio.timeout(20):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    writer.close()
    types = [line.partition(": ")[2] for line in head.splitlines() if line.startswith("content-type:")]
    assert types == [kind.replace(" ", "") or "application/json"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"advanceSeconds": "1"}',
        b"\xff",
        b'{"advanceSeconds": 1, "x": ' + b"[" * 60_000,
        b'{"x": ' + b'{"x": ' * 60_000,
    ],
)
async def test_clock_that_is_not_understood(client: Client, body: bytes) -> None:
    """Whatever is no number of seconds is 400, be it nested without end."""
    answer = await client.call("POST", "/sandbox/clock", body=body, headers=JSON)
    assert answer.status == 400
    assert answer.json()["error"]


async def test_clock(client: Client) -> None:
    """The clock is read and moved here, not in the sandbox's process."""
    assert (await client.call("GET", "/sandbox/clock")).json() == 0
    assert (await client.call("POST", "/sandbox/clock", json={"advanceSeconds": 5, "x": [[]]})).json() == 5
