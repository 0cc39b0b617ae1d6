"""Whether this process lives (/health) and whether it can serve (/ready), for probes and load balancers.

Some of them ask by HEAD, which is GET without a body (RFC 9110). That is no route of its own: it is turned into GET
before the router sees it, and the HTTP server, which goes by what was sent, leaves the body out.
"""

from typing import Any

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler

from tomada.wire.reading import AnyRequest, ports_of

PROBES = frozenset({"/health", "/ready"})


@get("/health", tags=["operation"])
async def health() -> dict[str, str]:
    """The process lives and its loop turns."""
    return {"status": "ok"}


@get("/ready", tags=["operation"])
async def ready(request: AnyRequest) -> Response[dict[str, str]]:
    """Requests can be served now: the database took a write a moment ago. Else 503 and why."""
    trouble = ports_of(request).database_trouble()
    if trouble is None:
        return Response({"status": "ready"})
    return Response({"error": "not ready", "reason": trouble}, status_code=503, headers={"Retry-After": "1"})


HANDLERS: list[HTTPRouteHandler | Any] = [health, ready]


def with_head(app: Any) -> Any:
    """The ASGI application, answering HEAD on the probes."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD" and scope["path"] in PROBES:
            scope = {**scope, "method": "GET"}
        await app(scope, receive, send)

    return answer
