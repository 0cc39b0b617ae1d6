"""The database answers but refuses to write, in the middle of traffic: nobody is misled, and nothing is lost.

Real: everything. The embedded database becomes read-only for some seconds, as a standby is after a fail-over: the open
connections are cut, and new ones may only read. Oracles: what the HTTP client was answered, what the customer's phone
shows, what the receiver recorded.
"""

import asyncio
import threading
import urllib.request
from collections import Counter
from pathlib import Path

import asyncpg

from tests.acceptance.hooks import Hooks
from tests.acceptance.product import Instance, Phone, Product, http, running, wait_for

INSTANCES = 3
READ_ONLY_S = 8.0
PAUSE_S = 0.05
CUSTOMER, ASKER = "5521900000001", "5521900000002"
OPERATOR = "operator-token-of-the-acceptance-tests"
_CUT = """
select pg_terminate_backend(pid) from pg_stat_activity where datname = 'tomada' and pid <> pg_backend_pid()
"""


class Traffic:
    """One instance's integrator and its customer, writing to each other; `answers` are the integrator's."""

    def __init__(self, number: int, instance: Instance, shop: Phone, asker: Phone) -> None:
        self.number, self.instance, self._shop, self._asker = number, instance, shop, asker
        self.accepted: list[str] = []
        self.asked: list[str] = []
        self.answers: Counter[tuple[int, str | None, bool]] = Counter()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._send, self._ask)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        count = 0
        while not self._stop.wait(PAUSE_S):
            count += 1
            text = f"out {self.number} {count}"
            reply = self.instance.post("send-text", {"phone": CUSTOMER, "message": text})
            flat = isinstance(reply.body.get("error", ""), str)
            self.answers[reply.status, reply.headers.get("retry-after"), flat] += 1
            if reply.status == 200:
                self.accepted.append(text)

    def _ask(self) -> None:
        count = 0
        while not self._stop.wait(PAUSE_S * 4):
            count += 1
            text = f"in {self.number} {count}"
            self._asker.send_text(self._shop.number, text)
            self.asked.append(text)


def test_a_read_only_database_in_the_middle_of_traffic(tmp_path: Path, hooks: Hooks) -> None:
    """503 with Retry-After and never 500; /ready says why and recovers; all that was accepted or received arrives."""
    with running(tmp_path / "data", {"TOMADA_OPERATOR_TOKEN": OPERATOR}) as product:
        account = product.create_account()
        customer, asker = product.phone(CUSTOMER, "Customer"), product.phone(ASKER, "Asker")
        traffic = []
        for number in range(INSTANCES):
            shop = product.phone(f"551190000000{number}", f"Shop {number}")
            instance = account.create_instance(hooks.url(f"refused{number}"), name=f"Shop {number}")
            instance.pair(shop)
            traffic.append(Traffic(number, instance, shop, asker))
        for one in traffic:
            one.start()
        wait_for("traffic", lambda: all(len(one.accepted) > 10 and len(one.asked) > 3 for one in traffic))
        reason = _read_only(product)
        v1 = http("POST", f"{product.base}/v1/accounts", {"name": "x"}, headers={"Authorization": f"Bearer {OPERATOR}"})
        threading.Event().wait(READ_ONLY_S)  # the outage, not a wait for anything
        asked = [len(one.asked) for one in traffic]
        _writable(product)
        wait_for("ready again", lambda: http("GET", f"{product.base}/ready").body == {"status": "ready"}, 10)
        wait_for("more traffic", lambda: all(len(one.asked) > n + 3 for one, n in zip(traffic, asked, strict=True)))
        for one in traffic:
            one.end()

        assert reason == "the database is read-only (SQLSTATE 25006)"
        assert (v1.status, set(v1.body), v1.headers["retry-after"]) == (503, {"error", "message", "hint"}, "1")
        answers = sum((one.answers for one in traffic), Counter[tuple[int, str | None, bool]]())
        assert set(answers) == {(200, None, True), (503, "1", True)}
        for one in traffic:
            _all_arrived(one, customer, hooks)
        assert not list(product.data.glob("machines/*/poisoned"))
        metrics = _metrics(product)
        assert "tomada_events_quarantined_total 0.0" in metrics
        assert "tomada_database_writable 1.0" in metrics
        assert "tomada_lanes_stuck 0.0" in metrics


def _read_only(product: Product) -> str:
    """From now on; what /ready then says."""
    _run(product, "alter database tomada set default_transaction_read_only = on", _CUT)
    refused = wait_for("503", lambda: (reply := http("GET", f"{product.base}/ready")).status == 503 and reply, 10)
    assert refused.body["error"] == "not ready"
    wait_for("the reason", lambda: "25006" in http("GET", f"{product.base}/ready").body.get("reason", ""), 10)
    return str(http("GET", f"{product.base}/ready").body["reason"])


def _writable(product: Product) -> None:
    _run(product, "alter database tomada reset default_transaction_read_only", _CUT)


def _run(product: Product, *statements: str) -> None:
    """One after the other, by a connection that may write whatever the database's default is."""

    async def run() -> None:
        dsn = (product.data / "database.address").read_text()
        connection = await asyncpg.connect(dsn, server_settings={"default_transaction_read_only": "off"})
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(run())


def _all_arrived(one: Traffic, customer: Phone, hooks: Hooks) -> None:
    key = f"refused{one.number}"

    def sent() -> list[str]:
        return [text for text in customer.texts() if text.startswith(f"out {one.number} ")]

    def told() -> list[str]:
        texts = (it.body["text"]["message"] for it in hooks.of(key, "ReceivedCallback") if not it.body["fromMe"])
        return list(dict.fromkeys(texts))  # a callback whose answer could not be written down comes again

    wait_for("all accepted texts", lambda: set(one.accepted) <= set(sent()), 60)
    wait_for("all received texts", lambda: set(one.asked) <= set(told()), 60)
    assert [text for text in sent() if text in set(one.accepted)] == one.accepted
    assert told() == one.asked


def _metrics(product: Product) -> str:
    request = urllib.request.Request(f"{product.base}/metrics", headers={"Authorization": f"Bearer {OPERATOR}"})
    with urllib.request.urlopen(request, timeout=10) as reply:
        return str(reply.read().decode())
