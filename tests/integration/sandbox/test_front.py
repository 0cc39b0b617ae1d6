"""The control routes on the product's own port, over a stand-in for the sandbox's process and one for the clock."""

from collections.abc import AsyncIterator

import pytest
from litestar import Litestar

from tests.integration.wire.client import JSON, Client
from tomada.sandbox.front import Front
from tomada.wire.failing import EXCEPTION_HANDLERS
from tomada.wire.server import serving


async def _told(scope: dict[str, object], _receive: object, send: object) -> None:
    """An ASGI application in place of the control API: says what it was asked."""
    assert callable(send)
    body = f"{scope['raw_path']!r} {scope['query_string']!r}".encode()
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
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
