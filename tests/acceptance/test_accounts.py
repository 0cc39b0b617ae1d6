"""What an operator may do with integrators, by command and over /v1, and what the integrators notice of it."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.acceptance.product import Account, Instance, Product, Reply, wait_for
from tests.acceptance.product import http as call
from tests.acceptance.test_v1 import OPERATOR
from tests.receiver import Receiver

CREATE = "/instances/integrator/on-demand"
PHONE = "5511933330000"
FAILED_LOGINS_PER_MINUTE = 600  # the default of the setting


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    """An integrator's endpoint."""
    receiver = Receiver(tmp_path)
    yield receiver
    receiver.close()


def operator(product: Product, method: str, path: str, body: object = None) -> Reply:
    """A call of the operator."""
    return call(method, f"{product.base}/v1/accounts{path}", body, headers={"Authorization": f"Bearer {OPERATOR}"})


def with_token(account: Account, token: str) -> Account:
    """The same account with another partner token."""
    return Account(account.product, account.id, token, None)


def actions(product: Product, account: Account) -> list[tuple[str, str]]:
    """Actor and action of the account's audit log."""
    return [(row["actor"], row["action"]) for row in operator(product, "GET", f"/{account.id}/audit").body]


def test_instances_created_in_a_day(product: Product) -> None:
    """The limit counts what was created, deleted or not; null takes it away; others are not concerned."""
    account, other = product.create_account(), product.create_account()
    reply = operator(product, "PATCH", f"/{account.id}", {"createdPerDayMax": 2})
    assert (reply.status, reply.body["createdPerDayMax"], reply.body["messagesPerMinuteMax"]) == (200, 2, None)
    for _ in range(2):
        account.create_instance()
    refused = account.post(CREATE, {"name": "third"})
    assert (refused.status, refused.body) == (403, {"error": "Your account may not create more instances today"})
    other.create_instance()

    shown = product.command("accounts", "limits", account.id, "--created-per-day", "none", "--instances", "3")
    assert (shown["createdPerDayMax"], shown["limit"], shown["instances"]) == (None, 3, 2)
    account.create_instance()
    refused = account.post(CREATE, {"name": "fourth"})
    assert (refused.status, refused.body) == (403, {"error": "Your account may not have more instances"})
    assert actions(product, account)[-2:] == [("operator", "limits_set"), ("cli", "limits_set")]


def test_messages_per_minute(product: Product) -> None:
    """The account's instances share a minute's worth; one too many is 429 and is not queued; others go on."""
    account, other = product.create_account(), product.create_account()
    one, two, free = account.create_instance(), account.create_instance(), other.create_instance()
    product.command("accounts", "limits", account.id, "--messages-per-minute", "3")
    for instance in (one, two, one):
        instance.send_text(PHONE, "within")
    refused = two.post("send-text", {"phone": PHONE, "message": "too many"})
    assert (refused.status, refused.body) == (429, {"error": "Your account may send 3 messages a minute"})
    assert 1 <= int(refused.headers["retry-after"]) <= 20
    assert two.post("send-text", {"phone": PHONE}).status == 400  # a mistake is told first, and costs nothing
    assert (one.get("queue/count").body, two.get("queue/count").body) == ({"count": 2}, {"count": 1})
    for _ in range(5):
        free.send_text(PHONE, "another account")

    assert operator(product, "PATCH", f"/{account.id}", {"messagesPerMinuteMax": None}).status == 200
    two.send_text(PHONE, "no limit")


@pytest.mark.parametrize("body", [{}, {"instancesMax": -1}, {"instancesMax": None}, {"createdPerDayMax": "many"}])
def test_limits_that_are_none(product: Product, account: Account, body: dict[str, Any]) -> None:
    """Nothing to set, out of range, and no limit of instances at all are refused."""
    assert operator(product, "PATCH", f"/{account.id}", body).status == 400


def test_client_token_on_and_off(product: Product) -> None:
    """On: calls need the header from now on; asking again answers the same token; off: they need it no more."""
    account = product.create_account()
    instance = account.create_instance()
    assert instance.get("status").status == 200
    on = product.command("accounts", "client-token", account.id, "on")
    assert instance.get("status").body == {"error": "your client-token is not configured"}
    header = {"Client-Token": on["clientToken"]}
    assert call("GET", instance.url("status"), headers=header).status == 200
    assert call("GET", f"{product.base}/instances", headers=header).body["total"] == 1

    again = operator(product, "PUT", f"/{account.id}/client-token", {"on": True})
    assert again.body == {"id": account.id, "clientToken": on["clientToken"]}
    off = operator(product, "PUT", f"/{account.id}/client-token", {"on": False})
    assert off.body == {"id": account.id, "clientToken": None}
    assert instance.get("status").status == 200
    assert call("GET", f"{product.base}/instances", headers=header).status == 401
    assert product.command("accounts", "client-token", account.id, "on")["clientToken"] != on["clientToken"]
    assert [action for _, action in actions(product, account)][1:] == [
        "client_token_on",
        "client_token_off",
        "client_token_on",
    ]


def test_a_partner_token_changes_over(product: Product) -> None:
    """The old one works for the stated time, or until it is ended; the one before the old one never."""
    account = product.create_account()
    made = product.command("accounts", "rotate-token", account.id)
    second = with_token(account, made["partnerToken"])
    assert account.get("/instances").status == second.get("/instances").status == 200
    (shown,) = [one for one in operator(product, "GET", "").body if one["id"] == account.id]
    assert shown["previousTokenUntilMs"] == made["previousUntilMs"]

    made = operator(product, "POST", f"/{account.id}/rotate-token").body
    third = with_token(account, made["partnerToken"])
    assert [one.get("/instances").status for one in (account, second, third)] == [401, 200, 200]
    assert operator(product, "POST", f"/{account.id}/end-overlap").status == 200
    assert [one.get("/instances").status for one in (second, third)] == [401, 200]

    made = product.command("accounts", "rotate-token", account.id, "--overlap-hours", "0.001")
    assert third.get("/instances").status == 200
    wait_for("its end", lambda: third.get("/instances").status == 401, 10)
    fourth = with_token(account, made["partnerToken"])
    made = operator(product, "POST", f"/{account.id}/rotate-token", {"overlapHours": 0}).body
    assert made["previousUntilMs"] is None
    assert [one.get("/instances").status for one in (fourth, with_token(account, made["partnerToken"]))] == [401, 200]
    assert product.command("accounts", "rotate-token", account.id, "--overlap-hours", "-1", status=1) is None


def test_a_signing_secret_changes_over(product: Product, receiver: Receiver) -> None:
    """During the overlap receivers with either secret accept the same callback; afterwards the new one alone."""
    made = product.command("accounts", "create", "Signed")
    account = Account(product, made["id"], made["partnerToken"], None)
    instance = account.create_instance()
    first = made["signingSecret"]
    assert accepted(instance, receiver, first) == [True]
    second = product.command("accounts", "rotate-signing-secret", account.id)["signingSecret"]
    assert accepted(instance, receiver, first, second) == [True, True]
    third = operator(product, "POST", f"/{account.id}/rotate-signing-secret", {"overlapHours": 1}).body["signingSecret"]
    assert accepted(instance, receiver, first, second, third) == [False, True, True]
    product.command("accounts", "end-overlap", account.id)
    assert accepted(instance, receiver, second, third) == [False, True]
    fourth = product.command("accounts", "rotate-signing-secret", account.id, "--overlap-hours", "0.001")
    wait_for(
        "its end", lambda: accepted(instance, receiver, third, fourth["signingSecret"]) == [False, True], timeout_s=10
    )


def accepted(instance: Instance, receiver: Receiver, *secrets: str) -> list[bool]:
    """Whether receivers with these secrets accept an event that is sent now."""
    url = receiver.url("ok/signed")
    sent = instance.account.post(f"/v1/instances/{instance.id}/test-event", {"url": url})
    assert sent.body["status"] == 200, sent
    request = receiver.requests()[-1]

    def verified(secret: str) -> bool:
        try:
            Webhook(secret).verify(request["body"], request["headers"])
        except WebhookVerificationError:
            return False
        return True

    return [verified(secret) for secret in secrets]


def test_suspended_and_resumed_by_command(product: Product) -> None:
    """Beside the running server: its instances stop at once, nothing new is made, and all works when it has paid."""
    account = product.create_account()
    instance = account.create_instance()
    suspended = product.command("accounts", "suspend", account.id, "--days", "3")
    assert suspended["untilMs"] > instance.due
    assert instance.get("status").status == 400
    refused = account.post(CREATE, {"name": "x"})
    assert (refused.status, refused.body) == (403, {"error": "Your account is suspended until its invoice is paid"})
    assert account.get("/instances").body["content"][0]["paymentStatus"] == "PENDING"
    product.command("accounts", "resume", account.id)
    assert instance.get("status").status == 200
    assert actions(product, account)[-2:] == [("cli", "suspended"), ("cli", "resumed")]


def test_an_account_that_is_not_there(product: Product) -> None:
    """Every change says so, in the words of the command line and of /v1."""
    for arguments in (
        ("limits", "NONE", "--instances", "1"),
        ("client-token", "NONE", "on"),
        ("rotate-token", "NONE"),
        ("rotate-signing-secret", "NONE"),
        ("end-overlap", "NONE"),
        ("suspend", "NONE"),
        ("resume", "NONE"),
    ):
        assert product.command("accounts", *arguments, status=1) is None
    for method, path, body in (
        ("PATCH", "", {"instancesMax": 1}),
        ("PUT", "/client-token", {"on": True}),
        ("POST", "/rotate-token", None),
        ("POST", "/rotate-signing-secret", None),
        ("POST", "/end-overlap", None),
        ("POST", "/suspend", None),
        ("POST", "/resume", None),
    ):
        reply = operator(product, method, f"/NONE{path}", body)
        assert (reply.status, reply.body["message"]) == (404, "Account not found"), path


def test_failed_log_ins_are_bounded_per_address(product: Product, account: Account) -> None:
    """Who tries tokens hears 429 after a minute's worth; from the same address known credentials go on."""
    instance = account.create_instance()
    guesser = http.client.HTTPConnection(urlsplit(product.base).netloc, timeout=30, source_address=("127.0.0.2", 0))

    def guess(path: str, authorization: str) -> tuple[int, dict[str, Any]]:
        guesser.request("GET", path, headers={"Authorization": authorization})
        reply = guesser.getresponse()
        return reply.status, json.loads(reply.read())

    path = urlsplit(instance.url("status")).path
    assert guess(path, "")[0] == 200
    statuses = [guess("/instances", f"Bearer wrong{number}")[0] for number in range(FAILED_LOGINS_PER_MINUTE)]
    assert set(statuses) == {401}
    last = [guess("/instances", f"Bearer more{number}")[0] for number in range(FAILED_LOGINS_PER_MINUTE)]
    assert last.count(429) > FAILED_LOGINS_PER_MINUTE // 2  # the bucket fills meanwhile
    wrong_token = path.replace(instance.token, "A" * 24)
    answers = [guess(wrong_token, "") for _ in range(50)]
    assert (429, {"error": "Too many failed log-ins from your address; please wait"}) in answers
    assert guess(path, "")[0] == 200
    assert account.get("/instances").status == 200  # another address
    guesser.close()
