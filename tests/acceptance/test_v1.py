"""/v1 over the whole product: history, attempts, replay, test events, accounts, metrics, each for its owner only."""

import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.acceptance.hooks import Hooks
from tests.acceptance.product import Account, Instance, Product, Reply, http, wait_for
from tests.receiver import Receiver

OPERATOR = "operator-token-of-the-acceptance-tests"


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """A receiver whose behaviours the URL chooses."""
    receiver = Receiver(tmp_path_factory.mktemp("v1"))
    yield receiver
    receiver.close()


@pytest.fixture(scope="module")
def history(product: Product, account: Account, hooks: Hooks) -> Instance:
    """An instance with a connected event and three received ones, delivered."""
    instance = account.create_instance(hooks.url("v1"), name="Historic")
    instance.pair(product.phone("5511999990081", "Historic"))
    customer = product.phone("5511977770081", "Customer")
    for number in range(3):
        customer.send_text("5511999990081", f"v1 {number}")
    hooks.wait_text("v1", "v1 2")
    wait_for(
        "all delivered", lambda: not account.get(f"/v1/instances/{instance.id}/events?state=waiting").body["content"]
    )
    return instance


def test_history_shows_events_newest_first_with_their_attempts(account: Account, history: Instance) -> None:
    """Each event carries the body as it was sent, and each attempt its status."""
    page = account.get(f"/v1/instances/{history.id}/events?type=ReceivedCallback&limit=2").body
    rest = account.get(f"/v1/instances/{history.id}/events?type=ReceivedCallback&cursor={page['next']}").body
    attempts = account.get(f"/v1/events/{page['content'][0]['id']}/attempts").body

    texts = [event["body"]["text"]["message"] for event in page["content"] + rest["content"]]
    assert texts == ["v1 2", "v1 1", "v1 0"]
    assert {event["state"] for event in page["content"]} == {"delivered"}
    assert [(attempt["status"], attempt["error"]) for attempt in attempts] == [(200, None)]


def test_a_replay_sends_again_under_the_original_ids(account: Account, history: Instance, hooks: Hooks) -> None:
    """To another URL, in order, and its progress can be asked for."""
    first = {it.body["messageId"]: it.headers["webhook-id"] for it in hooks.of("v1", "ReceivedCallback")}

    asked = account.post(f"/v1/instances/{history.id}/replays", {"only": "all", "url": hooks.url("again") + "/x"})
    assert asked.status == 202
    wait_for("finished", lambda: account.get(f"/v1/replays/{asked.body['id']}").body["finished"])
    hooks.wait_text("again", "v1 2")

    again = [(it.body["messageId"], it.headers["webhook-id"]) for it in hooks.of("again", "ReceivedCallback")]
    assert again == list(first.items())


def test_a_gone_url_is_disabled_and_recovered(product: Product, account: Account, receiver: Receiver) -> None:
    """410 switches the URL off and keeps what comes; switching it on sends what it missed."""
    url = receiver.url("named-v1/hook")
    instance = account.create_instance(connectedCallbackUrl=url, disconnectedCallbackUrl=url)
    put_behaviour(receiver, "v1", "gone")
    phone = product.phone("5511999990082", "Gone")
    instance.pair(phone)

    def lane() -> dict[str, object] | None:
        lanes = account.get(f"/v1/instances/{instance.id}/urls").body
        return lanes[0] if lanes and lanes[0]["disabledMs"] else None

    assert wait_for("disabled", lane)["url"] == url
    dead = wait_for("dead letters", lambda: account.get(f"/v1/dead-letters?instanceId={instance.id}").body["content"])
    assert dead[0]["type"] == "ConnectedCallback"

    put_behaviour(receiver, "v1", "ok")
    enabled = account.post(f"/v1/instances/{instance.id}/urls/enable", {"url": url, "recoverSinceMs": 0})
    assert enabled.status == 200, enabled
    wait_for(
        "delivered at last",
        lambda: [it for it in receiver.requests() if it["status"] == 200 and "ConnectedCallback" in it["body"]],
    )


def test_setting_a_disabled_url_again_switches_it_on(product: Product, account: Account, receiver: Receiver) -> None:
    """A client that knows nothing of /v1 has mended its endpoint and sets it again: it is called again."""
    url = receiver.url("named-mended/hook")
    put_behaviour(receiver, "mended", "gone")
    instance = account.create_instance(connectedCallbackUrl=url)
    instance.pair(product.phone("5511999990083", "Mended"))

    def disabled() -> bool:
        return any(lane["disabledMs"] for lane in account.get(f"/v1/instances/{instance.id}/urls").body)

    wait_for("disabled", disabled)

    put_behaviour(receiver, "mended", "ok")
    assert instance.put("update-webhook-connected", {"value": url}).body == {"value": True}

    assert not disabled()
    assert instance.get("restart").status == 200
    wait_for("called again", lambda: [it for it in receiver.requests() if it["target"] == "/named-mended/hook"][1:])


def put_behaviour(receiver: Receiver, name: str, behaviour: str) -> None:
    """Say how the receiver shall answer under a name."""
    assert http_status("PUT", receiver.url(f"_set/{name}/{behaviour}")) == 200


def http_status(method: str, url: str) -> int:
    """The status alone; the receiver's answers are not JSON."""
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as reply:
        return int(reply.status)


def test_a_test_event_tells_what_the_url_answered(account: Account, history: Instance, receiver: Receiver) -> None:
    """The button of an integrator's dashboard: 2xx, or the reason why not."""
    good = account.post(f"/v1/instances/{history.id}/test-event", {"url": receiver.url("ok/test")}).body
    bad = account.post(f"/v1/instances/{history.id}/test-event", {"url": receiver.url("status-503/test")}).body

    assert (good["status"], good["error"]) == (200, None)
    assert bad["status"] == 503
    assert bad["error"]


def test_test_events_have_a_limit(account: Account, history: Instance, receiver: Receiver) -> None:
    """Two at a time of an account, so that nobody fills the connections that all callbacks share."""
    path = f"/v1/instances/{history.id}/test-event"
    with ThreadPoolExecutor(2) as two:
        slow = [two.submit(account.post, path, {"url": receiver.url("slow-3/test")}) for _ in range(2)]
        wait_for("both under way", lambda: [r["target"] for r in receiver.requests()].count("/slow-3/test") == 2)
        third = account.post(path, {"url": receiver.url("ok/test")})
        assert (third.status, third.body["error"]) == (429, "too_many_requests")
        assert [one.result().body["status"] for one in slow] == [200, 200]
    assert account.post(path, {"url": receiver.url("ok/test")}).body["status"] == 200


def test_another_account_sees_nothing(product: Product, history: Instance) -> None:
    """Events, URLs, replays and receipts of a stranger's instance look as if they were not there."""
    stranger = product.create_account()
    base = f"/v1/instances/{history.id}"

    event = history.account.get(f"{base}/events?limit=1").body["content"][0]["id"]
    for reply in (
        stranger.get(f"{base}/events"),
        stranger.get(f"{base}/urls"),
        stranger.get(f"/v1/events/{event}/attempts"),
        http("DELETE", f"{product.base}{base}/dead-letters", headers=stranger.headers),
        operator(product, "GET", "/v1/accounts/nobody/audit"),
        stranger.post(f"{base}/replays", {}),
        stranger.post(f"{base}/test-event", {"url": "http://127.0.0.1:1/x"}),
        stranger.get(f"{base}/erasure-receipt"),
    ):
        assert reply.status == 404
        assert reply.body["error"] == "not_found"
        assert reply.body["message"]


def operator(product: Product, method: str, path: str, body: object = None, token: str = OPERATOR) -> Reply:
    """A call of the operator."""
    return http(method, f"{product.base}{path}", body, headers={"Authorization": f"Bearer {token}"})


def test_the_operator_makes_suspends_and_resumes_accounts(product: Product) -> None:
    """All over HTTP; a suspended account's instances stop serving at once, and work again when it has paid."""
    made = operator(product, "POST", "/v1/accounts", {"name": "Integrator", "instancesMax": 1}).body
    integrator = Account(product, made["id"], made["partnerToken"], None)
    instance = integrator.create_instance()
    assert integrator.post("/instances/integrator/on-demand", {"name": "one too many"}).status == 403

    assert operator(product, "POST", f"/v1/accounts/{made['id']}/suspend", {"days": 3}).status == 200
    assert instance.get("status").status == 400
    assert operator(product, "POST", f"/v1/accounts/{made['id']}/resume").status == 200
    assert instance.get("status").status == 200

    listed = {one["id"]: one for one in operator(product, "GET", "/v1/accounts").body}
    assert listed[made["id"]]["instancesLive"] == 1
    audit = operator(product, "GET", f"/v1/accounts/{made['id']}/audit").body
    assert [row["action"] for row in audit][-2:] == ["suspended", "resumed"]
    for after, rows in (("", audit), ("0", audit), ("-1", audit), ("1", audit[1:])):
        assert operator(product, "GET", f"/v1/accounts/{made['id']}/audit?after={after}&limit=100").body == rows
    rotated = operator(product, "POST", f"/v1/accounts/{made['id']}/rotate-token", {"overlapHours": 0}).body
    assert integrator.get("/instances").status == 401
    assert Account(product, made["id"], rotated["partnerToken"], None).get("/instances").status == 200


def test_operator_and_partner_tokens_do_not_open_each_others_doors(product: Product, account: Account) -> None:
    """401 both ways, and without any token."""
    assert operator(product, "GET", "/v1/accounts", token=account.partner_token).status == 401
    assert operator(product, "GET", "/metrics", token=account.partner_token).status == 401
    assert http("GET", f"{product.base}/v1/accounts").status == 401
    assert operator(product, "GET", "/instances").status == 401


def test_metrics_count_what_happened(product: Product, history: Instance) -> None:
    """Prometheus text: attempts by outcome, sessions by condition, lag per account."""
    request = urllib.request.Request(f"{product.base}/metrics", headers={"Authorization": f"Bearer {OPERATOR}"})
    deadline = time.monotonic() + 30
    while True:
        with urllib.request.urlopen(request, timeout=10) as reply:
            text = reply.read().decode()
            kind = reply.headers["content-type"]
        if "tomada_callback_waiting{" in text or time.monotonic() > deadline:
            break
        time.sleep(0.5)

    assert 'tomada_callback_attempts_total{outcome="delivered"}' in text
    assert 'tomada_sessions{condition="connected"}' in text
    assert history.account.partner_token not in text
    assert (kind.count("charset"), kind.startswith("text/plain; version=")) == (1, True)


def test_what_is_there_and_empty_is_no_404(product: Product, account: Account, history: Instance) -> None:
    """An instance without events, a page beyond the last, an event that no URL wanted, an audit read to its end."""
    fresh = account.create_instance(name="Fresh")
    base = f"/v1/instances/{fresh.id}"

    assert account.get(f"{base}/events").body["content"] == []
    assert account.get(f"{base}/urls").body == []
    assert account.get(f"/v1/instances/{history.id}/events?state=dead").body["content"] == []
    purged = http("DELETE", f"{product.base}{base}/dead-letters", headers=account.headers)
    assert (purged.status, purged.body) == (200, {"removed": 0})
    assert operator(product, "GET", f"/v1/accounts/{account.id}/audit?after=100000").body == []


@pytest.mark.parametrize("number", [-1, 2**53, 2**63, 10**30, 1.5, "x"])
def test_numbers_out_of_range_are_refused_in_words(product: Product, history: Instance, number: object) -> None:
    """Whatever the database could not hold is a 400 with code, message and hint, and never reaches it."""
    base = f"{product.base}/v1/instances/{history.id}"
    for method, path, body in (
        ("POST", "replays", {"fromNumber": number}),
        ("POST", "replays", {"untilNumber": number}),
        ("POST", "replays", {"sinceMs": number}),
        ("POST", "urls/enable", {"url": "https://example.com/x", "recoverSinceMs": number}),
        ("DELETE", "dead-letters", {"beforeMs": number}),
        ("DELETE", "dead-letters", {"eventNumbers": [number]}),
    ):
        reply = http(method, f"{base}/{path}", body, headers=history.account.headers)
        assert reply.status == 400, (path, body, reply)
        assert reply.body.keys() == {"error", "message", "hint"}
        assert list(body)[-1] in reply.body["message"]
