"""Idempotency keys: one instance for any number of identical creates, whatever is killed in between."""

import asyncio

import pytest

from tomada.accounts import idempotency
from tomada.accounts.idempotency import CLAIM_S, Claim, Replay
from tomada.errors import Conflict, Refused
from tomada.postgres.pool import Pool

BODY = idempotency.request_hash("POST", "/instances/integrator/on-demand", b'{"name": "Shop"}')
OTHER = idempotency.request_hash("POST", "/instances/integrator/on-demand", b'{"name": "Shop 2"}')


@pytest.fixture
async def account(pool: Pool) -> str:
    """An account, and a table that stands for the instances it makes."""
    await pool.execute(
        "insert into account (id, name, partner_token_hash, partner_token_sealed, signing_secret_sealed)"
        " values ('A', 'A', 'a', '', '')"
    )
    await pool.execute("create table made (id serial)")
    return "A"


async def make(pool: Pool, held: Claim, reply: bytes = b"reply") -> None:
    """What a create does once it holds a claim."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("insert into made default values")
        await idempotency.complete(connection, held, reply)


async def age(pool: Pool, seconds: int) -> None:
    """Lets time pass for all keys."""
    await pool.execute("update idempotency set claimed_ms = claimed_ms - $1", seconds * 1000)


async def test_the_second_call_gets_the_first_one_s_reply(pool: Pool, account: str) -> None:
    """Byte for byte, as often as it comes."""
    held = await idempotency.claim(pool, account, "k", BODY)
    assert isinstance(held, Claim)
    await make(pool, held, b"the reply")
    for _ in range(2):
        assert await idempotency.claim(pool, account, "k", BODY) == Replay(b"the reply")


async def test_the_same_key_with_another_body_is_refused(pool: Pool, account: str) -> None:
    """Before and after the first is answered."""
    held = await idempotency.claim(pool, account, "k", BODY)
    assert isinstance(held, Claim)
    with pytest.raises(Refused, match="another request"):
        await idempotency.claim(pool, account, "k", OTHER)
    await make(pool, held)
    with pytest.raises(Refused, match="another request"):
        await idempotency.claim(pool, account, "k", OTHER)


async def test_of_twenty_at_once_one_works_and_the_others_hear_409(pool: Pool, account: str) -> None:
    """And exactly one instance is made."""

    async def call() -> str:
        try:
            held = await idempotency.claim(pool, account, "k", BODY)
        except Conflict as error:
            return str(error.status)
        if isinstance(held, Claim):
            await make(pool, held)
            return "made"
        return "replayed"

    answers = await asyncio.gather(*(call() for _ in range(20)))
    assert answers.count("made") == 1
    assert set(answers) <= {"made", "replayed", "409"}
    assert await pool.fetchval("select count(*) from made") == 1


async def test_another_account_s_key_is_another_key(pool: Pool, account: str) -> None:
    """Keys belong to accounts."""
    await pool.execute(
        "insert into account (id, name, partner_token_hash, partner_token_sealed, signing_secret_sealed)"
        " values ('B', 'B', 'b', '', '')"
    )
    assert isinstance(await idempotency.claim(pool, account, "k", BODY), Claim)
    assert isinstance(await idempotency.claim(pool, "B", "k", OTHER), Claim)


async def test_a_refused_request_keeps_nothing(pool: Pool, account: str) -> None:
    """After release the key may be used for a corrected body."""
    held = await idempotency.claim(pool, account, "k", BODY)
    assert isinstance(held, Claim)
    await idempotency.release(pool, held)
    assert isinstance(await idempotency.claim(pool, account, "k", OTHER), Claim)


async def test_a_completed_key_cannot_be_released(pool: Pool, account: str) -> None:
    """What was answered stays answered."""
    held = await idempotency.claim(pool, account, "k", BODY)
    assert isinstance(held, Claim)
    await make(pool, held)
    await idempotency.release(pool, held)
    assert isinstance(await idempotency.claim(pool, account, "k", BODY), Replay)


async def test_a_server_that_died_is_succeeded_after_a_minute(pool: Pool, account: str) -> None:
    """Killed between claim and commit: nothing was made, the next one makes it."""
    assert isinstance(await idempotency.claim(pool, account, "k", BODY), Claim)
    await age(pool, CLAIM_S - 1)
    with pytest.raises(Conflict):
        await idempotency.claim(pool, account, "k", BODY)
    await age(pool, 2)
    held = await idempotency.claim(pool, account, "k", BODY)
    assert isinstance(held, Claim)
    await make(pool, held)
    assert await pool.fetchval("select count(*) from made") == 1


async def test_a_server_that_froze_makes_no_second_one(pool: Pool, account: str) -> None:
    """Its claim is lost; when it wakes, its whole transaction rolls back."""
    frozen = await idempotency.claim(pool, account, "k", BODY)
    await age(pool, CLAIM_S + 1)
    heir = await idempotency.claim(pool, account, "k", BODY)
    assert isinstance(frozen, Claim)
    assert isinstance(heir, Claim)
    with pytest.raises(Conflict):
        await make(pool, frozen)
    await idempotency.release(pool, frozen)
    await make(pool, heir, b"the heir's")
    with pytest.raises(Conflict):
        await make(pool, frozen)
    assert await pool.fetchval("select count(*) from made") == 1
    assert await idempotency.claim(pool, account, "k", BODY) == Replay(b"the heir's")


async def test_keys_are_kept_a_day_and_more(pool: Pool, account: str) -> None:
    """24 hours are promised, 48 are kept."""
    held = await idempotency.claim(pool, account, "k", BODY)
    assert isinstance(held, Claim)
    await make(pool, held)
    await age(pool, 24 * 3600 + 60)
    assert await idempotency.purge(pool) == 0
    assert isinstance(await idempotency.claim(pool, account, "k", BODY), Replay)
    await age(pool, 24 * 3600)
    assert await idempotency.purge(pool) == 1
    assert isinstance(await idempotency.claim(pool, account, "k", OTHER), Claim)
