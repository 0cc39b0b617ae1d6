"""Which errors mean that the connection failed, and which are the statement's own."""

import asyncpg
import pytest

from tomada.postgres.pool import is_connection_lost


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        FileNotFoundError(),
        TimeoutError(),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress"),
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        asyncpg.AdminShutdownError(),
        asyncpg.CrashShutdownError(),
        asyncpg.CannotConnectNowError(),
        asyncpg.IdleInTransactionSessionTimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_connection_errors(error: Exception) -> None:
    """The server or the way to it went away."""
    assert is_connection_lost(error)


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.UniqueViolationError(),
        asyncpg.DeadlockDetectedError(),
        asyncpg.exceptions.DataError("invalid input for query argument $1"),
        asyncpg.InterfaceError("the server expects 2 arguments for this query, 1 was passed"),
        ValueError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_statement_errors(error: Exception) -> None:
    """The statement or its arguments are wrong; another try would not help."""
    assert not is_connection_lost(error)
