"""The lifecycle as an integrator sees it, read like a calendar: over HTTP, with the sandbox's clock and real machines.

The product is this module's own, because its clock is moved; each instance has a dedicated machine, so that a machine
that is gone is a process that is gone.
"""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.acceptance import remains
from tests.acceptance.hooks import Hooks
from tests.acceptance.product import Account, Instance, Phone, Product, Reply, http, running, wait_for

DAY_S = 24 * 3600
RETENTION_DAYS = 40
EVENTS_RETENTION_DAYS = 7
ZONE = ZoneInfo("America/Sao_Paulo")
MUST_SUBSCRIBE = (400, {"error": "To continue sending a message, you must subscribe to this instance again"})
NOT_FOUND = (400, {"error": "Instance not found"})
MACHINE_STEPS = ["remove_machine", "erase_files", "forget_session", "cancel_queue"]
CUSTOMER = "5511922220000"
numbers = itertools.count(5511911110000)


@pytest.fixture(scope="module")
def calendar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A product whose clock this module moves; the tests run on in its time."""
    environment = {"TOMADA_INSTANCES_PER_MACHINE": "1"}
    with running(tmp_path_factory.mktemp("calendar") / "data", environment) as product:
        yield product


@pytest.fixture(scope="module")
def partner(calendar: Product) -> Account:
    """An integrator."""
    return calendar.create_account("--limit", "100")


def now_ms(product: Product) -> int:
    """Lifecycle time."""
    return int(http("GET", f"{product.base}/sandbox/clock").body["now"])


def month_ends(product: Product) -> set[int]:
    """The end of the running month in the billing zone (two, should the month end this very moment)."""
    ends = set()
    for at_ms in (now_ms(product), now_ms(product) - 60_000):
        local = datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(ZONE)
        first = datetime(local.year + local.month // 12, local.month % 12 + 1, 1, tzinfo=ZONE)
        ends.add(int(first.timestamp() * 1000))
    return ends


def partner_call(instance: Instance, method: str, call: str, **sent: Any) -> Reply:
    """A partner's call on an instance."""
    headers = {**instance.account.headers, **sent.pop("headers", {})}
    return http(method, instance.url(f"integrator/{call}"), headers=headers, **sent)


def subscribe(instance: Instance, **sent: Any) -> Reply:
    """POST subscription."""
    return partner_call(instance, "POST", "on-demand/subscription", **sent)


def cancel(instance: Instance) -> Reply:
    """POST cancel."""
    return partner_call(instance, "POST", "on-demand/cancel")


def delete(instance: Instance) -> Reply:
    """DELETE delete."""
    return partner_call(instance, "DELETE", "on-demand/delete")


def said(reply: Reply) -> tuple[int, Any]:
    """Status and body."""
    return reply.status, reply.body


def listed(instance: Instance) -> dict[str, Any] | None:
    """The instance in its account's list; None if it is not shown."""
    found: list[dict[str, Any]] = instance.account.get(f"/instances?query={instance.id}").body["content"]
    return found[0] if found else None


def payment(instance: Instance) -> str | None:
    """`paymentStatus` in the list."""
    found = listed(instance)
    return found["paymentStatus"] if found else None


def receipt(instance: Instance) -> dict[str, Any] | None:
    """The erasure receipt, if there is one."""
    reply = instance.account.get(f"/v1/instances/{instance.id}/erasure-receipt")
    return reply.body if reply.status == 200 else None


def paired(partner: Account, hooks: Hooks | None = None, key: str = "") -> tuple[Instance, Phone]:
    """A new instance with a phone of its own."""
    instance = partner.create_instance(hooks.url(key) if hooks else None)
    phone = partner.product.phone(str(next(numbers)), "Shop")
    instance.pair(phone)
    return instance, phone


def until_machine_is_deleted(instance: Instance, phone: Phone) -> dict[str, Any]:
    """Waits for the receipt; then nothing of the machine may be left, here or on the phone."""
    proof: dict[str, Any] = wait_for("receipt", lambda: receipt(instance))
    product = instance.account.product
    assert phone.linked_devices() == []
    assert remains.files(product, instance.id) == []
    assert not {"session", "machine.tomada_session"} & set(remains.rows(product, instance.id))
    assert remains.waiting(product, instance.id) == 0
    return proof


def test_two_days_of_trial(calendar: Product, partner: Account, hooks: Hooks) -> None:
    """Who subscribes on day 1 stays; who does not is deleted on day 2, and nothing is left of its machine."""
    customer = calendar.phone(CUSTOMER, "Customer")
    created_ms = now_ms(calendar)
    trial, trial_phone = paired(partner, hooks, "calendar-trial")
    paid, paid_phone = paired(partner, hooks, "calendar-paid")
    (machine,), (other,) = remains.machines_of(calendar, trial.id), remains.machines_of(calendar, paid.id)
    assert machine.pid != other.pid
    assert created_ms + 2 * DAY_S * 1000 <= trial.due <= now_ms(calendar) + 2 * DAY_S * 1000

    calendar.advance_clock(DAY_S)
    subscribed = subscribe(paid)
    assert (subscribed.status, subscribed.body["id"]) == (201, paid.id)
    assert subscribed.body["due"] in month_ends(calendar)
    assert (payment(trial), payment(paid)) == ("TRIAL", "PAID")
    trial.send_text(CUSTOMER, "day 1")
    wait_for("day 1", lambda: "day 1" in customer.texts())

    calendar.advance_clock(DAY_S)
    assert said(trial.get("status")) == MUST_SUBSCRIBE
    assert said(trial.post("send-text", {"phone": CUSTOMER, "message": "x"})) == MUST_SUBSCRIBE
    assert said(trial.get("disconnect")) == (200, {"value": True})  # clients tidy up so
    assert (cancel(trial).status, cancel(trial).body["id"]) == (201, trial.id)
    proof = until_machine_is_deleted(trial, trial_phone)
    assert said(trial.post("disconnect")) == (200, {"value": True})
    assert cancel(trial).body == {"id": trial.id, "due": trial.due}
    assert [step["step"] for step in proof["removed"]] == [*MACHINE_STEPS, "send_disconnected"]
    assert (proof["scope"], proof["cause"], len(proof["digest"])) == ("machine", "expired", 64)
    hooks.wait("calendar-trial", "DisconnectedCallback")
    wait_for("its process ended", lambda: not machine.is_running())
    assert other.is_running()
    assert (payment(trial), payment(paid)) == ("PENDING", "PAID")

    assert len(paid_phone.linked_devices()) == 1
    paid.send_text(CUSTOMER, "day 2")
    wait_for("day 2", lambda: "day 2" in customer.texts())
    assert len(hooks.of("calendar-trial", "DisconnectedCallback")) == 1
    assert hooks.of("calendar-paid", "DisconnectedCallback") == []


def test_an_expired_instance_comes_back_with_a_new_machine(calendar: Product, partner: Account) -> None:
    """Subscribed again it serves calls, but it must be paired anew, and nothing of before is in its queue."""
    customer = calendar.phone(CUSTOMER, "Customer")
    instance, phone = paired(partner)
    calendar.advance_clock(2 * DAY_S + 1)
    until_machine_is_deleted(instance, phone)

    assert subscribe(instance).status == 201
    assert instance.get("status").body["connected"] is False
    assert instance.get("queue/count").body == {"count": 0}
    instance.send_text(CUSTOMER, "back again")
    instance.pair(phone)
    wait_for("back again", lambda: "back again" in customer.texts())
    assert len(phone.linked_devices()) == 1
    assert payment(instance) == "PAID"


def test_cancelled_in_the_middle_of_a_month(calendar: Product, partner: Account) -> None:
    """It works to the month's end; then it is canceled, after 40 days not found, and a week later a tombstone."""
    instance, phone = paired(partner)
    assert subscribe(instance).status == 201
    cancelled = cancel(instance)
    assert cancelled.status == 201
    assert cancelled.body["due"] in month_ends(calendar)
    assert said(cancel(instance)) == (201, {"id": instance.id, "due": cancelled.body["due"]})
    assert payment(instance) == "IN_CANCELLATION"
    assert instance.get("status").status == 200

    assert subscribe(instance).status == 201  # it was a mistake
    assert payment(instance) == "PAID"
    due_ms = cancel(instance).body["due"]

    calendar.advance_clock((due_ms - now_ms(calendar)) // 1000 - 30)
    assert instance.get("status").status == 200
    calendar.advance_clock(31)
    assert said(instance.get("status")) == MUST_SUBSCRIBE
    until_machine_is_deleted(instance, phone)
    assert payment(instance) == "CANCELED"

    calendar.advance_clock(RETENTION_DAYS * DAY_S)
    wait_for("not found", lambda: said(instance.get("status")) == NOT_FOUND)
    assert said(subscribe(instance)) == NOT_FOUND
    assert listed(instance) is None
    assert remains.rows(calendar, instance.id).get("event"), "events outlive the instance, so that they are delivered"
    calendar.advance_clock(EVENTS_RETENTION_DAYS * DAY_S + 60)
    wait_for("a tombstone", lambda: remains.is_tombstone(calendar, instance.id))
    proof = wait_for("receipt", lambda: (found := receipt(instance)) and found["scope"] == "instance" and found)
    assert proof["removed"][-1]["step"] == "tombstone"
    verdict = calendar.command("audit", "verify")
    assert (verdict["wrong"], verdict["rows"] > 0) == ("", True)


def test_a_subscription_is_renewed_at_the_end_of_the_month(calendar: Product, partner: Account) -> None:
    """Month after month, without a call, over any number of months that nobody was there."""
    instance = partner.create_instance()
    due_ms = subscribe(instance).body["due"]
    for months in (1, 1, 5):
        calendar.advance_clock((due_ms - now_ms(calendar)) // 1000 + 1 + (months - 1) * 31 * DAY_S)
        assert instance.get("status").status == 200

        def renewed(before_ms: int = due_ms) -> dict[str, Any] | None:
            """Later than before: for a minute, the end of the month that is over counts as the running one's."""
            shown = listed(instance)
            return shown if shown and shown["due"] > before_ms and shown["due"] in month_ends(calendar) else None

        shown = wait_for("renewed", renewed)
        assert shown["paymentStatus"] == "PAID"
        due_ms = shown["due"]


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"headers": {"Content-Type": "application/json"}},
        {"raw": b"[]", "headers": {"Content-Type": "application/json"}},
        {"raw": b"[]", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
        {"raw": b"", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
        {"raw": b"{}", "headers": {"Content-Type": "application/json; charset=utf-8"}},
        {"raw": b"{}"},
        {"raw": b"{}", "headers": {"Content-Type": "text/plain"}},
        {"raw": b"null", "headers": {"Content-Type": "application/json"}},
        {"raw": b'""\n', "headers": {"Content-Type": "application/json"}},
        {"body": {"withCalls": True}},
        {"body": {"withCalls": "true", "unknown": 1}},
        {"body": {"withCalls": None}},
    ],
)
def test_bodies_that_real_clients_send(partner: Account, sent: dict[str, Any]) -> None:
    """None, `[]`, `{}`, `null`, an empty text or form, a JSON type without a body: all subscribe."""
    instance = partner.create_instance()
    reply = subscribe(instance, **sent)
    assert (reply.status, reply.body["id"], type(reply.body["due"])) == (201, instance.id, int)


def test_calls_are_added_by_either_path(partner: Account) -> None:
    """Both spellings of subscription/update; less than before is refused."""
    for path in ("on-demand/subscription/update", "subscription/update"):
        instance = partner.create_instance()
        due_ms = subscribe(instance).body["due"]
        assert said(partner_call(instance, "PUT", path)) == (201, {"id": instance.id, "due": due_ms})
        assert partner_call(instance, "PUT", path, body={"withCalls": False}).status == 400


def test_refusals(calendar: Product, partner: Account) -> None:
    """Each call that a state forbids says why, in the words that clients look for, and changes nothing."""
    trial, paid, ends = (partner.create_instance() for _ in range(3))
    assert subscribe(paid).status == 201
    assert said(subscribe(paid)) == (400, {"error": "This instance is already paid"})
    not_eligible = (400, {"error": "Instance not eligible for deletion"})
    assert said(delete(trial)) == said(delete(paid)) == not_eligible
    update = partner_call(trial, "PUT", "on-demand/subscription/update")
    assert said(update) == (400, {"error": "This instance is not subscribed"})
    assert said(cancel(trial)) == (201, {"id": trial.id, "due": trial.due})
    assert (payment(trial), payment(paid)) == ("TRIAL", "PAID")

    calendar.advance_clock(2 * DAY_S + 1)
    wait_for("expired", lambda: receipt(ends))
    assert said(partner_call(ends, "PUT", "subscription/update")) == MUST_SUBSCRIBE
    assert said(cancel(ends)) == (201, {"id": ends.id, "due": ends.due})
    assert said(delete(ends)) == (200, {"value": True})
    assert said(delete(ends)) == said(subscribe(ends)) == NOT_FOUND


def test_batch_delete(calendar: Product, partner: Account) -> None:
    """One outcome each, in order: the ended one goes; live, foreign, wrongly named and unknown ones are refused."""
    ended, other, live = (partner.create_instance() for _ in range(3))
    foreign = calendar.create_account().create_instance()
    assert subscribe(live).status == 201
    calendar.advance_clock(2 * DAY_S + 1)
    wait_for("expired", lambda: receipt(ended) and receipt(other) and receipt(foreign))
    asked = [
        {"id": ended.id, "token": ended.token},
        {"id": live.id, "token": live.token},
        {"id": foreign.id, "token": foreign.token},
        {"id": other.id, "token": ended.token},
        {"id": "F" * 32, "token": "A" * 24},
    ]
    path = "/instances/integrator/on-demand/batch-delete"
    reply = partner.post(path, {"instances": asked})
    results = reply.body["results"]
    outcomes = [(entry["deleted"], entry.get("error")) for entry in results]
    not_found = (False, "Instance not found")
    not_eligible = (False, "Instance not eligible for deletion")
    assert reply.status == 200
    assert [entry["id"] for entry in results] == [entry["id"] for entry in asked]
    assert outcomes == [(True, None), not_eligible, not_found, not_found, not_found]
    assert (payment(live), payment(other), listed(ended)) == ("PAID", "PENDING", None)
    too_many: object = [asked[0]] * 101
    for wrong in ([], too_many, "x", None):
        assert partner.post(path, {"instances": wrong}).status == 400
