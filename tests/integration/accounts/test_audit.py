"""The audit log: appended under any rush, refused to be changed, and whatever was forged is found."""

import asyncio

import asyncpg
import pytest

from tomada.accounts import audit, manage
from tomada.accounts.store import AccountStore
from tomada.kit.sealing import Sealer
from tomada.postgres.pool import Pool

UNLOCK = "alter table audit disable trigger user; alter table audit_head disable trigger user"
LOCK = UNLOCK.replace("disable", "enable")


async def write(pool: Pool, account_id: str, count: int) -> None:
    """Appends so many entries, one transaction each, all at once."""

    async def one(number: int) -> None:
        async with pool.acquire() as connection, connection.transaction():
            await audit.append(connection, account_id, "partner", "subscribed", f"I{number}", {"due": number})

    await asyncio.gather(*(one(number) for number in range(count)))


async def made(pool: Pool) -> str:
    """A new account."""
    return (await manage.create(AccountStore(pool), Sealer(bytes(32)), "Shop")).id


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
    "forgery",
    [
        "update audit set subject = 'J'",
        "delete from audit",
        "truncate audit",
        "update audit set number = 9",
        "insert into audit values ('A', 0, 0, '', '', '', '', 'x')",
        "insert into audit values ('A', 4, 0, '', '', '', '', 'x')",
        "insert into audit values ('B', 1, 0, '', '', '', '', 'x')",
        "update audit_head set number = 1, hash = (select hash from audit where account_id = 'A' and number = 1)",
        "update audit_head set number = 3",
        "update audit_head set hash = 'x'",
        "update audit_head set account_id = 'B'",
        "delete from audit_head",
        "truncate audit_head",
        "insert into audit_head values ('B', 2, 'x')",
    ],
)
async def test_the_database_refuses_to_change_it(pool: Pool, forgery: str) -> None:
    """Append only, in turn; the head goes where the log goes, and nowhere else."""
    await write(pool, "A", 2)
    with pytest.raises(asyncpg.RaiseError, match="append-only"):
        await pool.execute(forgery)
    await write(pool, "A", 1)
    assert (await audit.verify(pool, "A")).rows == 3


async def test_a_row_written_by_hand_is_found_and_stops_nobody(pool: Pool) -> None:
    """Its hash is not of the chain. What happens afterwards is logged all the same."""
    await write(pool, "A", 2)
    await pool.execute("insert into audit values ('A', 3, 0, 'partner', 'deleted', 'I', 'null', 'x')")
    await write(pool, "A", 2)
    assert (await audit.verify(pool, "A")).wrong == "row 3 was changed"
    assert [entry.number for entry in await audit.page(pool, "A")] == [1, 2, 3, 4, 5]


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
        (
            "update audit_head set number = 2, hash = (select hash from audit where number = 2)",
            "row 3 stands behind the head, which names row 2",
        ),
        (
            "insert into audit values ('A', 6, 0, '', '', '', '', 'x')",
            "row 6 stands behind the head, which names row 5",
        ),
        ("insert into audit values ('A', 0, 0, '', '', '', '', 'x')", "row 1 is missing"),
        ("delete from audit_head", "row 1 stands behind the head, which names row 0"),
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


async def test_a_log_that_is_gone_is_found(pool: Pool) -> None:
    """Every log begins with its account's creation: wiped out, and even begun anew, it does not."""
    one, other = await made(pool), await made(pool)
    assert [verdict.wrong for verdict in (await audit.verify_all(pool)).values()] == ["", ""]
    await pool.execute(f"{UNLOCK}; delete from audit where account_id = '{one}'")
    await pool.execute(f"delete from audit_head where account_id = '{one}'; {LOCK}")
    for rows in (0, 1):
        verdicts = await audit.verify_all(pool)
        assert (verdicts[one].rows, verdicts[one].wrong) == (rows, "the log does not begin with the account's creation")
        assert verdicts[other].wrong == ""
        await write(pool, one, 1)


async def test_a_log_without_its_account_is_looked_at_too(pool: Pool) -> None:
    """Who takes the account's row away does not take its log out of sight."""
    account_id = await made(pool)
    await pool.execute("delete from account")
    await pool.execute(UNLOCK)
    await pool.execute("update audit set detail = '7'")
    assert {key: verdict.wrong for key, verdict in (await audit.verify_all(pool)).items()} == {
        account_id: "row 1 was changed"
    }


async def test_a_chain_forged_anew_lacks_the_heads_that_were_noted(pool: Pool) -> None:
    """Whoever computes all hashes again is believed, unless a head was noted before."""
    await write(pool, "A", 3)
    noted = bytes.fromhex((await audit.verify(pool, "A")).head)
    await write(pool, "A", 2)
    assert await audit.unknown(pool, [noted]) == []
    entries = await audit.page(pool, "A")
    await pool.execute(f"{UNLOCK}; delete from audit; delete from audit_head; {LOCK}")
    async with pool.acquire() as connection, connection.transaction():
        for entry in entries:
            await audit.append(connection, "A", "partner", entry.action, "FORGED")
    verdict = await audit.verify(pool, "A")
    assert (verdict.rows, verdict.wrong) == (5, "")
    assert await audit.unknown(pool, [noted, bytes.fromhex(verdict.head)]) == [noted]


async def test_what_is_appended_meanwhile_is_not_wrong(pool: Pool) -> None:
    """Head and rows are read as they are at one moment."""

    async def writer() -> None:
        for _ in range(50):
            await write(pool, "A", 1)

    writing = asyncio.gather(writer(), writer())
    rows = 0
    while rows < 100:
        verdict = await audit.verify(pool, "A")
        assert (verdict.wrong, verdict.rows >= rows) == ("", True)
        rows = verdict.rows
    await writing
