"""kill -9 of anything of ours, at random moments, under traffic: nothing accepted is lost.

Real: everything. Three programs of ours are killed: the main process (with it die PostgreSQL, machines and the
simulated network, all without a word), a machine, PostgreSQL. Oracles: what the HTTP client was answered, what the
customer's phone shows, what the receiver recorded. KILLS and KILL_SEED change length and dice.
"""

import contextlib
import os
import random  # noqa: TID251 - the dice of this test, seeded
import signal
import threading
import time
import urllib.error
from collections import Counter
from http.client import HTTPException
from pathlib import Path

import psutil
import pytest

from tests.acceptance.hooks import Hooks
from tests.acceptance.product import Instance, Phone, Product, wait_for
from tests.acceptance.remains import machines_of

KILLS = int(os.environ.get("KILLS", "30"))
SEED = int(os.environ.get("KILL_SEED", "20261123"))
INSTANCES = 3
CUSTOMER = "5521900000001"
ASKER = "5521900000002"
BACK_S = 60.0
PAUSE_S = 0.3  # between two texts of one side: some 20 messages a second in all
DRAIN_S = 300.0  # for what was queued while something was down


class Traffic:
    """One instance's integrator and customer, writing to each other all the time."""

    def __init__(self, number: int, instance: Instance, shop: Phone, asker: Phone, stop: threading.Event) -> None:
        self.number = number
        self.instance = instance
        self.accepted: dict[str, str] = {}  # text -> messageId, in order of acceptance
        self.asked: list[str] = []  # texts that the asker's phone took to send
        self._shop = shop
        self._asker = asker
        self._stop = stop
        self._threads = [threading.Thread(target=work) for work in (self._send, self._ask)]

    def start(self) -> None:
        """Both sides begin."""
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Both sides have stopped."""
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        count = 0
        while not self._stop.wait(PAUSE_S):
            text = f"out {self.number} {count}"
            count += 1
            with contextlib.suppress(OSError, HTTPException, urllib.error.URLError):
                reply = self.instance.post("send-text", {"phone": CUSTOMER, "message": text})
                if reply.status == 200:
                    self.accepted[text] = reply.body["messageId"]
                else:
                    assert reply.status >= 500, reply  # an error is allowed, a lie is not

    def _ask(self) -> None:
        count = 0
        while not self._stop.wait(PAUSE_S):
            text = f"in {self.number} {count}"
            count += 1
            with contextlib.suppress(OSError, HTTPException, AssertionError):
                self._asker.send_text(self._shop.number, text)
                self.asked.append(text)


def victims(product: Product) -> dict[str, list[psutil.Process]]:
    """Our processes by kind."""
    found: dict[str, list[psutil.Process]] = {"main": [psutil.Process(product.pid)], "machine": [], "postgresql": []}
    for child in found["main"][0].children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            line = " ".join(child.cmdline())
            if "tomada-machine-sandbox" in line:
                found["machine"].append(child)
            elif "bin/postgres" in line:
                found["postgresql"].append(child)
    return found


def kill_one(product: Product, dice: random.Random) -> str:
    """kill -9 a random process of a random kind, which is gone then; starts the main process again if it was that."""
    kind = dice.choice(["main", "machine", "postgresql"])
    if kind == "main":
        product.kill()
        product.start()
        return kind

    def strike() -> bool:
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):
            victim = dice.choice(victims(product)[kind])
            victim.send_signal(signal.SIGKILL)
            victim.wait(BACK_S)
            return True
        return False

    wait_for(f"a victim: {kind}", strike, BACK_S)
    return kind


def all_back(product: Product, traffic: list[Traffic]) -> bool:
    """Whether every instance lives in a process again, and after that says that it is connected."""
    with contextlib.suppress(OSError, HTTPException, TypeError, KeyError):
        hosted = all(machines_of(product, one.instance.id) for one in traffic)
        return hosted and all(one.instance.get("status").body["connected"] for one in traffic)
    return False


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_accepted_is_lost_over_thirty_kills(tmp_path: Path, hooks: Hooks) -> None:
    """Accepted sends arrive, in order, each under the one id that was told; every event arrives; no new QR."""
    tmp_path.chmod(0o755)
    dice = random.Random(SEED)
    product = Product(tmp_path / "data", {"TOMADA_INSTANCES_PER_MACHINE": "2"})
    product.start()
    try:
        account = product.create_account()
        customer, asker = product.phone(CUSTOMER, "Customer"), product.phone(ASKER, "Asker")
        stop = threading.Event()
        traffic = []
        for number in range(INSTANCES):
            shop = product.phone(f"551190000000{number}", f"Shop {number}")
            instance = account.create_instance(hooks.url(f"kill{number}"), name=f"Shop {number}")
            instance.pair(shop)
            traffic.append(Traffic(number, instance, shop, asker, stop))
        for one in traffic:
            one.start()
        killed: Counter[str] = Counter()
        for _ in range(KILLS):
            time.sleep(dice.uniform(0.2, 2.0))  # the moment of the next blow, not a wait for anything
            killed[kill_one(product, dice)] += 1
            wait_for("all sessions back", lambda: all_back(product, traffic), BACK_S)
        stop.set()
        for one in traffic:
            one.join()
        repeated = 0
        for one in traffic:
            repeated += check_sends(one, customer, hooks)
            check_history(one)
        lost = [text for one in traffic for text in check_received(one, hooks)]
        print(  # noqa: T201 - figures for docs/engine.md; pytest shows them with -s
            f"\nkills {dict(killed)}, accepted sends {sum(len(one.accepted) for one in traffic)}, "
            f"shown again under the same id {repeated}, asked {sum(len(one.asked) for one in traffic)}, lost {lost}"
        )
        assert lost == []
    finally:
        product.stop()


def check_sends(traffic: Traffic, customer: Phone, hooks: Hooks) -> int:
    """Every accepted text is on the phone under its own id and no other, in order, and told by DeliveryCallback.

    Returns how many stood there more than once: WhatsApp's clients show an id that they have no second time.
    """
    key = f"kill{traffic.number}"
    prefix = f"out {traffic.number} "

    def arrived() -> list[tuple[str, str]]:
        shown = customer.messages()
        return [(one["text"], one["id"]) for one in shown if str(one.get("text", "")).startswith(prefix)]

    wait_for("all accepted texts", lambda: set(traffic.accepted.items()) <= set(arrived()), DRAIN_S)
    seen = [(text, wa_id) for text, wa_id in arrived() if text in traffic.accepted]
    assert list(dict.fromkeys(seen)) == list(traffic.accepted.items())

    def told() -> set[str]:
        return {it.body["messageId"] for it in hooks.of(key, "DeliveryCallback") if "error" not in it.body}

    wait_for("all DeliveryCallbacks", lambda: told().issuperset(traffic.accepted.values()), BACK_S)
    return len(seen) - len(set(seen))


def check_history(traffic: Traffic) -> None:
    """No event row is lost: the numbers have no gap, and each event was delivered or has no URL to go to."""
    account, instance_id = traffic.instance.account, traffic.instance.id

    def states() -> dict[int, str]:
        found: dict[int, str] = {}
        cursor = ""
        while True:
            page = account.get(f"/v1/instances/{instance_id}/events?limit=500{cursor}").body
            found |= {event["number"]: event["state"] for event in page["content"]}
            if page["next"] is None:
                return found
            cursor = f"&cursor={page['next']}"

    wait_for("nothing waits", lambda: set(states().values()) <= {"delivered", "kept"}, BACK_S)
    numbers = states()
    assert sorted(numbers) == list(range(1, max(numbers) + 1))


def check_received(traffic: Traffic, hooks: Hooks) -> list[str]:
    """Received texts came in order and once per event; returns those that did not come at all."""
    key = f"kill{traffic.number}"

    def came() -> list[str]:
        return [it.body["text"]["message"] for it in hooks.of(key, "ReceivedCallback")]

    with contextlib.suppress(AssertionError):
        wait_for("all messages", lambda: set(traffic.asked) <= set(came()), BACK_S)
    once = list(dict.fromkeys(came()))
    assert [text for text in traffic.asked if text in set(once)] == [
        text for text in once if text in set(traffic.asked)
    ]
    ids = [it.headers["webhook-id"] for it in hooks.of(key)]
    bodies = {it.headers["webhook-id"]: it.body for it in hooks.of(key)}
    messages = [body["messageId"] for body in bodies.values() if body["type"] == "ReceivedCallback"]
    assert len(messages) == len(set(messages)), "one message became two events"
    assert len(ids) - len(set(ids)) <= KILLS * 8, "more repeated attempts than kills can explain"
    return sorted(set(traffic.asked) - set(once))
