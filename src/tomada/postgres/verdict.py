"""The one judgement of database errors: what an error says, and so what its caller does.

    DATA      the statement's own data are at fault: another try ends the same way (SQLSTATE classes 21, 22, 23, 54)
    REFUSED   PostgreSQL says something about itself: read-only, no space, no privilege, cancelled... Nothing was done
    UNDONE    undone for the sake of another transaction (deadlock, serialization). Nothing was done; try at once
    UNCLEAR   any other SQLSTATE: nothing was done, and it may be PostgreSQL's fault (XX) or one row's (a trigger's P0)
    LOST      the connection failed, or no answer came in time: done or not, nobody knows
    OURS      no error of the database at all: a defect of ours, or an error of the caller's own

All but DATA and OURS *pass*: what was asked waits and is asked again as it is, HTTP callers hear 503, and nothing is
quarantined for it. The table is turned round on purpose, from a list of what passes to a list of what does not: a state
of PostgreSQL that nobody thought of must delay events, never put them aside.

A refusal that ends the connection (severity FATAL or PANIC) is LOST whatever its SQLSTATE: it may have come after the
commit. UNCLEAR is kept apart for those who write many rows together, or again and again: they look for the row that is
refused while others are not (batches.py, machines/lanes.py).
"""

import enum

import asyncpg

from tomada.errors import OutcomeUnknown, Unavailable


class Verdict(enum.Enum):
    """What an error says; see the module."""

    DATA = "data"
    REFUSED = "refused"
    UNDONE = "undone"
    UNCLEAR = "unclear"
    LOST = "lost"
    OURS = "ours"

    @property
    def passes(self) -> bool:
        """Whether the same may be asked again, as it is, however long it takes."""
        return self not in (Verdict.DATA, Verdict.OURS)

    @property
    def is_of_the_server(self) -> bool:
        """Whether it is surely the server's state, the same for every row that is written now."""
        return self in (Verdict.REFUSED, Verdict.UNDONE, Verdict.LOST)


CONNECTION_LOST: tuple[type[Exception], ...] = (
    OSError,  # refused, reset, no socket; TimeoutError is one too: no answer in time
    asyncpg.InterfaceError,  # "connection is closed", but also misuse: `judge` tells them apart
    asyncpg.InternalClientError,  # "another operation is in progress": the connection broke while it was asked
    asyncpg.PostgresConnectionError,  # class 08
    asyncpg.AdminShutdownError,  # 57P01: terminated, or the server shuts down
    asyncpg.CrashShutdownError,  # 57P02: another process of the server crashed
    asyncpg.CannotConnectNowError,  # 57P03: starting up or recovering
    asyncpg.IdleInTransactionSessionTimeoutError,  # 25P03: we were frozen inside a transaction
)

# SQLSTATE, or its first characters -> verdict and what /ready says; the longest that fits counts.
_TABLE: dict[str, tuple[Verdict, str]] = {
    "08": (Verdict.LOST, "connections to the database break"),
    "21": (Verdict.DATA, ""),
    "22": (Verdict.DATA, ""),
    "23": (Verdict.DATA, ""),
    "25006": (Verdict.REFUSED, "the database is read-only"),
    "25P03": (Verdict.LOST, "the database ended an idle transaction"),
    "25P04": (Verdict.LOST, "the database ended a long transaction"),
    "28": (Verdict.REFUSED, "the database refuses our user or password"),
    "3D": (Verdict.REFUSED, "there is no database of this name"),
    "3F": (Verdict.REFUSED, "the schema is missing"),
    "40": (Verdict.UNDONE, "transactions are rolled back"),
    "40003": (Verdict.LOST, "the outcome of a statement is unknown"),
    "42501": (Verdict.REFUSED, "our database user lacks a privilege"),
    "42P01": (Verdict.REFUSED, "a table is missing"),
    "53": (Verdict.REFUSED, "the database has no resources left"),
    "53100": (Verdict.REFUSED, "the database's disk is full"),
    "53200": (Verdict.REFUSED, "the database is out of memory"),
    "53300": (Verdict.REFUSED, "the database has too many connections"),
    "54": (Verdict.DATA, ""),
    "55": (Verdict.REFUSED, "an object of the database is in use or locked"),
    "57": (Verdict.REFUSED, "the database cancels statements"),
    "57P": (Verdict.LOST, "the database is shutting down or starting"),
    "58": (Verdict.REFUSED, "the database has trouble with its files"),
}
_UNCLEAR = (Verdict.UNCLEAR, "the database reports an error")
_NO_ANSWER = "the database does not answer"


def judge(error: BaseException) -> Verdict:
    """What an error says."""
    if isinstance(error, OutcomeUnknown):
        return Verdict.LOST
    if isinstance(error, Unavailable):
        return Verdict.REFUSED
    if isinstance(error, asyncpg.PostgresError):
        return Verdict.LOST if _ended_the_connection(error) else _looked_up(error)[0]
    return _judge_client(error)


def words(error: BaseException) -> str:
    """What an error says about the database, for operators: fixed words and the SQLSTATE, never the error's text."""
    if isinstance(error, asyncpg.PostgresError):
        return f"{_looked_up(error)[1] or _UNCLEAR[1]} (SQLSTATE {getattr(error, 'sqlstate', '?')})"
    if isinstance(error, Unavailable) and isinstance(error.__cause__, Exception):
        return words(error.__cause__)
    return _NO_ANSWER if judge(error).passes else f"{_UNCLEAR[1]} ({type(error).__name__})"


def _judge_client(error: BaseException) -> Verdict:
    """What asyncpg itself says: a closed connection, or misuse. (A value that it cannot encode is 22000 to it.)"""
    if isinstance(error, asyncpg.InterfaceError):  # it has no class for "is closed"
        return Verdict.LOST if type(error) is asyncpg.InterfaceError and "clos" in str(error) else Verdict.OURS
    return Verdict.LOST if isinstance(error, CONNECTION_LOST) else Verdict.OURS


def _looked_up(error: asyncpg.PostgresError) -> tuple[Verdict, str]:
    state = getattr(error, "sqlstate", None) or ""
    return next((found for length in (5, 3, 2) if (found := _TABLE.get(state[:length]))), _UNCLEAR)


def _ended_the_connection(error: asyncpg.PostgresError) -> bool:
    return getattr(error, "severity_en", None) in ("FATAL", "PANIC")
