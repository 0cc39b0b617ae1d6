"""The one judgement of database errors, over every error that asyncpg knows."""

import asyncpg
import pytest

from tomada.errors import DatabaseUnavailable, MachineTimeout, NotFound, OutcomeUnknown
from tomada.postgres.verdict import CONNECTION_LOST, Verdict, judge, words

_DATA = ("21", "22", "23", "54")
_LOST = ("08", "25P03", "25P04", "40003", "57P")
_REFUSED = ("25006", "28", "3D", "3F", "42501", "42P01", "53", "55", "57", "58")


def _expected(state: str) -> Verdict:
    """By hand, in the issue's words, and not by the table under test."""
    if state.startswith(_DATA):
        return Verdict.DATA
    if state.startswith(_LOST):
        return Verdict.LOST
    if state.startswith("40"):
        return Verdict.UNDONE
    return Verdict.REFUSED if state.startswith(_REFUSED) else Verdict.UNCLEAR


def _all_states() -> dict[str, type[asyncpg.PostgresError]]:
    """Warnings (01) and "no data" (02) are no errors: asyncpg raises neither."""
    classes = [found for found in vars(asyncpg.exceptions).values() if isinstance(found, type)]
    errors = [found for found in classes if issubclass(found, asyncpg.PostgresError)]
    return {found.sqlstate: found for found in errors if found.sqlstate}


@pytest.mark.parametrize(("state", "kind"), sorted(_all_states().items()))
def test_every_sqlstate(state: str, kind: type[Exception]) -> None:
    """Only what concerns the data is the statement's own; everything that PostgreSQL says about itself passes."""
    verdict = judge(kind("secret"))

    assert verdict is _expected(state)
    assert verdict.passes == (not state.startswith(_DATA))
    assert "secret" not in words(kind("secret"))


def test_no_class_of_sqlstates_is_missing() -> None:
    """Regression guard: the table above covers what this asyncpg knows, in all some 250 states of 40 classes."""
    assert len(_all_states()) > 200
    assert {state[:2] for state in _all_states()} >= {"08", "22", "23", "25", "28", "40", "42", "53", "57", "58", "XX"}


def test_a_state_that_nobody_knows_passes() -> None:
    """Of a newer PostgreSQL, or of an operator's trigger."""
    error = asyncpg.exceptions.UnknownPostgresError("x")
    vars(error)["sqlstate"] = "99X99"

    assert judge(error) is Verdict.UNCLEAR
    assert judge(asyncpg.PostgresError("without a state")) is Verdict.UNCLEAR


@pytest.mark.parametrize("severity", ["FATAL", "PANIC"])
def test_a_refusal_that_ends_the_connection_may_have_come_after_the_commit(severity: str) -> None:
    """So its outcome is unknown, whatever the SQLSTATE."""
    error = asyncpg.DiskFullError("x")
    vars(error)["severity_en"] = severity

    assert judge(error) is Verdict.LOST


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (ConnectionRefusedError(), Verdict.LOST),
        (FileNotFoundError(), Verdict.LOST),
        (TimeoutError(), Verdict.LOST),
        (asyncpg.InterfaceError("connection is closed"), Verdict.LOST),
        (asyncpg.InternalClientError("another operation (2) is in progress"), Verdict.LOST),
        (asyncpg.exceptions.TargetServerAttributeNotMatched("none is writable"), Verdict.LOST),
        (asyncpg.exceptions.DataError("invalid input for query argument $1"), Verdict.DATA),
        (asyncpg.InterfaceError("the server expects 2 arguments for this query, 1 was passed"), Verdict.OURS),
        (asyncpg.exceptions.ClientConfigurationError("invalid port: closed"), Verdict.OURS),
        (OutcomeUnknown(), Verdict.LOST),
        (DatabaseUnavailable(), Verdict.REFUSED),
        (MachineTimeout(), Verdict.REFUSED),
        (NotFound(), Verdict.OURS),
        (KeyError("x"), Verdict.OURS),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.value,
)
def test_errors_without_a_sqlstate(error: Exception, verdict: Verdict) -> None:
    """asyncpg's own, the operating system's, and those of our tree."""
    assert judge(error) is verdict


def test_what_ends_a_connection_is_lost() -> None:
    """The classes to be suppressed around a lost connection agree with the table."""
    kinds = [kind for kind in CONNECTION_LOST if issubclass(kind, asyncpg.PostgresError)]

    assert kinds
    assert {judge(kind("x")) for kind in kinds} == {Verdict.LOST}


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (asyncpg.ReadOnlySQLTransactionError("x"), "the database is read-only (SQLSTATE 25006)"),
        (asyncpg.InvalidPasswordError("x"), "the database refuses our user or password (SQLSTATE 28P01)"),
        (asyncpg.DiskFullError("x"), "the database's disk is full (SQLSTATE 53100)"),
        (asyncpg.InternalServerError("x"), "the database reports an error (SQLSTATE XX000)"),
        (TimeoutError(), "the database does not answer"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_words_for_operators(error: Exception, shown: str) -> None:
    """What it means, and the SQLSTATE; also where it is the cause of an error of ours."""
    wrapped = DatabaseUnavailable()
    wrapped.__cause__ = error

    assert words(error) == words(wrapped) == shown
