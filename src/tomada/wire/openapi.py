"""The OpenAPI document: Litestar makes it from the routes; here are the bodies, which we read ourselves."""

from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from typing import Any

import msgspec
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import (
    Components,
    OpenAPIMediaType,
    Operation,
    Reference,
    RequestBody,
    Schema,
    SecurityScheme,
    Server,
)

from tomada.wire.bodies import BODIES

_REFERENCE = "#/components/schemas/{name}"
DESCRIPTION = (
    "A self-hosted PlugzAPI: WhatsApp instances on demand. Errors are one flat object with a text `error`; "
    "see docs/wire.md for every status."
)


@cache
def with_body(body: type[msgspec.Struct], required: bool = True) -> type[Operation]:
    """The operation_class of a route that reads this body."""
    described = RequestBody(
        content={"application/json": OpenAPIMediaType(schema=Reference(ref=_REFERENCE.format(name=body.__name__)))},
        required=required,
    )

    @dataclass
    class OperationWithBody(Operation):
        request_body: RequestBody | Reference | None = field(default_factory=lambda: described)

        def __post_init__(self) -> None:
            self.request_body = described

    return OperationWithBody


def document(public_url: str | None) -> OpenAPIConfig:
    """The configuration of /v1/openapi.json."""
    _, schemas = msgspec.json.schema_components(BODIES, ref_template=_REFERENCE)
    return OpenAPIConfig(
        title="Tomada",
        version=version("tomada"),
        description=DESCRIPTION,
        path="/v1",
        servers=[Server(url=public_url)] if public_url else [Server(url="/")],
        components=Components(
            schemas={name: _schema(schema) for name, schema in schemas.items()},
            security_schemes={
                "partner": SecurityScheme(type="http", scheme="bearer", description="The partner token."),
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


def _schema(plain: dict[str, Any]) -> Schema:
    """msgspec's JSON schema as Litestar's object."""
    return _RawSchema(plain)


class _RawSchema(Schema):
    """A schema that is written already."""

    def __init__(self, plain: dict[str, Any]) -> None:
        super().__init__()
        self._plain = plain

    def to_schema(self) -> dict[str, Any]:
        """The schema itself."""
        return self._plain
