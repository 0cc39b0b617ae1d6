"""A CONNECT proxy that leads the engine to the sandbox and nowhere else.

The engine believes it talks to `web.whatsapp.com` and `mmg.whatsapp.net`; told to use this proxy, it asks for a
tunnel to those names and gets one to the sandbox's TLS port. Any other target gets 403, and both are counted: that
proves that a machine under test contacts nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

_HEAD_TIMEOUT_S = 10.0
_HEAD_BYTES_MAX = 16_384
_CHUNK_BYTES = 65_536
_SUFFIXES = (".whatsapp.com", ".whatsapp.net")
_REFUSED_KEPT = 100


class Proxy:
    """The proxy on a free loopback port; tunnels end at `target_port`."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._tunnels: set[asyncio.Task[None]] = set()
        self.opened = 0
        self.refused: deque[str] = deque(maxlen=_REFUSED_KEPT)
        """Targets that were refused."""
        self.credentials: deque[str] = deque(maxlen=_REFUSED_KEPT)
        """`Proxy-Authorization` values seen: shows that an instance used its own proxy settings."""

    @property
    def port(self) -> int:
        """The port it listens on."""
        if self._server is None:
            raise RuntimeError("the proxy is not started")
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, host, port, backlog=1024, limit=_HEAD_BYTES_MAX)

    async def stop(self) -> None:
        """Stop listening and cut all tunnels."""
        if self._server:
            self._server.close()
        for task in tuple(self._tunnels):
            task.cancel()
        await asyncio.gather(*self._tunnels, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tunnels.add(task)
        try:
            await self._tunnel(reader, writer)
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            pass
        finally:
            self._tunnels.discard(task)
            writer.close()

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_HEAD_TIMEOUT_S):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ", 2)
        if method != "CONNECT" or not _allowed(target):
            self.refused.append(f"{method} {target}")
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
            return
        for line in head[1:]:
            name, _, value = line.partition(":")
            if name.lower() == "proxy-authorization":
                self.credentials.append(value.strip())
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        self.opened += 1
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))


def _allowed(target: str) -> bool:
    host = target.rpartition(":")[0].lower()
    return host.endswith(_SUFFIXES) or host in ("whatsapp.com", "whatsapp.net")


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        with contextlib.suppress(OSError):
            writer.close()
