"""Status, pairing, disconnect, restart, me and device; who may call them, and when they stop working."""

import base64

import pytest

from tests.integration.wire.conftest import Wire
from tests.integration.wire.stub_sessions import QR_TEXT
from tomada.errors import MachineTimeout
from tomada.wire.ports import SessionStatus


def _id(path: str) -> str:
    return path.split("/")[2]


@pytest.mark.parametrize(
    ("condition", "connected", "session", "error"),
    [
        ("unpaired", False, False, "You are not connected."),
        ("connected", True, True, "You are already connected."),
        ("disconnected", False, True, "You are not connected."),
        ("logged_out", False, False, "You are not connected."),
        ("replaced", False, True, "You need to restore the session."),
    ],
)
async def test_status(wire: Wire, condition: str, connected: bool, session: bool, error: str) -> None:
    """Status has the five fields clients read, true to the session's condition."""
    path = await wire.instance(await wire.account())
    wire.sessions.known[_id(path)] = SessionStatus(condition=condition, phone="5511988887777")
    answer = await wire.client().call("GET", f"{path}/status")
    assert answer.status == 200
    shown = answer.json()
    assert (shown["connected"], shown["session"], shown["smartphoneConnected"]) == (connected, session, connected)
    assert shown["error"] == error
    assert shown["created"] > 1_600_000_000_000
    assert "subscribed" not in shown  # absent in a trial


async def test_qr_code(wire: Wire) -> None:
    """qr-code gives the text, qr-code/image a PNG data URI longer than 1000 characters."""
    path = await wire.instance(await wire.account())
    assert (await wire.client().call("GET", f"{path}/qr-code")).json() == {"value": QR_TEXT}
    image = (await wire.client().call("GET", f"{path}/qr-code/image")).json()["value"]
    prefix = "data:image/png;base64,"
    assert image.startswith(prefix)
    assert len(image) > 1000
    assert base64.b64decode(image.removeprefix(prefix)).startswith(b"\x89PNG")


async def test_qr_code_when_connected(wire: Wire) -> None:
    """A connected instance has no code: `{"connected": true}` and nothing else."""
    path = await wire.instance(await wire.account())
    wire.sessions.known[_id(path)] = SessionStatus(condition="connected")
    for call in ("qr-code", "qr-code/image"):
        assert (await wire.client().call("GET", f"{path}/{call}")).json() == {"connected": True}


async def test_phone_code(wire: Wire) -> None:
    """phone-code takes the number in any writing, and refuses what is none."""
    path = await wire.instance(await wire.account())
    assert (await wire.client().call("GET", f"{path}/phone-code/+55%20(11)%2098888-7777")).json() == {
        "value": "ABCD-1234"
    }
    assert wire.sessions.asked == [("phone_code", _id(path), "5511988887777")]
    for bad in ("abc", "120363012345678901-group", "12"):
        answer = await wire.client().call("GET", f"{path}/phone-code/{bad}")
        assert (answer.status, answer.json()) == (400, {"error": "Invalid phone"})


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("call", "asked"), [("disconnect", "logout"), ("restart", "restart"), ("restore-session", "restore")]
)
async def test_acting_calls(wire: Wire, method: str, call: str, asked: str) -> None:
    """disconnect, restart and restore-session answer `{"value": true}` to GET and POST, whatever the body."""
    path = await wire.instance(await wire.account())
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for body, headers in ((None, {}), (b"", form), (b"[]", {}), (b"not json", {"Content-Type": "application/json"})):
        answer = await wire.client().call(method, f"{path}/{call}", body=body, headers=headers)
        assert (answer.status, answer.json()) == (200, {"value": True})
    assert wire.sessions.asked == [(asked, _id(path))] * 4


async def test_me_and_device_and_phone(wire: Wire) -> None:
    """me shows the instance with its token; device and phone show the connected phone."""
    path = await wire.instance(await wire.account())
    wire.sessions.known[_id(path)] = SessionStatus(
        condition="connected", phone="5511988887777", push_name="Ana", is_business=True, platform="smba"
    )
    me = (await wire.client().call("GET", f"{path}/me")).json()
    assert path == f"/instances/{me['id']}/token/{me['token']}"
    assert me["created"].endswith("+00:00")
    device = (await wire.client().call("GET", f"{path}/device")).json()
    assert (device["phone"], device["name"], device["originalDevice"], device["isBusiness"]) == (
        "5511988887777",
        "Ana",
        "smba",
        True,
    )
    assert (await wire.client().call("GET", f"{path}/phone")).json() == {"phone": "5511988887777"}


@pytest.mark.parametrize(
    ("condition", "linked"), [("disconnected", True), ("replaced", True), ("logged_out", False), ("unpaired", False)]
)
async def test_a_phone_that_is_not_linked_is_not_shown(wire: Wire, condition: str, linked: bool) -> None:
    """After an unlink or a disconnect no call shows the phone of before; while it is only away, all do."""
    path = await wire.instance(await wire.account())
    wire.sessions.known[_id(path)] = SessionStatus(
        condition=condition, reason="why", phone="5511988887777", push_name="Ana", is_business=True, platform="smba"
    )
    insert = "insert into session (instance_id, condition, phone) values ($1, $2, '5511988887777')"
    await wire.pool.execute(insert, _id(path), condition)
    number = "5511988887777" if linked else None
    for call in ("status", "me", "device", "phone"):
        shown = (await wire.client().call("GET", f"{path}/{call}")).json()
        assert shown["phone"] == number, call
        if call == "status":
            assert (shown["session"], shown["condition"], shown["reason"]) == (linked, condition, "why")
        if call == "device":
            device = (shown["name"], shown["originalDevice"], shown["isBusiness"])
            assert device == (("Ana", "smba", True) if linked else (None, None, False))


async def test_machine_that_does_not_answer(wire: Wire) -> None:
    """A machine's silence is 504 with words, not a 500."""
    path = await wire.instance(await wire.account())
    wire.sessions.fails = MachineTimeout()
    answer = await wire.client().call("GET", f"{path}/qr-code")
    assert answer.status == 504
    assert answer.json() == {"error": "The instance's machine did not answer in time"}
    assert answer.headers["retry-after"] == "1"


async def test_unknown_defect_shows_nothing(wire: Wire) -> None:
    """An exception that nobody foresaw is a 500 without its text."""
    path = await wire.instance(await wire.account())
    wire.sessions.fails = ZeroDivisionError("secret detail")
    answer = await wire.client().call("GET", f"{path}/qr-code")
    assert (answer.status, answer.json()) == (500, {"error": "Something went wrong"})


@pytest.mark.parametrize(
    "change",
    [
        "state = 'expired'",
        "state = 'canceled'",
        "due_ms = lifecycle_now_ms() - 1",
        "state = 'in_cancellation', due_ms = lifecycle_now_ms() - 1",
        "state = 'active', suspended_until_ms = lifecycle_now_ms() - 1",
    ],
)
async def test_ended_instance_must_subscribe(wire: Wire, change: str) -> None:
    """Once trial, cancellation or suspension has run out, every call answers the words clients match."""
    path = await wire.instance(await wire.account())
    await wire.pool.execute(f"update instance set {change} where id = $1", _id(path))
    for method, call in (("GET", "status"), ("GET", "qr-code/image"), ("POST", "send-text"), ("PUT", "update-name")):
        answer = await wire.client().call(method, f"{path}/{call}", json={} if method != "GET" else None)
        assert answer.status == 400
        assert answer.json() == {"error": "To continue sending a message, you must subscribe to this instance again"}


async def test_paid_instance_works_after_its_due(wire: Wire) -> None:
    """A subscribed instance does not stop at `due`; status then says subscribed."""
    path = await wire.instance(await wire.account())
    await wire.pool.execute("update instance set state = 'active', due_ms = 1 where id = $1", _id(path))
    answer = await wire.client().call("GET", f"{path}/status")
    assert answer.status == 200
    assert answer.json()["subscribed"] is True


async def test_deleted_instance_is_not_found(wire: Wire) -> None:
    """After deletion the instance is as unknown as one that never was."""
    path = await wire.instance(await wire.account())
    await wire.pool.execute("update instance set state = 'deleted' where id = $1", _id(path))
    answer = await wire.client().call("GET", f"{path}/status")
    assert (answer.status, answer.json()) == (400, {"error": "Instance not found"})


async def test_wrong_id_or_token(wire: Wire) -> None:
    """Unknown ids, tokens of another instance and odd characters all answer the same."""
    account = await wire.account()
    first, second = await wire.instance(account), await wire.instance(account)
    first_id, second_token = _id(first), second.split("/")[4]
    for path in (
        f"/instances/{first_id}/token/{second_token}",
        f"/instances/{first_id}/token/AAAAAAAAAAAAAAAAAAAAAAAA",
        f"/instances/{first_id}/token/%01",
        f"/instances/{first_id}/token/{'A' * 3000}",
        f"/instances/%F0%9F%98%80/token/{second_token}",
        f"/instances/' or 1=1 --/token/{second_token}".replace(" ", "%20"),
    ):
        answer = await wire.client().call("GET", f"{path}/status")
        assert (answer.status, answer.json()) == (400, {"error": "Instance not found"}), path


async def test_client_token(wire: Wire) -> None:
    """With the feature on: missing or empty is 400, wrong 403 with the sent value, right 200."""
    account = await wire.account(client_token=True)
    path = await wire.instance(account)
    for headers in ({}, {"Client-Token": ""}, {"Client-Token": "   "}):
        answer = await wire.client(headers).call("GET", f"{path}/status")
        assert (answer.status, answer.json()) == (400, {"error": "your client-token is not configured"})
    for wrong in ("F00S", account.partner_token):
        answer = await wire.client({"client-Token": wrong}).call("GET", f"{path}/status")
        assert (answer.status, answer.json()) == (403, {"error": f"Client-Token {wrong} not allowed"})
    right = wire.client({"client-token": account.client_token or "", "Authorization": "Bearer ignored"})
    assert (await right.call("GET", f"{path}/status")).status == 200


async def test_client_token_of_another_account(wire: Wire) -> None:
    """Another account's Client-Token does not open an instance."""
    path = await wire.instance(await wire.account(client_token=True))
    other = (await wire.account(client_token=True)).client_token or ""
    assert (await wire.client({"Client-Token": other}).call("GET", f"{path}/status")).status == 403


async def test_client_token_is_ignored_when_the_feature_is_off(wire: Wire) -> None:
    """Without the feature any Client-Token passes."""
    path = await wire.instance(await wire.account())
    assert (await wire.client({"Client-Token": "whatever"}).call("GET", f"{path}/status")).status == 200


async def test_no_partner_credential_opens_instance_calls(wire: Wire) -> None:
    """The partner token in place of the instance's token is refused."""
    account = await wire.account()
    path = await wire.instance(account)
    answer = await wire.partner(account).call("GET", f"/instances/{_id(path)}/token/{account.partner_token}/status")
    assert answer.status == 400
