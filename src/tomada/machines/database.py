"""What this domain's SQL needs of a connection pool."""

from typing import Any, Protocol


class Database(Protocol):
    """The part of `asyncpg.Pool` that is used."""

    async def fetch(self, query: str, *args: Any) -> list[Any]:
        """All rows."""

    async def fetchrow(self, query: str, *args: Any) -> Any:
        """The first row, or None."""

    async def fetchval(self, query: str, *args: Any) -> Any:
        """The first value of the first row, or None."""

    async def execute(self, query: str, *args: Any) -> str:
        """Run a statement."""
