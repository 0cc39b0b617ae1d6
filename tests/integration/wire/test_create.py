"""Creating instances by the call of the seed page."""

import asyncio
from typing import Any

import pytest

from tests.integration.wire.client import Client
from tests.integration.wire.conftest import Wire

CREATE = "/instances/integrator/on-demand"
SEED_BODY = {
    "name": "Instancia PlugMessage - 9292812",
    "sessionName": "Testes testes",
    "deliveryCallbackUrl": "https://meuwebhook.com.br/delivery",
    "receivedCallbackUrl": "https://meuwebhook.com.br/receive",
    "disconnectedCallbackUrl": "https://meuwebhook.com.br/disconnected",
    "connectedCallbackUrl": "https://meuwebhook.com.br/connected",
    "messageStatusCallbackUrl": "https://meuwebhook.com.br/status",
}


async def _create(client: Client, body: dict[str, Any]) -> dict[str, Any]:
    answer = await client.call("POST", CREATE, json=body)
    assert answer.status == 200, answer.body
    created: dict[str, Any] = answer.json()
    return created


async def test_seed_call(wire: Wire) -> None:
    """The seed page's body makes an instance: 200 with id, token and due in epoch ms, two days from now."""
    account = await wire.account()
    created = await _create(wire.partner(account), SEED_BODY)
    now_ms = await wire.pool.fetchval("select lifecycle_now_ms()")
    assert set(created) == {"id", "token", "due"}
    assert len(created["id"]) == 32
    assert len(created["token"]) == 24
    assert isinstance(created["due"], int)
    assert abs(created["due"] - now_ms - 48 * 3600 * 1000) < 60_000
    me = await wire.client().call("GET", f"/instances/{created['id']}/token/{created['token']}/me")
    shown = me.json()
    assert shown["name"] == SEED_BODY["name"]
    assert {key: shown[key] for key in SEED_BODY if key.endswith("Url")} == {
        key: value for key, value in SEED_BODY.items() if key.endswith("Url")
    }
    assert shown["paymentStatus"] == "TRIAL"
    assert shown["connected"] is False
    device = (await wire.client().call("GET", f"/instances/{created['id']}/token/{created['token']}/device")).json()
    assert device["device"]["sessionName"] == "Testes testes"


async def test_every_attribute_is_kept(wire: Wire) -> None:
    """The later attributes of the create call are stored, also when booleans come as texts."""
    account = await wire.account()
    body = {
        **SEED_BODY,
        "receivedAndDeliveryCallbackUrl": "https://meuwebhook.com.br/both?a=1&b=%20x",
        "presenceChatCallbackUrl": "https://meuwebhook.com.br/presence",
        "callRejectAuto": "true",
        "callRejectMessage": "Agora não",
        "autoReadMessage": True,
        "autoReadStatus": 1,
        "isDevice": False,
        "businessDevice": None,
        "disableEnqueueWhenDisconnected": True,
        "blockCallbackUrl": "whatever",
        "unknown": {"deep": [1, 2, 3]},
    }
    created = await _create(wire.partner(account), body)
    row = await wire.pool.fetchrow("select * from instance where id = $1", created["id"])
    assert row is not None
    assert row["received_and_delivery_callback_url"] == body["receivedAndDeliveryCallbackUrl"]
    assert row["presence_chat_callback_url"] == body["presenceChatCallbackUrl"]
    assert row["notify_sent_by_me"] is True
    assert row["call_reject_auto"] is True
    assert row["call_reject_message"] == "Agora não"
    assert row["auto_read_message"] is True
    assert row["auto_read_status"] is True
    assert row["is_device"] is False
    assert row["enqueue_when_disconnected"] is False
    assert row["account_id"] == account.id


async def test_session_name_defaults_to_name(wire: Wire) -> None:
    """Without sessionName, or with an empty one, the phone shows the instance's name."""
    partner = wire.partner(await wire.account())
    for extra in ({}, {"sessionName": None}, {"sessionName": "  "}):
        created = await _create(partner, {"name": " Loja 12 ", **extra})
        assert await wire.pool.fetchval("select session_name from instance where id = $1", created["id"]) == "Loja 12"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "name is required"),
        ({"name": None}, "name"),
        ({"name": 12}, "name: expected string, got number"),
        ({"name": ""}, "name must not be empty"),
        ({"name": "  "}, "name must not be empty"),
        ({"name": "x" * 256}, "at most 255"),
        ({"name": "x\u0000y"}, "U+0000"),
        ({"name": "x", "sessionName": ["y"]}, "sessionName: expected string"),
        ({"name": "x", "autoReadMessage": "maybe"}, "autoReadMessage: expected boolean"),
        ({"name": "x", "receivedCallbackUrl": 5}, "receivedCallbackUrl: expected string"),
        ({"name": "x", "receivedCallbackUrl": "ftp://a.example/x"}, "URL"),
        ({"name": "x", "deliveryCallbackUrl": "http://plain.example/x"}, "https"),
        ({"name": "x", "deliveryCallbackUrl": "https://127.0.0.1/x"}, "URL"),
        ([], "expected object, got list"),
        ("x", "object"),
    ],
)
async def test_bad_body(wire: Wire, body: Any, words: str) -> None:
    """A missing or wrong value is a 400 whose text names the field, and nothing is created."""
    account = await wire.account()
    answer = await wire.partner(account).call("POST", CREATE, json=body)
    assert answer.status == 400, answer.body
    assert words.lower() in answer.json()["error"].lower()
    assert answer.headers["content-type"].startswith("application/json")
    assert await wire.pool.fetchval("select count(*) from instance where account_id = $1", account.id) == 0


async def test_limit_holds_in_a_race(wire: Wire) -> None:
    """Of many creates at once no more succeed than the account's limit; the rest hear 403."""
    account = await wire.account(limit=5)
    answers = await asyncio.gather(
        *(wire.partner(account).call("POST", CREATE, json={"name": f"n{number}"}) for number in range(20))
    )
    assert sorted(answer.status for answer in answers) == [200] * 5 + [403] * 15
    assert "error" in next(answer for answer in answers if answer.status == 403).json()
    assert await wire.pool.fetchval("select instances_live from account where id = $1", account.id) == 5


async def test_live_count_follows_every_change_of_state(wire: Wire) -> None:
    """account.instances_live goes down when an instance ends or vanishes, and up again when it returns."""
    account = await wire.account(limit=1)
    created = await _create(wire.partner(account), {"name": "a"})
    live = "select instances_live from account where id = $1"
    for state, expected in [("active", 1), ("canceled", 0), ("active", 1), ("expired", 0), ("deleted", 0)]:
        await wire.pool.execute("update instance set state = $2 where id = $1", created["id"], state)
        assert await wire.pool.fetchval(live, account.id) == expected
    await _create(wire.partner(account), {"name": "b"})
    await wire.pool.execute("delete from instance where account_id = $1", account.id)
    assert await wire.pool.fetchval(live, account.id) == 0


async def test_suspended_account_creates_nothing(wire: Wire) -> None:
    """An account that is suspended may not create."""
    account = await wire.account()
    await wire.pool.execute("update account set suspended_until_ms = 1 where id = $1", account.id)
    assert (await wire.partner(account).call("POST", CREATE, json={"name": "a"})).status == 403


async def test_token_is_not_readable_in_the_database(wire: Wire) -> None:
    """Neither the partner's nor the instance's token stands in any row in the clear."""
    account = await wire.account(client_token=True)
    created = await _create(wire.partner(account), {"name": "a"})
    for table in ("account", "instance"):
        text = str(await wire.pool.fetch(f"select encode(t::text::bytea, 'escape') from {table} t"))
        for secret in (account.partner_token, account.client_token or "", created["token"]):
            assert secret not in text
            assert secret.encode().hex() not in text
