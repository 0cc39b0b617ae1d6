"""The audit log of an account: append-only, every row chained to the one before it by SHA-256.

A row's hash covers its account, number, time, actor, action, subject, detail and the hash before it, so a row that was
changed, taken out or put in later breaks the chain from there on; `audit_head` holds the end, so that cutting off the
latest rows is noticed too. The database refuses UPDATE and DELETE on it. Whoever owns the database can still forge the
whole chain anew: who must rule that out notes the head (`tomada audit verify` prints it) somewhere else now and then.

Entries name instances by id and never hold a token, a phone number or a message.
"""

import hashlib

import msgspec
from msgspec import Struct

from tomada.postgres.pool import Connection, Pool

FIRST_HASH = b""
PAGE_ROWS = 1000

# Locks the account's chain for the rest of the transaction; the no-op update returns an existing row too.
_HEAD = """
insert into audit_head (account_id) values ($1)
on conflict (account_id) do update set number = audit_head.number
returning number, hash, lifecycle_now_ms() as now_ms
"""

_APPEND = """
with moved as (update audit_head set number = $2, hash = $8 where account_id = $1)
insert into audit (account_id, number, at_ms, actor, action, subject, detail, hash)
values ($1, $2, $3, $4, $5, $6, $7, $8)
"""

_PAGE = """
select account_id, number, at_ms, actor, action, subject, detail, hash from audit
where account_id = $1 and number > $2 order by number limit $3
"""

_READ_HEAD = "select number, hash from audit_head where account_id = $1"


class Entry(Struct, frozen=True):
    """One row. `at_ms` is lifecycle time; `detail` is JSON."""

    account_id: str
    number: int
    at_ms: int
    actor: str
    action: str
    subject: str
    detail: str
    hash: bytes


class Verdict(Struct, frozen=True):
    """What `verify` found: rows that hold, the chain's end, and what is wrong (empty: nothing)."""

    rows: int
    head: str
    wrong: str = ""


def chain(previous: bytes, entry: Entry) -> bytes:
    """The hash of `entry` after a row with the hash `previous`; JSON sets the fields off, so none can run over."""
    fields = (entry.account_id, entry.number, entry.at_ms, entry.actor, entry.action, entry.subject, entry.detail)
    return hashlib.sha256(previous + msgspec.json.encode(fields)).digest()


async def append(
    connection: Connection, account_id: str, actor: str, action: str, subject: str, detail: object = None
) -> None:
    """Appends a row within the caller's transaction: what is logged happened, and what happened is logged.

    Writers of one account take turns until they commit; call it last in a transaction, so that locks keep one order.
    """
    head = await connection.fetchrow(_HEAD, account_id)
    assert head is not None
    text = msgspec.json.encode(detail, order="deterministic").decode()
    entry = Entry(account_id, head["number"] + 1, head["now_ms"], actor, action, subject, text, b"")
    await connection.execute(
        _APPEND,
        *(account_id, entry.number, entry.at_ms, actor, action, subject, text, chain(head["hash"], entry)),
    )


async def page(pool: Pool, account_id: str, after: int = 0, limit: int = PAGE_ROWS) -> list[Entry]:
    """The account's entries in order, from the one after number `after`."""
    return [Entry(*row) for row in await pool.fetch(_PAGE, account_id, after, limit)]


async def verify(pool: Pool, account_id: str) -> Verdict:
    """Walks the account's whole chain. Rows that are appended meanwhile are checked as far as the head read first."""
    head = await pool.fetchrow(_READ_HEAD, account_id)
    last, expected = (head["number"], bytes(head["hash"])) if head else (0, FIRST_HASH)
    previous, number = FIRST_HASH, 0
    while number < last and (entries := await page(pool, account_id, number)):
        for entry in entries[: last - number]:
            if entry.number != number + 1:
                return Verdict(number, previous.hex(), f"row {number + 1} is missing")
            if chain(previous, entry) != entry.hash:
                return Verdict(number, previous.hex(), f"row {entry.number} was changed")
            number, previous = entry.number, entry.hash
    if number != last:
        return Verdict(number, previous.hex(), f"the log ends at row {number}, but {last} were written")
    return Verdict(number, previous.hex(), "" if previous == expected else f"row {number} is not the one written last")
