"""A small HTTP/1.1 client over a socket: it can send what a polite library refuses to send."""

import asyncio
import json as jsonlib
from typing import Any, NamedTuple
from urllib.parse import urlsplit

JSON = {"Content-Type": "application/json"}


class Answer(NamedTuple):
    """A response; `json()` of its body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return jsonlib.loads(self.body)


class Client:
    """Calls a server, one connection a call, with headers exactly as given (plus Host and Content-Length)."""

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        parts = urlsplit(url)
        self.host = parts.hostname or ""
        self.port = parts.port or 80
        self.headers = headers or {}

    async def call(
        self,
        method: str,
        path: str,
        json: Any = None,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One request; `json` also sets the Content-Type, `body` does not."""
        given = {**self.headers, **(headers or {})}
        if json is not None:
            body = jsonlib.dumps(json).encode()
            given = {**JSON, **given}
        if body is not None:
            given["Content-Length"] = str(len(body))
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in given.items()]
        return await self.raw("\r\n".join([*lines, "", ""]).encode() + (body or b""))

    async def raw(self, request: bytes, timeout_s: float = 20.0) -> Answer:
        """Bytes out, one response in."""
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(self.host, self.port)
            try:
                writer.write(request)
                return await read_answer(reader)
            finally:
                writer.close()


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """The next response on a connection; EOFError when the server closes without one."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    length = headers.get("content-length")
    body = await reader.readexactly(int(length)) if length is not None else await reader.read()
    return Answer(int(first.split()[1]), headers, body)
