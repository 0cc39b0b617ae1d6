"""The main job, over HTTP alone: create by the seed's call, pair, send, receive, get the callbacks.

Real: everything (server, PostgreSQL, engine, Signal encryption, protocol); the network at the far end is the sandbox.
Oracle: what the receiver's own record says, and what the simulated phones show.
"""

import asyncio

import asyncpg
import psutil
import pytest

from tests.acceptance.hooks import Hooks
from tests.acceptance.product import Account, Instance, Phone, Product, wait_for
from tests.acceptance.remains import machines_of

SHOP = "5511999990001"
STORE = "5511999990002"


@pytest.fixture(scope="module")
def shop(product: Product, account: Account, hooks: Hooks) -> tuple[Instance, Phone]:
    """An instance paired with a phone by QR code."""
    instance = account.create_instance(hooks.url("shop"), name="Shop", sessionName="Acme Sales")
    phone = product.phone(SHOP, "Shop")
    instance.pair(phone)
    return instance, phone


@pytest.fixture(scope="module")
def store(product: Product, account: Account, hooks: Hooks) -> tuple[Instance, Phone]:
    """Another one, paired by phone code."""
    instance = account.create_instance(hooks.url("store"), name="Store")
    phone = product.phone(STORE, "Store")
    code = instance.get(f"phone-code/{STORE}").body["value"]
    phone.link_code(code)
    instance.wait_connected()
    return instance, phone


def test_the_phone_shows_the_session_name(shop: tuple[Instance, Phone], store: tuple[Instance, Phone]) -> None:
    """`sessionName` is what linked devices shows; without one it is the instance's name."""
    assert [device["name"] for device in shop[1].linked_devices()] == ["Acme Sales"]
    assert [device["name"] for device in store[1].linked_devices()] == ["Store"]


def forbidden(address: str, statement: str) -> bool:
    """Whether PostgreSQL refuses a statement to whoever connects under this address."""

    async def run() -> bool:
        connection = await asyncpg.connect(address, timeout=10)
        try:
            await connection.execute(statement)
        except asyncpg.InsufficientPrivilegeError:
            return True
        finally:
            await connection.close()
        return False

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(run())


def test_a_machine_knows_nothing_of_our_settings(product: Product, shop: tuple[Instance, Phone]) -> None:
    """The engine is a foreign library: neither our key nor our database is open to it, but for the session store."""
    environment = psutil.Process(product.pid).environ()
    assert any(name.startswith("TOMADA_") for name in environment)

    machines = machines_of(product, shop[0].id)

    assert machines
    for machine in machines:
        told = {name: value for name, value in machine.environ().items() if name.startswith("TOMADA_")}
        assert set(told) == {"TOMADA_MACHINE_STORE"}
        assert forbidden(told["TOMADA_MACHINE_STORE"], "select * from account")
        assert forbidden(told["TOMADA_MACHINE_STORE"], "create table public.mine (it int)")


def test_connecting_tells_the_integrator(
    shop: tuple[Instance, Phone], store: tuple[Instance, Phone], hooks: Hooks
) -> None:
    """ConnectedCallback names the instance and the phone, and carries the instance's token as z-api-token."""
    for key, (instance, phone) in {"shop": shop, "store": store}.items():
        request = hooks.wait(key, "ConnectedCallback")
        assert request.body["connected"] is True
        assert request.body["phone"] == phone.number
        assert request.body["instanceId"] == instance.id
        assert request.path == f"/{key}/connected"
        assert request.headers["z-api-token"] == instance.token


def test_status_me_and_device_of_a_connected_instance(shop: tuple[Instance, Phone]) -> None:
    """The three views of an instance agree."""
    instance, phone = shop

    status = instance.get("status").body
    me = instance.get("me").body
    device = instance.get("device").body

    assert status["connected"] is True
    assert status["smartphoneConnected"] is True
    assert status["error"] == "You are already connected."
    assert (me["id"], me["token"], me["due"]) == (instance.id, instance.token, instance.due)
    assert device["phone"] == phone.number
    assert instance.get("qr-code/image").body == {"connected": True}


def test_our_own_name_is_known_soon_after_pairing(
    shop: tuple[Instance, Phone], store: tuple[Instance, Phone], hooks: Hooks
) -> None:
    """device shows it and what the API sends bears it, without a new login and without another ConnectedCallback."""
    instance, _ = shop
    wait_for("the name", lambda: instance.get("device").body["name"] == "Shop")
    instance.put("update-notify-sent-by-me", {"notifySentByMe": True})
    instance.send_text(store[1].number, "who am I?")
    assert hooks.wait_text("shop", "who am I?")["senderName"] == "Shop"
    assert len(hooks.of("shop", "ConnectedCallback")) == 1
    instance.put("update-notify-sent-by-me", {"notifySentByMe": False})


def test_two_instances_exchange_texts(
    shop: tuple[Instance, Phone], store: tuple[Instance, Phone], hooks: Hooks
) -> None:
    """Each side's receiver hears of what it sent (delivery and status) and of what it received."""
    for sender, receiver, key, peer in ((shop, store, "shop", "store"), (store, shop, "store", "shop")):
        text = f"Olá from {key} ✓"
        accepted = sender[0].send_text(receiver[1].number, text)

        received = hooks.wait_text(peer, text)
        assert received["phone"] == sender[1].number
        assert received["fromMe"] is False
        assert received["isGroup"] is False
        assert received["connectedPhone"] == receiver[1].number
        assert "image" not in received
        ours = accepted["messageId"]
        delivery = hooks.wait_delivery(key, ours)
        assert delivery["zaapId"] == accepted["zaapId"]
        assert delivery["phone"] == receiver[1].number
        for status in ("SENT", "RECEIVED"):
            hooks.wait_status(key, ours, status)
        receiver[1].read(*[message["id"] for message in receiver[1].messages() if message.get("text") == text])
        hooks.wait_status(key, ours, "READ")


def test_a_customers_phone_and_the_instance_talk(product: Product, shop: tuple[Instance, Phone], hooks: Hooks) -> None:
    """A plain phone writes, the instance replies to that message, and the phone sees the quote."""
    customer = product.phone("5511977770003", "Maria")
    customer.send_text(SHOP, "Tem tomada?")
    asked = hooks.wait_text("shop", "Tem tomada?")
    assert asked["senderName"] == "Maria"

    shop[0].send_text(customer.number, "Temos!", messageId=asked["messageId"])

    answer = wait_for(
        "the answer", lambda: next((it for it in customer.messages() if it.get("text") == "Temos!"), None)
    )
    assert answer["from"] == SHOP
    assert answer["quoted"]


def test_what_was_queued_while_disconnected_goes_out_in_order(product: Product, account: Account, hooks: Hooks) -> None:
    """Sends before pairing are accepted, and leave in order once a phone is paired."""
    instance = account.create_instance(hooks.url("early"), name="Early bird")
    customer = product.phone("5511977770004", "Customer")
    texts = [f"early {number}" for number in range(5)]
    for text in texts:
        instance.send_text(customer.number, text)
    assert instance.get("queue/count").body == {"count": 5}

    instance.pair(product.phone("5511999990004", "Early"))

    wait_for("all texts", lambda: customer.texts() == texts)


def test_unlinking_on_the_phone_tells_the_integrator(product: Product, account: Account, hooks: Hooks) -> None:
    """DisconnectedCallback comes, status says so, and a new QR code pairs the instance again."""
    instance = account.create_instance(hooks.url("gone"), name="Soon gone")
    phone = product.phone("5511999990005", "Gone")
    instance.pair(phone)
    wait_for("the name", lambda: instance.get("device").body["name"] == "Gone")

    phone.unlink(phone.linked_devices()[0]["device"])

    body = hooks.wait("gone", "DisconnectedCallback").body
    assert body["disconnected"] is True
    assert body["instanceId"] == instance.id
    wait_for("disconnected", lambda: instance.get("status").body["connected"] is False)
    instance.pair(phone)
    assert instance.get("device").body["name"] == "Gone"


def test_disconnect_over_the_api_leaves_no_ghost_on_the_phone(product: Product, account: Account, hooks: Hooks) -> None:
    """GET disconnect unlinks the device, so that the phone does not show it any more."""
    instance = account.create_instance(hooks.url("bye"), name="Bye")
    phone = product.phone("5511999990006", "Bye")
    instance.pair(phone)

    assert instance.get("disconnect").body == {"value": True}

    wait_for("no linked device", lambda: phone.linked_devices() == [])
    hooks.wait("bye", "DisconnectedCallback")


def test_sessions_come_back_after_a_restart_without_a_new_qr(
    tmp_path_factory: pytest.TempPathFactory, hooks: Hooks
) -> None:
    """Stop and start: the paired instance connects again by itself, and a message sent meanwhile arrives."""
    product = Product(tmp_path_factory.mktemp("restart") / "data")
    product.start()
    try:
        instance = product.create_account().create_instance(hooks.url("restart"))
        instance.pair(product.phone("5511999990007", "Restart"))
        customer = product.phone("5511977770007", "Customer")
        assert product.stop() == 0

        product.start()

        instance.wait_connected()
        customer.send_text("5511999990007", "still there?")
        hooks.wait_text("restart", "still there?")
    finally:
        product.stop()
