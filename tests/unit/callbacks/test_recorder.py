"""What a caller of the recorder is told when the database goes away; only the pool is doubled, for its last moments."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from tomada.callbacks.recorder import Recorder
from tomada.callbacks.types import NewEvent, Target
from tomada.errors import DatabaseUnavailable, OutcomeUnknown
from tomada.postgres.pool import Pool

EVENT = NewEvent("I", Target.CONNECTED, "ConnectedCallback", "{}", "connected:1")


class Dying:
    """A pool whose connections die in COMMIT so many times; after that nobody answers."""

    def __init__(self, commits_lost: int) -> None:
        self.commits_lost = commits_lost

    @contextlib.asynccontextmanager
    async def acquire(self) -> AsyncIterator["Dying"]:
        if self.commits_lost == 0:
            raise DatabaseUnavailable
        self.commits_lost -= 1
        yield self

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        yield
        raise ConnectionResetError

    async def fetch(self, *_: Any) -> list[Any]:
        return []


async def recorded(pool: Dying) -> None:
    """Record one event there."""
    await Recorder(cast("Pool", pool)).record([EVENT])


async def test_nothing_was_written_if_nobody_ever_answered() -> None:
    """Then, and only then, the caller may record the same thing under another key."""
    with pytest.raises(DatabaseUnavailable):
        await recorded(Dying(0))


async def test_a_commit_without_an_answer_stays_unknown() -> None:
    """Regression: that the next try found no database was told as if the first had written nothing."""
    with pytest.raises(OutcomeUnknown):
        await recorded(Dying(1))
