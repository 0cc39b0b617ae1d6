"""No token reaches the log, whatever happens to a request."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from tests.integration.wire.conftest import Wire
from tomada.errors import MachineTimeout
from tomada.kit import logs


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    """The log of this test, with everything in it."""
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    stream = io.StringIO()
    logs.configure("debug", stream)
    structlog.configure(cache_logger_on_first_use=False)
    root.setLevel(logging.DEBUG)
    yield stream
    root.handlers, root.level = before
    structlog.reset_defaults()


async def test_no_token_in_the_log(wire: Wire, output: io.StringIO) -> None:
    """Successes, refusals, broken requests and defects of ours leave lines, and none of the lines holds a token."""
    account = await wire.account(client_token=True)
    path = await wire.instance(account)
    token, client_token = path.split("/")[4], account.client_token or ""
    partner, client = wire.partner(account), wire.client({"Client-Token": client_token})
    await partner.call("GET", "/instances?query=" + account.partner_token)
    await wire.client({"Authorization": "Bearer wrong-but-secret-value"}).call("GET", "/instances")
    await client.call("GET", f"{path}/status")
    await client.call("GET", f"{path}/nothing/{token}?token={token}")
    await client.call("PUT", f"{path}/update-name", body=b"{", headers={"Content-Type": "application/json"})
    await client.raw(f"GET {path}/status HTTP/1.1\r\nBroken {token}\r\n\r\n".encode())
    await wire.client({"Client-Token": account.partner_token}).call("GET", f"{path}/status")
    for failure in (MachineTimeout(), RuntimeError(f"at {path} with Bearer {account.partner_token}")):
        wire.sessions.fails = failure
        await client.call("GET", f"{path}/qr-code")
    text = output.getvalue()
    for secret in (token, client_token, account.partner_token, "wrong-but-secret-value"):
        assert secret not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert {line["status"] for line in lines if line["event"] == "http"} >= {200, 400, 401, 403, 404, 500, 504}
    assert any("RuntimeError" in line.get("exception", "") for line in lines)
    assert all("/token/***" in line["path"] for line in lines if "/token/" in line.get("path", ""))
