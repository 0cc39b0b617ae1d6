"""Who may make partner calls."""

import pytest

from tests.integration.wire.conftest import Wire
from tomada.accounts import manage

CREATE = "/instances/integrator/on-demand"


@pytest.mark.parametrize("method", ["create", "list"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer tmd_wrong"},
        {"Authorization": "Basic dG1kOnRtZA=="},
        {"Client-Token": ""},
        {"Client-Token": "F0123456789abcdef0123456789abcdefS"},
        {"Authorization": "Bearer \xe9\xe9"},
        {"Authorization": "Bearer " + "x" * 5000},
    ],
)
async def test_refused(wire: Wire, method: str, headers: dict[str, str]) -> None:
    """Without a credential, or with a wrong one, partner calls answer 401 as flat JSON."""
    await wire.account()
    client = wire.client({name: value.encode().decode("latin-1") for name, value in headers.items()})
    answer = await (client.call("GET", "/instances") if method == "list" else client.call("POST", CREATE, json={}))
    assert answer.status == 401
    assert answer.json() == {"error": "Unauthorized"}
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_accepted_credentials(wire: Wire) -> None:
    """Bearer in any case, the bare token, and the account's Client-Token are taken; extra headers are ignored."""
    account = await wire.account(client_token=True)
    token, client_token = account.partner_token, account.client_token or ""
    for headers in (
        {"Authorization": f"Bearer {token}"},
        {"authorization": f"bearer {token}"},
        {"AUTHORIZATION": f"Bearer   {token} "},
        {"Authorization": token},
        {"Client-Token": client_token},
        {"client-token": client_token, "Authorization": "Bearer something-else"},
        {"Authorization": f"Bearer {token}", "Client-Token": "F-wrong-S"},
    ):
        assert (await wire.client(headers).call("GET", "/instances")).status == 200, headers


async def test_partner_token_wins(wire: Wire) -> None:
    """When the two headers belong to different accounts, the partner token decides."""
    first = await wire.account("first")
    second = await wire.account("second", client_token=True)
    await wire.partner(first).call("POST", CREATE, json={"name": "of the first"})
    both = wire.client({"Authorization": f"Bearer {first.partner_token}", "Client-Token": second.client_token or ""})
    assert (await both.call("GET", "/instances")).json()["content"][0]["name"] == "of the first"


async def test_rotated_token_ends(wire: Wire) -> None:
    """After a rotation without an overlap the old partner token is refused and the new one works."""
    account = await wire.account()
    made = await manage.rotate_partner_token(
        wire.ports.accounts, wire.ports.sealer, account.id, overlap_hours=0, actor="test"
    )
    assert (await wire.partner(account).call("GET", "/instances")).status == 401
    assert (await wire.client({"Authorization": f"Bearer {made.secret}"}).call("GET", "/instances")).status == 200
