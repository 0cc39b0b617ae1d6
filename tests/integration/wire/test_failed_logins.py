"""Failed log-ins over HTTP: whom they shut out, and whom not."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from tests.integration.wire.client import Client
from tests.integration.wire.conftest import Wire
from tests.unit.accounts.test_limits import HeldClock
from tomada.kit import ids
from tomada.wire.api import build_app
from tomada.wire.failed_logins import FailedLogins
from tomada.wire.server import serving

PER_MINUTE = 5
CREATE = "/instances/integrator/on-demand"


@pytest.fixture
async def bounded(wire: Wire) -> AsyncIterator[Wire]:
    """The wire with a small bound, and a clock that never fills the bucket."""
    ports = msgspec.structs.replace(wire.ports, logins=FailedLogins(HeldClock(), PER_MINUTE))
    async with serving(build_app(ports), "127.0.0.1", 0) as url:
        yield wire._replace(url=url, ports=ports)


async def _poll(client: Client, instance_id: str) -> int:
    return (await client.call("GET", f"/instances/{instance_id}/token/{'A' * 24}/status")).status


async def test_polling_what_is_gone_harms_no_newcomer(bounded: Wire) -> None:
    """The same unknown instance asked for again and again is 400 each time; who is new here is served."""
    account = await bounded.account()
    gone = ids.instance_id()
    assert {await _poll(bounded.client(), gone) for _ in range(4 * PER_MINUTE)} == {400}
    assert (await bounded.partner(account).call("GET", "/instances")).status == 200


@pytest.mark.parametrize("headers", [{}, {"Client-Token": "superfluous"}, {"Idempotency-Key": "once"}])
async def test_a_created_instance_is_served_after_too_many_failures(bounded: Wire, headers: dict[str, str]) -> None:
    """From an address that guesses, what a known partner creates works at once; what is only guessed is 429."""
    partner = bounded.partner(await bounded.account())
    assert (await partner.call("GET", "/instances", headers=headers)).status == 200
    for _ in range(PER_MINUTE):
        assert await _poll(bounded.client(), ids.instance_id()) == 400
    assert await _poll(bounded.client(), ids.instance_id()) == 429
    created = (await partner.call("POST", CREATE, json={"name": "Loja"}, headers=headers)).json()
    path = f"/instances/{created['id']}/token/{created['token']}"
    assert (await bounded.client(headers).call("GET", f"{path}/qr-code/image")).status == 200
    answer = await bounded.client(headers).call("PUT", f"{path}/update-name", json={"value": "Nova"})
    assert answer.status == 200
