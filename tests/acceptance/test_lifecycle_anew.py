"""An instance that is subscribed again before its former machine is gone: the old device goes, the new one stays.

Machines are shared by instances, as they are by default. A trigger that the test puts into the product's database keeps
deletions from being claimed, so that the blow and the payment fall before the log-out. Real: everything else.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance import remains
from tests.acceptance.hooks import Hooks
from tests.acceptance.product import Account, Instance, Phone, Product, running, wait_for
from tests.acceptance.test_lifecycle import DAY_S, receipt, said, subscribe

CUSTOMER = "5511922220099"
numbers = itertools.count(5511977770000)

HOLD = (
    "create table held (one integer)",
    """
create function hold() returns trigger language plpgsql as $$
begin
    if exists (select from held) then
        raise exception 'held';
    end if;
    return new;
end $$
""",
    "create trigger hold before update of number on deletion for each row execute function hold()",
)
LET_GO = "delete from held"
STARTED = "select count(*) from deletion where instance_id = $1"


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A product of this module's own: it is killed, and its clock is moved."""
    with running(tmp_path_factory.mktemp("anew") / "data") as product:
        for statement in HOLD:
            remains.sql(product, statement)
        yield product


@pytest.fixture(scope="module")
def partner(product: Product) -> Account:
    """An integrator."""
    return product.create_account("--limit", "100")


def paired(partner: Account, hooks: Hooks, key: str) -> tuple[Instance, Phone]:
    """A new instance with a phone of its own."""
    instance = partner.create_instance(hooks.url(key))
    phone = partner.product.phone(str(next(numbers)), "Shop")
    instance.pair(phone)
    return instance, phone


def expired(product: Product, instance: Instance) -> None:
    """Its trial is over, and nobody has begun to remove its machine."""
    remains.sql(product, "insert into held values (1)")
    product.advance_clock(2 * DAY_S + 1)
    wait_for("a deletion", lambda: remains.sql(product, STARTED, instance.id)[0][0] == 1)


def removal(proof: dict[str, Any]) -> str:
    """What the receipt says of the log-out."""
    return str(next(step["note"] for step in proof["removed"] if step["step"] == "remove_machine"))


@pytest.mark.parametrize("killed", [True, False])
def test_the_old_device_goes_and_the_new_one_stays(
    product: Product, partner: Account, hooks: Hooks, killed: bool
) -> None:
    """Trial over, (kill -9, start,) subscribed, and only then the former machine is removed; then paired anew."""
    key = f"anew-{killed}"
    customer = product.phone(CUSTOMER, "Customer")
    instance, phone = paired(partner, hooks, key)
    expired(product, instance)
    if killed:
        product.kill()
        product.start()
    assert subscribe(instance).status == 201
    code = instance.get("qr-code")
    assert (code.status, "former machine" in code.body["error"]) == (503, True)
    assert instance.get("status").body["connected"] is False
    instance.send_text(CUSTOMER, key)

    remains.sql(product, LET_GO)
    proof = wait_for("receipt", lambda: receipt(instance))
    assert removal(proof).startswith("unlinked from the phone")
    assert phone.linked_devices() == []
    assert remains.files(product, instance.id) == []
    assert customer.texts().count(key) == 0

    instance.pair(phone)
    wait_for("the text that waited", lambda: customer.texts().count(key) == 1)
    assert len(phone.linked_devices()) == 1
    wait_for("both connections told", lambda: len(hooks.of(key, "ConnectedCallback")) == 2)
    product.kill()
    product.start()
    instance.wait_connected()
    assert len(phone.linked_devices()) == 1


def test_one_of_several_in_a_machine_goes_without_a_trace(product: Product, partner: Account, hooks: Hooks) -> None:
    """Its neighbours in the same process are written to all the time; of the one that goes no file tells any more."""
    customer = product.phone(CUSTOMER, "Customer")
    stays, stays_phone = paired(partner, hooks, "stays")
    goes, goes_phone = paired(partner, hooks, "goes")
    assert subscribe(stays).status == 201
    assert remains.machines_of(product, stays.id) == remains.machines_of(product, goes.id)
    for number in range(5):
        for phone, key in ((stays_phone, "stays"), (goes_phone, "goes")):
            customer.send_text(phone.number, f"{key} {number}")
    hooks.wait_text("goes", "goes 4")

    product.advance_clock(2 * DAY_S + 1)
    sent = 0
    while receipt(goes) is None:
        customer.send_text(stays_phone.number, f"on {sent}")
        hooks.wait_text("stays", f"on {sent}")
        sent += 1
        assert sent < 200
    assert goes_phone.linked_devices() == []
    assert remains.files(product, goes.id) == []
    assert said(stays.get("status"))[0] == 200
    assert len(stays_phone.linked_devices()) == 1
