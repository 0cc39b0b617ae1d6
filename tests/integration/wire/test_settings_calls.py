"""`PUT update-...`: what each of them changes, seen through `me`."""

from typing import Any

import pytest

from tests.integration.wire.conftest import Wire

URL = "https://hooks.example.com.br/in/%7Bx%7D?a=1&b=2"
TOO_LONG_IN_BYTES = "https://a.example/" + "\u6f22" * 700


async def _me(wire: Wire, path: str) -> dict[str, Any]:
    shown: dict[str, Any] = (await wire.client().call("GET", f"{path}/me")).json()
    return shown


@pytest.mark.parametrize(
    ("call", "field"),
    [
        ("update-webhook-delivery", "deliveryCallbackUrl"),
        ("update-webhook-received", "receivedCallbackUrl"),
        ("update-webhook-receive", "receivedCallbackUrl"),
        ("update-webhook-received-delivery", "receivedAndDeliveryCallbackUrl"),
        ("update-webhook-disconnected", "disconnectedCallbackUrl"),
        ("update-webhook-connected", "connectedCallbackUrl"),
        ("update-webhook-message-status", "messageStatusCallbackUrl"),
        ("update-webhook-chat-presence", "presenceChatCallbackUrl"),
    ],
)
async def test_update_webhook(wire: Wire, call: str, field: str) -> None:
    """Each call sets its own URL untouched and no other; an empty value clears it."""
    path = await wire.instance(await wire.account())
    before = await _me(wire, path)
    answer = await wire.client().call("PUT", f"{path}/{call}", json={"value": URL, "notifySentByMe": None})
    assert (answer.status, answer.json()) == (200, {"value": True})
    both = field == "receivedAndDeliveryCallbackUrl"
    assert await _me(wire, path) == before | {field: URL, "receiveCallbackSentByMe": both}
    for empty in ("", None):
        assert (await wire.client().call("PUT", f"{path}/{call}", json={"value": empty})).status == 200
        assert await _me(wire, path) == before


@pytest.mark.parametrize(
    "value", ["nonsense", "http://plain.example.com/", "https://10.0.0.1/", 5, ["https://a.b/"], TOO_LONG_IN_BYTES]
)
async def test_update_webhook_refuses(wire: Wire, value: object) -> None:
    """A URL that may not be called is a 400, and the old one stays."""
    path = await wire.instance(await wire.account(), receivedCallbackUrl=URL)
    answer = await wire.client().call("PUT", f"{path}/update-webhook-received", json={"value": value})
    assert answer.status == 400
    assert (await _me(wire, path))["receivedCallbackUrl"] == URL


async def test_update_every_webhooks(wire: Wire) -> None:
    """All seven URLs at once, and optionally the switch."""
    path = await wire.instance(await wire.account())
    await wire.client().call("PUT", f"{path}/update-every-webhooks", json={"value": URL})
    shown = await _me(wire, path)
    assert [shown[key] for key in shown if key.endswith("CallbackUrl")].count(URL) == 7
    assert shown["receiveCallbackSentByMe"] is False
    await wire.client().call("PUT", f"{path}/update-every-webhooks", json={"value": URL, "notifySentByMe": True})
    assert (await _me(wire, path))["receiveCallbackSentByMe"] is True


@pytest.mark.parametrize(
    ("call", "body", "field", "expected"),
    [
        ("update-notify-sent-by-me", {"notifySentByMe": True}, "receiveCallbackSentByMe", True),
        ("update-name", {"value": " Loja 2 "}, "name", "Loja 2"),
        ("update-call-reject-auto", {"value": True}, "callRejectAuto", True),
        ("update-call-reject-auto", {"value": "true"}, "callRejectAuto", True),
        ("update-call-reject-message", {"value": "Não posso"}, "callRejectMessage", "Não posso"),
        ("update-call-reject-message", {"value": None}, "callRejectMessage", None),
        ("update-auto-read-message", {"value": True}, "autoReadMessage", True),
        ("update-auto-read-status", {"value": True}, "autoReadStatus", True),
    ],
)
async def test_settings(wire: Wire, call: str, body: dict[str, object], field: str, expected: object) -> None:
    """Each switch and text is stored and shown."""
    path = await wire.instance(await wire.account())
    answer = await wire.client().call("PUT", f"{path}/{call}", json=body)
    assert (answer.status, answer.json()) == (200, {"value": True})
    assert (await _me(wire, path))[field] == expected


@pytest.mark.parametrize(
    ("call", "body", "words"),
    [
        ("update-name", {}, "value is required"),
        ("update-name", {"value": ""}, "name must not be empty"),
        ("update-name", {"value": 5}, "value: expected string, got number"),
        ("update-call-reject-auto", {"value": None}, "value: expected boolean, got null"),
        ("update-call-reject-auto", {"value": "perhaps"}, "value: expected boolean, got string"),
        ("update-notify-sent-by-me", {"value": True}, "notifySentByMe is required"),
        ("update-queue-settings", {}, "disableEnqueueWhenDisconnected is required"),
        ("update-every-webhooks", {"notifySentByMe": True}, "value is required"),
    ],
)
async def test_settings_refuse(wire: Wire, call: str, body: dict[str, object], words: str) -> None:
    """A missing or wrong value is a 400 that names the field."""
    path = await wire.instance(await wire.account())
    answer = await wire.client().call("PUT", f"{path}/{call}", json=body)
    assert (answer.status, answer.json()) == (400, {"error": words})


async def test_one_instance_is_changed(wire: Wire) -> None:
    """A change touches no other instance of the account."""
    account = await wire.account()
    first, second = await wire.instance(account), await wire.instance(account)
    before = await _me(wire, second)
    await wire.client().call("PUT", f"{first}/update-name", json={"value": "changed"})
    await wire.client().call("PUT", f"{first}/update-every-webhooks", json={"value": URL})
    assert await _me(wire, second) == before
