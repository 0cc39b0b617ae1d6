"""One log line a request: method, path, status, milliseconds, and the peer's address. Never a token.

Plain ASGI around the whole application, so that it sees what no route saw. Queries are left out: clients put anything
there.
"""

from typing import Any

import structlog

from tomada.kit.clock import Clock
from tomada.kit.logs import redact
from tomada.wire.health import PROBES

log = structlog.get_logger(__name__)

_PATH_LENGTH_MAX = 300


class AccessLog:
    """An ASGI application that logs what another one answers."""

    def __init__(self, app: Any, clock: Clock) -> None:
        self._app = app
        self._clock = clock

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer and log."""
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        began_s = self._clock.monotonic_s()
        status = 0

        async def remember(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, remember)
        finally:
            log.info(
                "http",
                method=scope["method"],
                path=redact(scope["path"][:_PATH_LENGTH_MAX]),
                status=status,
                ms=round((self._clock.monotonic_s() - began_s) * 1000, 2),
                peer=scope["client"][0] if scope.get("client") else None,
            )
