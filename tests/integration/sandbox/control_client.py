"""The control routes as a test uses them: JSON in and out, refusals as `Refused`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

TIMEOUT_S = 20.0


class Refused(Exception):
    """The route answered with an error."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(f"{status}: {error}")
        self.status = status


class Control:
    """Calls under `/sandbox` of one running sandbox."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """One request; its decoded answer, bytes if it is no JSON."""
        url = f"{self._base_url}/sandbox/{path}"
        async with aiohttp.request(method, url, json=body) as answer:
            if answer.content_type != "application/json":
                return await answer.read()
            content = await answer.json()
            if answer.status != 200:
                raise Refused(answer.status, content["error"])
            return content

    async def get(self, path: str) -> Any:
        """A GET."""
        return await self.call("GET", path)

    async def post(self, path: str, **body: Any) -> Any:
        """A POST; `from` and the like are given through `call`."""
        return await self.call("POST", path, body)

    async def messages(self, number: str) -> list[dict[str, Any]]:
        """What this phone sent and received."""
        found: list[dict[str, Any]] = await self.get(f"phones/{number}/messages")
        return found

    async def message(
        self, number: str, when: Callable[[dict[str, Any]], Any], timeout_s: float = TIMEOUT_S
    ) -> dict[str, Any]:
        """The first message of this phone that fits, waiting for it if need be."""

        async def find() -> dict[str, Any] | None:
            return next((one for one in await self.messages(number) if when(one)), None)

        message: dict[str, Any] = await eventually(find, timeout_s)
        return message


async def eventually(find: Callable[[], Awaitable[Any]], timeout_s: float = TIMEOUT_S) -> Any:
    """What `find` gives as soon as it is true; an assertion error after the limit."""
    end_s = time.monotonic() + timeout_s
    while not (found := await find()):
        assert time.monotonic() < end_s, "it never came true"
        await asyncio.sleep(0.02)
    return found
