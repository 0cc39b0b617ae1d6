"""The OpenAPI document, /v1/openapi.json. Litestar makes it from the routes; what we read ourselves is added here.

Its own pages are left out: they load scripts from other people's servers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import msgspec
from litestar import Litestar, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import (
    Components,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    Reference,
    RequestBody,
    Schema,
    SecurityScheme,
    Server,
)
from litestar.routes import HTTPRoute
from litestar.types import ControllerRouterHandler
from msgspec import UNSET, UnsetType

_REFERENCE = "#/components/schemas/{name}"
DESCRIPTION = (
    "A self-hosted PlugzAPI: WhatsApp instances on demand. Errors are one flat object with a text `error`; "
    "see docs/wire.md for every status."
)


class Failed(msgspec.Struct, frozen=True):
    """Every error: what is wrong, in words. Under /v1 `error` is a code, and `message` and `hint` are the words."""

    error: str
    message: str | UnsetType = UNSET
    hint: str | UnsetType = UNSET


_FAILED = _REFERENCE.format(name=Failed.__name__)
_FAILURES = {
    400: "The request is not understood, the instance unknown or ended",
    401: "The credential is missing or wrong",
    403: "The Client-Token is wrong, or a limit is reached",
    413: "The body is too large",
    415: "The body is not JSON",
    429: "A limit per minute is reached; Retry-After says how long to wait",
    503: "Not available just now; the words say whether something may have been done",
}
# Those that only some routes have, which say so: operation(fails=...).
_FAILURES_OF_SOME = {
    404: "What the path names is not there",
    409: "The first request with this Idempotency-Key is being answered",
    504: "The instance's machine did not answer in time",
}


@cache
def operation(
    body: type[msgspec.Struct] | None = None,
    *,
    required: bool = True,
    query: tuple[str, ...] = (),
    headers: tuple[tuple[str, str], ...] = (),
    fails: tuple[int, ...] = (),
) -> type[Operation]:
    """The operation_class of a route that reads these itself: a body, parts of the query, headers with what they mean.

    `fails` are the statuses of _FAILURES_OF_SOME that it answers.
    """
    parameters = [Parameter(name=name, param_in="query", schema=Schema(), required=False) for name in query]
    parameters += [
        Parameter(name=name, param_in="header", schema=Schema(type=OpenAPIType.STRING), description=words)
        for name, words in headers
    ]
    failures = {str(status): _failure(_FAILURES_OF_SOME[status]) for status in fails}

    @dataclass
    class ReadsItself(Operation):
        def __post_init__(self) -> None:
            if body is not None:
                reference = Reference(ref=_REFERENCE.format(name=body.__name__))
                self.request_body = RequestBody(
                    content={"application/json": OpenAPIMediaType(schema=reference)}, required=required
                )
            if parameters:
                self.parameters = [*(self.parameters or ()), *parameters]
            self.responses = {**(self.responses or {}), **failures}

    ReadsItself.body = body  # type: ignore[attr-defined]
    return ReadsItself


def _failure(words: str) -> OpenAPIResponse:
    return OpenAPIResponse(words, content={"application/json": OpenAPIMediaType(schema=Reference(ref=_FAILED))})


def _bodies(described: Litestar) -> set[type[msgspec.Struct]]:
    """What operation() was told of these routes."""
    classes = (
        handler.operation_class
        for route in described.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
    )
    return {body for operation_class in classes if (body := getattr(operation_class, "body", None)) is not None}


def document_route(handlers: Sequence[ControllerRouterHandler], public_url: str | None) -> HTTPRouteHandler:
    """The route that serves the document of these handlers, made when it is first asked for."""

    @cache
    def made() -> bytes:
        return msgspec.json.encode(document_of(handlers, public_url))

    @get("/v1/openapi.json", include_in_schema=False, sync_to_thread=False)
    def openapi_document() -> Response[bytes]:
        """The OpenAPI document."""
        return Response(made(), media_type="application/json")

    return openapi_document


def document_of(handlers: Sequence[ControllerRouterHandler], public_url: str | None) -> dict[str, Any]:
    """The document of these handlers: Litestar's, with the schemas of the bodies and the errors.

    It comes from an application of its own that is never served, because one that serves a document has Litestar's
    pages and their errors too.
    """
    described = Litestar(route_handlers=list(handlers), openapi_config=_configuration(public_url), logging_config=None)
    made: dict[str, Any] = described.openapi_schema.to_schema()
    _, ours = msgspec.json.schema_components((*_bodies(described), Failed), ref_template=_REFERENCE)
    schemas = made["components"].get("schemas", {})
    _any_of(made)
    for item in made["paths"].values():
        for each in item.values():
            if each.get("security"):
                each["responses"] |= _failures(each["security"])
    return {**made, "components": {**made["components"], "schemas": {**schemas, **ours}}}


def _any_of(schema: Any) -> None:
    """`oneOf` becomes `anyOf`, in place: a whole number is also a number, and replies have fields to spare."""
    if isinstance(schema, dict):
        if "oneOf" in schema:
            schema["anyOf"] = schema.pop("oneOf")
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            _any_of(part)


def _failures(security: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        str(status): _failure(words).to_schema()
        for status, words in _FAILURES.items()
        if status != 401 or {"clientToken": []} not in security
    }


def _configuration(public_url: str | None) -> OpenAPIConfig:
    """Litestar's configuration."""
    return OpenAPIConfig(
        title="Tomada",
        version=version("tomada"),
        description=DESCRIPTION,
        servers=[Server(url=public_url or "/")],
        components=Components(
            security_schemes={
                "partner": SecurityScheme(type="http", scheme="bearer", description="The partner token."),
                "operator": SecurityScheme(type="http", scheme="bearer", description="TOMADA_OPERATOR_TOKEN."),
                "clientToken": SecurityScheme(
                    type="apiKey",
                    security_scheme_in="header",
                    name="Client-Token",
                    description="If the account has one.",
                ),
            },
        ),
        use_handler_docstrings=True,
    )
