"""Every route in one Litestar application. The guards stand on the routers: deny by default."""

from collections.abc import Mapping, Sequence

from litestar import Litestar, Router
from litestar.datastructures import MutableScopeHeaders, State
from litestar.types import ControllerRouterHandler, Message, Scope

from tomada.wire import health, instance_calls, partner, queue_calls, sending, settings_calls
from tomada.wire.credentials import instance_guard
from tomada.wire.failing import EXCEPTION_HANDLERS
from tomada.wire.openapi import document_route
from tomada.wire.ports import Ports

INSTANCE_PATH = "/instances/{instance_id:str}/token/{token:str}"


def build_app(
    ports: Ports, more: Sequence[ControllerRouterHandler] = (), parts: Mapping[str, object] | None = None
) -> Litestar:
    """The application over these ports. `more` joins it as it is; `parts` is what those routes stand on, by name."""
    handlers = routes(more)
    app = Litestar(
        route_handlers=[*handlers, document_route(handlers, ports.settings.public_url)],
        state=State({"ports": ports, **(parts or {})}),
        exception_handlers=EXCEPTION_HANDLERS,
        openapi_config=None,
        logging_config=None,
        request_max_body_size=None,  # wire/reading.py refuses what is too large, per call
        before_send=[_allow],
        debug=False,
    )
    app.state.methods = {route.path_format: ", ".join(sorted(route.methods)) for route in app.routes}
    return app


async def _allow(message: Message, scope: Scope) -> None:
    """OPTIONS names every method of its path: Litestar's own answer knows those that were registered first."""
    if scope.get("method") == "OPTIONS" and message["type"] == "http.response.start":
        methods = scope["litestar_app"].state.methods.get(scope.get("path_template"))
        if methods is not None and message["status"] == 204:
            MutableScopeHeaders.from_message(message)["allow"] = methods


def routes(more: Sequence[ControllerRouterHandler] = ()) -> list[ControllerRouterHandler]:
    """Every route, with its guards."""
    of_an_instance = Router(
        INSTANCE_PATH,
        guards=[instance_guard],
        security=[{"clientToken": []}],
        route_handlers=[
            *instance_calls.HANDLERS,
            *settings_calls.HANDLERS,
            *sending.HANDLERS,
            *queue_calls.HANDLERS,
        ],
    )
    return [partner.router, of_an_instance, *health.HANDLERS, *more]
