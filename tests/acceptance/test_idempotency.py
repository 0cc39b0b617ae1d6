"""Idempotency-Key on create, over the whole product: one instance, whatever is sent again and whatever dies."""

import threading
from collections import Counter
from pathlib import Path

from tests.acceptance.product import Account, Product, Reply, http

PATH = "/instances/integrator/on-demand"


def create(account: Account, key: str, name: str = "Shop") -> Reply:
    """A create with a key."""
    headers = {**account.headers, "Idempotency-Key": key}
    return http("POST", f"{account.product.base}{PATH}", {"name": name}, headers=headers)


def total(account: Account) -> int:
    """How many instances the account has."""
    return int(account.get("/instances").body["total"])


def test_many_at_once_make_one_instance(account: Account, product: Product) -> None:
    """Each hears the one instance, or 409; another body is refused; another account's same key is another key."""
    mine, other = product.create_account(), product.create_account()
    replies: list[Reply] = []
    threads = [threading.Thread(target=lambda: replies.append(create(mine, "order-1"))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = Counter(reply.status for reply in replies)
    assert set(statuses) <= {200, 409}
    assert statuses[200] >= 1
    assert len({reply.body["id"] for reply in replies if reply.status == 200}) == 1
    assert total(mine) == 1
    again = create(mine, "order-1")
    assert again.body["id"] in {reply.body["id"] for reply in replies if reply.status == 200}
    refused = create(mine, "order-1", "Another name")
    assert (refused.status, refused.body) == (400, {"error": "This Idempotency-Key was used for another request"})
    assert create(other, "order-1").body["id"] != again.body["id"]
    assert (total(mine), total(other)) == (1, 1)


def test_the_answer_survives_kill_and_restart(tmp_path: Path) -> None:
    """The same bytes answer the same instance and token after kill -9, and after an orderly stop."""
    tmp_path.chmod(0o755)
    product = Product(tmp_path / "data")
    product.start()
    try:
        account = product.create_account()
        first = create(account, "order-2")
        product.kill()
        product.start()
        assert create(account, "order-2").body == first.body
        assert product.stop() == 0
        product.start()
        assert create(account, "order-2").body == first.body
        assert total(account) == 1
        token = first.body["token"]
        assert http("GET", f"{product.base}/instances/{first.body['id']}/token/{token}/status").status == 200
    finally:
        product.stop()
