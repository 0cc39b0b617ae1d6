"""The audit log: appended under any rush, refused to be changed, and whatever was forged is found."""

import asyncio

import asyncpg
import pytest

from tomada.accounts import audit
from tomada.postgres.pool import Pool

UNLOCK = "alter table audit disable trigger audit_append_only"


async def write(pool: Pool, account_id: str, count: int) -> None:
    """Appends so many entries, one transaction each, all at once."""

    async def one(number: int) -> None:
        async with pool.acquire() as connection, connection.transaction():
            await audit.append(connection, account_id, "partner", "subscribed", f"I{number}", {"due": number})

    await asyncio.gather(*(one(number) for number in range(count)))


async def test_writers_at_the_same_time_make_one_chain(pool: Pool) -> None:
    """Numbers without a gap, every hash over the one before."""
    await write(pool, "A", 40)
    await write(pool, "B", 3)
    verdict = await audit.verify(pool, "A")
    assert (verdict.rows, verdict.wrong) == (40, "")
    entries = await audit.page(pool, "A")
    assert [entry.number for entry in entries] == list(range(1, 41))
    assert {entry.subject for entry in entries} == {f"I{number}" for number in range(40)}
    assert verdict.head == entries[-1].hash.hex()
    assert (await audit.page(pool, "A", 38)) == entries[38:]


async def test_an_account_without_a_log_is_in_order(pool: Pool) -> None:
    """Nothing was written, nothing is wrong."""
    assert await audit.verify(pool, "NEW") == audit.Verdict(0, "", "")


async def test_what_was_rolled_back_was_not_logged(pool: Pool) -> None:
    """The entry belongs to the transaction of what it tells."""
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await audit.append(connection, "A", "partner", "subscribed", "I")
        await transaction.rollback()
    assert (await audit.verify(pool, "A")).rows == 0


@pytest.mark.parametrize(
    "forgery", ["update audit set subject = 'J'", "delete from audit", "truncate audit", "update audit set number = 9"]
)
async def test_the_database_refuses_to_change_it(pool: Pool, forgery: str) -> None:
    """Append only."""
    await write(pool, "A", 1)
    with pytest.raises(asyncpg.RaiseError, match="append-only"):
        await pool.execute(forgery)


@pytest.mark.parametrize(
    ("forgery", "words"),
    [
        ("update audit set subject = 'J' where number = 3", "row 3 was changed"),
        ("update audit set at_ms = at_ms + 1 where number = 3", "row 3 was changed"),
        ("update audit set detail = '{\"due\":9}' where number = 3", "row 3 was changed"),
        ("update audit set hash = '' where number = 3", "row 3 was changed"),
        ("delete from audit where number = 3", "row 3 is missing"),
        ("delete from audit where number = 1", "row 1 is missing"),
        ("delete from audit where number >= 4", "the log ends at row 3, but 5 were written"),
        ("delete from audit", "the log ends at row 0, but 5 were written"),
        ("update audit_head set hash = '\\x00'", "row 5 is not the one written last"),
    ],
)
async def test_a_forgery_is_found(pool: Pool, forgery: str, words: str) -> None:
    """By somebody who owns the database and takes the trigger away: the chain tells where it breaks."""
    for _ in range(5):
        await write(pool, "A", 1)
    await pool.execute(UNLOCK)
    await pool.execute(forgery)
    assert (await audit.verify(pool, "A")).wrong == words


async def test_two_swapped_rows_are_found(pool: Pool) -> None:
    """Order is part of the chain."""
    for _ in range(3):
        await write(pool, "A", 1)
    await pool.execute(UNLOCK)
    await pool.execute("update audit set number = number + 10 where number < 3")
    await pool.execute("update audit set number = 23 - number - 10 where number > 10")
    assert (await audit.verify(pool, "A")).wrong
