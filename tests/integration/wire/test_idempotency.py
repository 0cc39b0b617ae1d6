"""Idempotency-Key on create: sent again, a create makes one instance."""

import asyncio

from tests.integration.wire.client import Answer
from tests.integration.wire.conftest import Wire
from tomada.accounts.model import NewAccount

CREATE = "/instances/integrator/on-demand"


async def _create(wire: Wire, account: NewAccount, key: str, name: str = "Loja") -> Answer:
    return await wire.partner(account).call("POST", CREATE, json={"name": name}, headers={"Idempotency-Key": key})


async def _count(wire: Wire, account: NewAccount) -> int:
    return int(await wire.pool.fetchval("select count(*) from instance where account_id = $1", account.id))


async def test_same_request_again(wire: Wire) -> None:
    """The same key and body answer the same instance, one after the other; keys of other accounts are others."""
    account, other = await wire.account(), await wire.account()
    first = await _create(wire, account, "order-17")
    assert first.status == 200
    for _ in range(3):
        assert (await _create(wire, account, "order-17")).json() == first.json()
    assert await _count(wire, account) == 1
    assert (await _create(wire, other, "order-17")).json()["id"] != first.json()["id"]
    assert (await _create(wire, account, "order-18")).json()["id"] != first.json()["id"]


async def test_same_requests_at_once(wire: Wire) -> None:
    """Of many at once one makes the instance; the others hear its reply or 409."""
    account = await wire.account()
    answers = await asyncio.gather(*(_create(wire, account, "k") for _ in range(20)))
    assert {answer.status for answer in answers} <= {200, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status == 200}) == 1
    assert await _count(wire, account) == 1


async def test_other_body(wire: Wire) -> None:
    """The key of another request is refused."""
    account = await wire.account()
    await _create(wire, account, "k")
    answer = await _create(wire, account, "k", name="Outra")
    assert (answer.status, answer.json()) == (400, {"error": "This Idempotency-Key was used for another request"})
    assert await _count(wire, account) == 1


async def test_refused_request_frees_its_key(wire: Wire) -> None:
    """A refusal is not kept: after the limit is raised the same request succeeds."""
    account = await wire.account(limit=0)
    assert (await _create(wire, account, "k")).status == 403
    await wire.pool.execute("update account set instances_max = 1 where id = $1", account.id)
    assert (await _create(wire, account, "k")).status == 200


async def test_key_that_is_too_long(wire: Wire) -> None:
    """A key has at most 255 characters."""
    assert (await _create(wire, await wire.account(), "k" * 256)).status == 400


async def test_reply_is_sealed(wire: Wire) -> None:
    """The kept reply holds a token, so it does not lie in the clear."""
    account = await wire.account()
    token = (await _create(wire, account, "k")).json()["token"]
    kept = await wire.pool.fetchval("select reply_sealed from idempotency where account_id = $1", account.id)
    assert token.encode() not in kept
