"""The operator's routes: accounts (account_calls.py) and metrics, behind one guard."""

from litestar import Response, Router, get
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from tomada.wire import account_calls
from tomada.wire.operator_parts import operator_guard, parts_of
from tomada.wire.reading import AnyRequest

_TEXT = CONTENT_TYPE_LATEST.partition("; charset")[0]  # which Litestar adds


@get("/metrics", media_type=_TEXT)
async def metrics(request: AnyRequest) -> Response[str]:
    """Prometheus metrics."""
    return Response(generate_latest(parts_of(request).registry).decode(), media_type=_TEXT)


router = Router(
    "/",
    guards=[operator_guard],
    security=[{"operator": []}],
    tags=["operator"],
    route_handlers=[*account_calls.HANDLERS, metrics],
)
