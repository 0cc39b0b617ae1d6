"""The names that are fixed: commands, ready line, settings, sandbox routes. Scripts outside the repository use them.

A change that makes a test here fail breaks such scripts; add freely, but rename and remove nothing.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.acceptance.hooks import Hooks
from tests.acceptance.processes import family_of, listening
from tests.acceptance.product import TOMADA, Account, Instance, Phone, Product, Reply, http, running, wait_for

OWNER, FRIEND = "5511999970001", "5511999970002"
TOKEN = "partner-token-of-the-contract"


def tomada(data: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    environment = {**os.environ, "TOMADA_DATA_DIR": str(data), **settings}
    return subprocess.run(
        [*TOMADA, *arguments], capture_output=True, text=True, env=environment, timeout=60, check=False
    )


def sandbox(product: Product, method: str, path: str, body: object = None) -> Reply:
    """Call a sandbox route."""
    return http(method, f"{product.base}/sandbox/{path}", body)


@pytest.fixture(scope="module")
def linked(product: Product, account: Account) -> tuple[Instance, Phone, Phone]:
    """An instance on its owner's phone, and a friend's phone that has written to it."""
    instance = account.create_instance(name="Contract", sessionName="Contract session")
    owner, friend = product.phone(OWNER, "Owner"), product.phone(FRIEND, "Friend")
    instance.pair(owner)
    return instance, owner, friend


# --- commands and settings ---


def test_serve_prints_its_ready_line_and_ends_with_status_0(tmp_path: Path) -> None:
    """One line of JSON on standard output, nothing else; logs on standard error; SIGTERM ends it with 0."""
    tmp_path.chmod(0o755)
    data = tmp_path / "data"
    command = [*TOMADA, "serve", "--sandbox", "--port", "0", "--data", str(data)]
    environment = {**os.environ, "TOMADA_BOOTSTRAP_PARTNER_TOKEN": TOKEN}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        listed = http("GET", ready["url"] + "/instances", headers={"Authorization": f"Bearer {TOKEN}"})
        process.terminate()
        rest, logs = process.communicate(timeout=60)

    assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d*", ready["url"])
    assert (ready["data"], ready["sandbox"]) == (str(data), True)
    assert listed.status == 200
    assert (rest, process.returncode) == (b"", 0)
    assert TOKEN.encode() not in logs
    for line in logs.splitlines():
        assert "event" in json.loads(line)


def test_accounts(product: Product) -> None:
    """create, list and rotate-token, one line of JSON each."""
    made = tomada(product.data, "accounts", "create", "Loja Ção", "--limit", "1")
    guarded = tomada(product.data, "accounts", "create", "Guarded", "--client-token")
    account, second = json.loads(made.stdout), json.loads(guarded.stdout)
    assert account.keys() >= {"id", "name", "partnerToken", "clientToken"}
    assert (account["name"], account["clientToken"]) == ("Loja Ção", None)
    assert re.fullmatch("F[0-9a-f]{32}S", second["clientToken"])

    listed = [json.loads(line) for line in tomada(product.data, "accounts", "list").stdout.splitlines()]
    assert {"id": account["id"], "name": "Loja Ção", "limit": 1}.items() <= {
        key: value for one in listed if one["id"] == account["id"] for key, value in one.items()
    }.items()
    assert account["partnerToken"] not in str(listed)

    one = Account(product, account["id"], account["partnerToken"], None)
    one.create_instance()
    assert one.post("/instances/integrator/on-demand", {"name": "one too many"}).status == 403

    rotated = json.loads(tomada(product.data, "accounts", "rotate-token", account["id"]).stdout)
    assert Account(product, account["id"], rotated["partnerToken"], None).get("/instances").status == 200


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"TOMADA_BOOTSTRAP_PARTNER_TOKEN": "x" * 23}, "TOMADA_BOOTSTRAP_PARTNER_TOKEN"),
        ({"TOMADA_TRIAL_HOURS": "two days"}, "TOMADA_TRIAL_HOURS"),
        ({"TOMADA_INSTANCES_PER_MACHINE": "0"}, "TOMADA_INSTANCES_PER_MACHINE"),
        ({"TOMADA_SEND_DELAY_S": "1..3"}, "TOMADA_SEND_DELAY_S"),
        ({"TOMADA_CALLBACK_ALLOW_HTTP": "1"}, "TOMADA_CALLBACK_ALLOW_HTTP"),
    ],
)
def test_a_wrong_setting_refuses_to_start(tmp_path: Path, settings: dict[str, str], words: str) -> None:
    """Status 1 and one line that names the setting and does not show a secret; nothing is made."""
    data = tmp_path / "data"
    ended = tomada(data, "serve", "--port", "0", **settings)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert words in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert "x" * 23 not in ended.stderr
    assert not data.exists()


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, str]]:
    """A server as it is in production: no sandbox. Its URL, data directory and a partner token."""
    data = tmp_path_factory.mktemp("strict") / "data"
    command = [*TOMADA, "serve", "--port", "0", "--data", str(data)]
    environment = {**os.environ, "TOMADA_BOOTSTRAP_PARTNER_TOKEN": TOKEN, "TOMADA_TRIAL_HOURS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["sandbox"] is False
        yield ready["url"], data, TOKEN
        process.terminate()
        process.wait(60)


def test_without_the_sandbox_there_are_no_sandbox_routes(strict: tuple[str, Path, str]) -> None:
    """Nobody moves the clock of a production server, or finds a phone there."""
    url, data, _ = strict
    unknown = http("GET", f"{url}/nothing-here")
    for method, path in (
        ("GET", "clock"),
        ("POST", "clock"),
        ("GET", "phones"),
        ("POST", "phones"),
        ("POST", "faults"),
        ("DELETE", "faults"),
    ):
        reply = http(method, f"{url}/sandbox/{path}", {} if method == "POST" else None)
        assert (reply.status, reply.body) == (unknown.status, unknown.body)
    assert not (data / "sandbox").exists()


BLOCKED = (
    "http://example.com/plain",
    "https://127.0.0.1/loopback",
    "https://10.1.2.3/private",
    "https://169.254.169.254/metadata",
    "https://[::1]/loopback",
    "https://[::ffff:10.0.0.1]/mapped",
    "https://[64:ff9b::a9fe:a9fe]/nat64",
    "https://2130706433/number",
    "https://localhost/name",
    "https://example.com:22/port",
    "https://example.com/\r\nX-Injected: yes",
    "ftp://example.com/scheme",
)


def test_without_the_sandbox_no_call_takes_an_inner_address(strict: tuple[str, Path, str]) -> None:
    """create, every update-webhook-*, update-every-webhooks, replays, test-event and urls/enable: one table for all."""
    url, _, token = strict
    partner = {"Authorization": f"Bearer {token}"}
    made = http("POST", f"{url}/instances/integrator/on-demand", {"name": "strict"}, headers=partner).body
    path = f"{url}/instances/{made['id']}/token/{made['token']}"
    own = f"{url}/v1/instances/{made['id']}"
    fields = (
        "received",
        "receivedAndDelivery",
        "delivery",
        "disconnected",
        "connected",
        "messageStatus",
        "presenceChat",
    )
    hooks = (
        "received",
        "received-delivery",
        "delivery",
        "disconnected",
        "connected",
        "message-status",
        "chat-presence",
    )
    before = http("GET", f"{path}/me").body
    for blocked in BLOCKED:
        replies = [
            *(
                http(
                    "POST",
                    f"{url}/instances/integrator/on-demand",
                    {"name": "x", f"{field}CallbackUrl": blocked},
                    headers=partner,
                )
                for field in fields
            ),
            *(http("PUT", f"{path}/update-webhook-{hook}", {"value": blocked}) for hook in hooks),
            http("PUT", f"{path}/update-every-webhooks", {"value": blocked}),
            *(
                http("POST", f"{own}/{call}", {"url": blocked}, headers=partner)
                for call in ("replays", "test-event", "urls/enable")
            ),
        ]
        for reply in replies:
            assert reply.status == 400, (blocked, reply)
            assert "This URL cannot be called" in json.dumps(reply.body), (blocked, reply)
    assert http("GET", f"{path}/me").body == before
    assert http("GET", f"{url}/instances", headers=partner).body["total"] == 1


def test_the_trial_is_as_long_as_the_setting_says(strict: tuple[str, Path, str]) -> None:
    """TOMADA_TRIAL_HOURS."""
    url, _, token = strict
    partner = {"Authorization": f"Bearer {token}"}
    made = http("POST", f"{url}/instances/integrator/on-demand", {"name": "short"}, headers=partner).body
    created = http("GET", f"{url}/instances/{made['id']}/token/{made['token']}/status").body["created"]
    assert made["due"] - created == 3_600_000


# --- what lies on the disk and listens ---


def test_nothing_but_the_api_can_be_reached_or_read_by_others(
    product: Product, linked: tuple[Instance, Phone, Phone]
) -> None:
    """Every port is on loopback; what holds keys or messages can be read by our user alone."""
    open_to = listening([psutil.Process(product.pid), *family_of(product)])
    assert len(open_to) >= 4  # the API; the sandbox's control, proxy and TLS
    assert {ip for ip, _ in open_to} == {"127.0.0.1"}

    data = product.data
    assert (data / "secret.key").stat().st_mode & 0o777 == 0o600
    for folder in (data / "machines", data / "machines" / "0", data / "sandbox", data / "postgres" / "cluster"):
        assert folder.stat().st_mode & 0o077 == 0, folder
    kept = [*data.glob("machines/*/*"), *data.glob("postgres/cluster/*.conf")]
    assert len(kept) >= 4
    for path in kept:
        assert path.stat().st_mode & 0o077 == 0, path


# --- sandbox routes ---


def test_phones(product: Product) -> None:
    """Add (again, too), list, show."""
    wanted = {"number": "5511999970009", "name": "Nine"}
    for _ in range(2):
        reply = sandbox(product, "POST", "phones", wanted)
        assert (reply.status, reply.body) == (200, wanted)
    assert wanted.items() <= sandbox(product, "GET", "phones/5511999970009").body.items()
    listed = [one["number"] for one in sandbox(product, "GET", "phones").body]
    assert listed.count("5511999970009") == 1
    assert sandbox(product, "GET", "phones/5511999970009").body["linkedDevices"] == []
    assert sandbox(product, "GET", "phones/5511999979999").status == 404
    wrong: tuple[object, ...] = ({}, {"number": 5}, {"number": "abc"}, [])
    for bad in wrong:
        reply = sandbox(product, "POST", "phones", bad)
        assert reply.status == 400
        assert reply.body["error"]


def test_scan_shows_the_session_name(product: Product, account: Account) -> None:
    """200 with device and name; an unknown and a used code are refused with a reason."""
    instance = account.create_instance(name="Scanned", sessionName="Scanned session")
    phone = product.phone("5511999970003", "Scanner")
    code = instance.get("qr-code").body["value"]

    reply = sandbox(product, "POST", f"phones/{phone.number}/scan", {"qr": code})

    assert reply.status == 200
    assert reply.body["name"] == "Scanned session"
    instance.wait_connected()
    [device] = phone.linked_devices()
    assert device.keys() >= {"device", "name", "platform", "online"}
    assert (device["device"], device["name"], device["online"]) == (reply.body["device"], "Scanned session", True)
    for bad in (code, "nonsense"):
        refused = sandbox(product, "POST", f"phones/{phone.number}/scan", {"qr": bad})
        assert refused.status == 400
        assert refused.body["error"]


def test_link_code_and_unlink(product: Product, account: Account) -> None:
    """A pairing code links, in any case and with or without its dash; unlink removes the device."""
    instance = account.create_instance(name="Coded")
    phone = product.phone("5511999970004", "Coder")
    code = instance.get(f"phone-code/{phone.number}").body["value"]
    assert re.fullmatch("[A-Z0-9]{4}-[A-Z0-9]{4}", code)
    refused = sandbox(product, "POST", f"phones/{FRIEND}/link-code", {"code": code})
    assert refused.status in (400, 404)

    linked = sandbox(product, "POST", f"phones/{phone.number}/link-code", {"code": code.lower().replace("-", "")})

    assert linked.status == 200
    instance.wait_connected()
    assert sandbox(product, "POST", f"phones/{phone.number}/unlink", {"device": linked.body["device"]}).status == 200
    wait_for("unlinked", lambda: phone.linked_devices() == [])
    assert sandbox(product, "POST", f"phones/{phone.number}/unlink", {"device": 77}).status == 400


KINDS: dict[str, Any] = {
    "text": "olá",
    "image": {"caption": "a picture"},
    "audio": {"ptt": True},
    "video": {},
    "document": {"fileName": "bill.pdf"},
    "sticker": {},
    "location": {"latitude": -23.5, "longitude": -46.6},
    "contact": {"name": "Zé", "phone": "5511900000000"},
    "poll": {"name": "When?", "options": ["today", "tomorrow"]},
}


def test_a_phone_sends_every_kind(product: Product, linked: tuple[Instance, Phone, Phone]) -> None:
    """200 with WhatsApp's id; the receiver's list has the kind; a reaction names its target; unknown kinds are 400."""
    _, owner, friend = linked
    sent = {}
    for kind, value in KINDS.items():
        reply = sandbox(product, "POST", f"phones/{FRIEND}/send", {"to": OWNER, kind: value})
        assert reply.status == 200, (kind, reply)
        sent[kind] = reply.body["id"]
    reaction = sandbox(
        product, "POST", f"phones/{FRIEND}/send", {"to": OWNER, "reaction": {"id": sent["text"], "emoji": "👍"}}
    )
    sent["reaction"] = reaction.body["id"]
    for bad in ({"to": OWNER}, {"to": OWNER, "smoke": "signals"}, {"to": "5500000000", "text": "x"}):
        assert sandbox(product, "POST", f"phones/{FRIEND}/send", bad).status == 400

    def arrived() -> dict[str, dict[str, Any]] | None:
        found = {message["id"]: message for message in owner.messages()}
        return found if found.keys() >= set(sent.values()) else None

    received = wait_for("every kind", arrived)
    for kind, message_id in sent.items():
        message = received[message_id]
        assert message.keys() >= {"id", "from", "chat", "fromMe", "kind", "at"}
        assert (message["kind"], message["from"], message["fromMe"]) == (kind, FRIEND, False)
        assert abs(message["at"] - received[sent["text"]]["at"]) < 60_000
    assert received[sent["text"]]["text"] == "olá"
    assert [message["fromMe"] for message in friend.messages() if message["id"] == sent["text"]] == [True]


def test_receipts_presence_and_typing(product: Product, linked: tuple[Instance, Phone, Phone], hooks: Hooks) -> None:
    """read, played, presence and typing are taken, and the instance's integrator hears of them."""
    instance, _, friend = linked
    instance.put("update-every-webhooks", {"value": hooks.url("contract") + "/all"})
    accepted = instance.send_text(FRIEND, "read me")
    heard = wait_for("it", lambda: next((one for one in friend.messages() if one.get("text") == "read me"), None))

    assert sandbox(product, "POST", f"phones/{FRIEND}/read", {"ids": [heard["id"]]}).status == 200
    assert sandbox(product, "POST", f"phones/{FRIEND}/played", {"ids": [heard["id"]]}).status == 200
    assert sandbox(product, "POST", f"phones/{FRIEND}/presence", {"status": "available"}).status == 200
    assert sandbox(product, "POST", f"phones/{FRIEND}/typing", {"to": OWNER, "state": "composing"}).status == 200

    for status in ("READ", "PLAYED"):
        hooks.wait_status("contract", accepted["messageId"], status)
    hooks.wait("contract", "PresenceChatCallback", lambda body: body["status"] == "COMPOSING")
    for path, bad in (
        ("read", {"ids": []}),
        ("read", {"ids": ["nobody's"]}),
        ("presence", {"status": "asleep"}),
        ("typing", {"to": OWNER, "state": "dancing"}),
    ):
        assert sandbox(product, "POST", f"phones/{FRIEND}/{path}", bad).status == 400


@pytest.mark.parametrize("kind", ["drop", "refuse", "replaced", "ban", "no-ack", "delay"])
def test_faults(product: Product, kind: str) -> None:
    """Every kind is taken, standing ones are listed, DELETE clears them; an unknown kind is 400."""
    nobody = "5511999979998"
    product.phone(nobody)
    assert sandbox(product, "POST", "faults", {"kind": kind, "number": nobody, "until": 30}).status == 200
    standing = [fault["kind"] for fault in sandbox(product, "GET", "faults").body["faults"]]
    assert standing == ([] if kind in ("drop", "replaced") else [kind])
    assert sandbox(product, "DELETE", "faults").status == 200
    assert sandbox(product, "GET", "faults").body["faults"] == []
    assert sandbox(product, "POST", "faults", {"kind": "meteor"}).status == 400


def test_the_clock_moves_forward_only(tmp_path: Path) -> None:
    """`now` and `offsetSeconds`; nonsense is 400 and moves nothing."""
    tmp_path.chmod(0o755)
    with running(tmp_path / "data") as product:
        before = sandbox(product, "GET", "clock").body
        assert before["offsetSeconds"] == 0

        moved = sandbox(product, "POST", "clock", {"advanceSeconds": 3600})

        assert moved.status == 200
        assert moved.body["offsetSeconds"] == 3600
        assert 3_600_000 <= moved.body["now"] - before["now"] < 3_660_000
        assert sandbox(product, "GET", "clock").body["offsetSeconds"] == 3600
        wrong: tuple[object, ...] = (
            {},
            {"advanceSeconds": -1},
            {"advanceSeconds": "1"},
            {"advanceSeconds": 10**30},
            [],
        )
        for bad in wrong:
            assert sandbox(product, "POST", "clock", bad).status == 400
        assert sandbox(product, "GET", "clock").body["offsetSeconds"] == 3600
