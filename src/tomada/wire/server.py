"""The HTTP server: uvicorn inside our own loop, with the deadlines and limits of protocol.py.

    async with serving(app, "127.0.0.1", 0) as url: ...

Leaving the block stops taking connections, lets requests that run finish (up to `grace_s`), and closes the rest.
Signals are not touched: they belong to the program, not to its HTTP server.
"""

import asyncio
import functools
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import uvicorn

from tomada.errors import TomadaError
from tomada.wire.protocol import BoundedProtocol, ServerLimits, Shared

DEFAULT_LIMITS = ServerLimits()
_BACKLOG = 2048
_FILES_KEPT = 256  # descriptors left for the database, machines and files


class AddressInUse(TomadaError):
    """The address to listen on is in use or not ours"""


@asynccontextmanager
async def serving(
    app: Any, host: str, port: int, limits: ServerLimits = DEFAULT_LIMITS, grace_s: float = 10.0
) -> AsyncIterator[str]:
    """Serve an ASGI application; gives the URL. `port` 0 picks a free one. Raises AddressInUse."""
    listener = _listen(host, port)
    server = uvicorn.Server(_config(app, _within_descriptors(limits), grace_s))
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup(sockets=[listener])
    ticking = asyncio.create_task(server.main_loop(), name="http server")
    try:
        yield f"http://{_bracketed(host)}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await ticking
        await server.shutdown(sockets=[listener])


def _config(app: Any, limits: ServerLimits, grace_s: float) -> uvicorn.Config:
    protocol: Any = functools.partial(BoundedProtocol, limits=limits, shared=Shared(limits))
    return uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",  # starting and stopping is app.py's, in one place
        log_config=None,
        access_log=False,  # wire/access_log.py writes it, without tokens
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=max(1, int(grace_s)),
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise AddressInUse(f"cannot listen on {host}:{port}: {error.strerror}") from None
    listener.setblocking(False)
    return listener


def _within_descriptors(limits: ServerLimits) -> ServerLimits:
    """No more connections than this process may have files open, or accepting would fail for all."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return limits
    possible = max(16, allowed - _FILES_KEPT)
    return msgspec.structs.replace(limits, connections_max=min(limits.connections_max, possible))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
