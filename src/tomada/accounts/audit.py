"""The audit log of an account: append-only, every row chained to the one before it by SHA-256.

A row's hash covers its account, number, time, actor, action, subject, detail and the hash before it, so a row that was
changed, taken out or put in later breaks the chain from there on. `audit_head` holds the end, so that cutting off the
latest rows, or adding one behind it, is noticed too; and each log begins with its account's creation, so that one which
is gone altogether is. Triggers (0003_lifecycle.sql) let rows be appended in turn, move the head along, and refuse
anything else.

Whoever owns the tables can take the triggers away and compute the whole chain and its head anew: no secret is in the
hashes. Who must rule that out notes heads somewhere else now and then; rows up to a head that was noted can no longer
be changed unseen (`unknown`), later ones can.

Entries name instances by id and never hold a token, a phone number or a message.
"""

import hashlib
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from tomada.postgres.pool import Connection, Pool

CREATED = "account_created"  # the action that begins each log
FIRST_HASH = b""
PAGE_ROWS = 1000

# Locks the account's chain for the rest of the transaction; the no-op update returns an existing row too.
_HEAD = """
insert into audit_head (account_id) values ($1)
on conflict (account_id) do update set number = audit_head.number
returning number, hash, lifecycle_now_ms() as now_ms
"""

# A trigger moves the head.
_APPEND = """
insert into audit (account_id, number, at_ms, actor, action, subject, detail, hash)
values ($1, $2, $3, $4, $5, $6, $7, $8)
"""

_PAGE = """
select account_id, number, at_ms, actor, action, subject, detail, hash from audit
where account_id = $1 and number > $2 order by number limit $3
"""

_ALL = """
select account_id, number, at_ms, actor, action, subject, detail, hash from audit
where account_id = $1 order by number
"""

_READ_HEAD = "select number, hash from audit_head where account_id = $1"

# Whoever is or was an account, and whether its log begins as every log does.
_LOGS = """
select id, exists (select 1 from audit where account_id = id and number = 1 and action = $1 and subject = id) as begins
from (select id from account union select account_id from audit union select account_id from audit_head) as known
order by id
"""

_UNKNOWN = "select hash from unnest($1::bytea[]) as noted (hash) where hash not in (select hash from audit)"


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


async def is_kept(pool: Pool, account_id: str) -> bool:
    """Whether there is a log under this id: of an account, or of one that is gone."""
    return await pool.fetchrow(_READ_HEAD, account_id) is not None


async def verify(pool: Pool, account_id: str) -> Verdict:
    """Walks the account's whole chain, as it is at one moment."""
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        return await _verify(connection, account_id)


async def verify_all(pool: Pool) -> dict[str, Verdict]:
    """The verdict on each account's log, by id: also on logs of accounts that are gone, and on logs that are."""
    verdicts = {}
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        for account_id, begins in await connection.fetch(_LOGS, CREATED):
            verdict = await _verify(connection, account_id)
            if not verdict.wrong and not begins:
                verdict = Verdict(verdict.rows, verdict.head, "the log does not begin with the account's creation")
            verdicts[account_id] = verdict
    return verdicts


async def unknown(pool: Pool, noted: Sequence[bytes]) -> list[bytes]:
    """Which of these hashes, heads that were noted earlier, no row has any more."""
    return [hashed for (hashed,) in await pool.fetch(_UNKNOWN, noted)]


async def _verify(connection: Connection, account_id: str) -> Verdict:
    head = await connection.fetchrow(_READ_HEAD, account_id)
    last, expected = (head["number"], bytes(head["hash"])) if head else (0, FIRST_HASH)
    previous, number, wrong = FIRST_HASH, 0, ""
    async for row in connection.cursor(_ALL, account_id, prefetch=PAGE_ROWS):
        entry = Entry(*row)
        if wrong := _wrong_with(entry, number, previous, last):
            break
        number, previous = entry.number, entry.hash
    if not wrong and number != last:
        wrong = f"the log ends at row {number}, but {last} were written"
    if not wrong and previous != expected:
        wrong = f"row {number} is not the one written last"
    return Verdict(number, previous.hex(), wrong)


def _wrong_with(entry: Entry, number: int, previous: bytes, last: int) -> str:
    """What is wrong with the entry after row `number`, whose hash is `previous`; the head names row `last`."""
    if entry.number != number + 1:
        return f"row {number + 1} is missing"
    if entry.number > last:
        return f"row {entry.number} stands behind the head, which names row {last}"
    return "" if chain(previous, entry) == entry.hash else f"row {entry.number} was changed"
