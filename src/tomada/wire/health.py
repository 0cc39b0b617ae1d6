"""Whether this process lives (/health) and whether it can serve (/ready), for probes and load balancers."""

from typing import Any

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler

from tomada.wire.reading import AnyRequest, ports_of


@get("/health", tags=["operation"])
async def health() -> dict[str, str]:
    """The process lives and its loop turns."""
    return {"status": "ok"}


@get("/ready", tags=["operation"])
async def ready(request: AnyRequest) -> Response[dict[str, str]]:
    """Requests can be served now; 503 if not."""
    if await ports_of(request).ready():
        return Response({"status": "ready"})
    return Response({"error": "not ready"}, status_code=503)


HANDLERS: list[HTTPRouteHandler | Any] = [health, ready]
