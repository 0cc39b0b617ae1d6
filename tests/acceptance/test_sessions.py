"""S2, S5 and S7 over the whole product: outages, redelivery, and what WhatsApp says for good, each with its callback.

S3 (deaf sessions) and S6 (abort in one machine) are in tests/integration/hosting, S4 in tests/integration/engine.
Oracles: the receiver's own record and the wire's status.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.acceptance.hooks import Hooks
from tests.acceptance.product import Account, Instance, Phone, Product, running, wait_for

SESSIONS = 40
OUTAGE_S = 10.0


def paired(account: Account, hooks: Hooks, key: str, number: str) -> tuple[Instance, Phone]:
    """An instance with hooks under `key`, paired with the phone of this number."""
    instance = account.create_instance(hooks.url(key))
    phone = account.product.phone(number, f"Owner of {key}")
    instance.pair(phone)
    return instance, phone


def test_s5_redelivered_stanzas_give_no_second_callback(product: Product, account: Account, hooks: Hooks) -> None:
    """WhatsApp may deliver a message again; the integrator hears of it once."""
    _, phone = paired(account, hooks, "s5", "5511999990051")
    customer = product.phone("5511977770051", "Customer")
    product.fault("redeliver", number=phone.number, count=3)

    texts = [f"again {number}" for number in range(4)]
    for text in texts:
        customer.send_text(phone.number, text)
    hooks.wait_text("s5", texts[-1])
    customer.send_text(phone.number, "last")
    hooks.wait_text("s5", "last")

    told = [it.body["text"]["message"] for it in hooks.of("s5", "ReceivedCallback")]
    assert told == [*texts, "last"]


LAST_WORDS = {
    "replaced": ("replaced", "connected somewhere else"),
    "ban": ("banned", "refuses this number"),
    "outdated": ("outdated", "must upgrade"),
}


@pytest.mark.parametrize("fault", LAST_WORDS)
def test_s7_what_whatsapp_says_for_good_has_its_state_and_callback(
    product: Product, account: Account, hooks: Hooks, fault: str
) -> None:
    """Replaced, banned and outdated: each has its own condition and words, is told once, and is not stormed against."""
    condition, words = LAST_WORDS[fault]
    key = f"s7-{fault}"
    number = f"55119999900{list(LAST_WORDS).index(fault) + 70}"
    instance, _ = paired(account, hooks, key, number)

    product.fault(fault, number=number)
    if fault != "replaced":
        product.fault("drop", number=number)  # it is told at the next log-in
    wait_for(condition, lambda: instance.get("status").body["condition"] == condition)

    assert words in hooks.wait(key, "DisconnectedCallback", lambda body: words in body["error"]).body["error"]
    assert instance.get("status").body["connected"] is False
    told = [it.body["error"] for it in hooks.of(key, "DisconnectedCallback") if words in it.body["error"]]
    assert len(told) == 1
    product.clear_faults()


@pytest.mark.parametrize("code", [515, 503])
def test_s7_stream_errors_mend_themselves(product: Product, account: Account, hooks: Hooks, code: int) -> None:
    """515 and 503 are no end: the session connects again by itself, and says so."""
    key = f"s7-{code}"
    instance, phone = paired(account, hooks, key, f"5511999990{code}")
    before = len(hooks.of(key, "ConnectedCallback"))

    product.fault("stream-error", number=phone.number, code=code)

    wait_for("connected again", lambda: len(hooks.of(key, "ConnectedCallback")) > before)
    instance.wait_connected()


@pytest.mark.slow
def test_s2_sessions_of_two_machines_return_from_an_outage(tmp_path: Path) -> None:
    """All are cut off at once and refused for a while; afterwards every one of them is back by itself.

    That no second sees more than its share of them is shown in virtual time (tests/unit/machines/test_storm.py), and
    measured by bench/outage.py.
    """
    tmp_path.chmod(0o755)
    with running(tmp_path / "data", {"TOMADA_INSTANCES_PER_MACHINE": "20"}) as product:
        account = product.create_account("--limit", str(SESSIONS))

        def pair(number: int) -> Instance:
            instance = account.create_instance()
            instance.pair(product.phone(f"55118000{number:05d}", f"Phone {number}"))
            return instance

        with ThreadPoolExecutor(4) as pool:
            instances = list(pool.map(pair, range(SESSIONS)))

        def connected() -> int:
            page = account.get("/instances?page=1&pageSize=1000").body["content"]
            return sum(bool(one["whatsappConnected"]) for one in page)

        product.fault("refuse", until=OUTAGE_S)
        product.fault("drop")
        wait_for("all cut off", lambda: connected() == 0)
        wait_for("all back", lambda: connected() == len(instances), 120)
