"""The OpenAPI document names every route, its body and its errors."""

from typing import Any

import pytest
from litestar import Litestar

from tomada.wire import lifecycle_calls
from tomada.wire.api import build_app, routes
from tomada.wire.openapi import document_of
from tomada.wire.ports import Ports


@pytest.fixture(scope="module")
def app() -> Litestar:
    """The application over no ports: its routes alone."""
    nothing: Any = None
    names = [name for name in Ports.__struct_fields__ if name != "settings"]
    return build_app(Ports(**dict.fromkeys(names, nothing)), [lifecycle_calls.router])


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """Its document, with the lifecycle's routes."""
    return document_of(routes([lifecycle_calls.router]), "https://tomada.example")


def test_every_route_is_described(app: Litestar, document: dict[str, Any]) -> None:
    """Each route of the router stands in the document, with words, a success and flat errors."""
    routed = {(route.path_format, method) for route in app.routes for method in route.methods if method != "OPTIONS"}
    described = {(path, method.upper()) for path, item in document["paths"].items() for method in item}
    assert routed - described == {("/v1/openapi.json", "GET")}
    for path, item in document["paths"].items():
        for operation in item.values():
            assert operation["description"], path
            assert {"200", "201"} & set(operation["responses"]), path
            if "instances" in path:
                schema = operation["responses"]["400"]["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Failed"}


def test_operation_ids_are_unique(document: dict[str, Any]) -> None:
    """Generators of clients need that."""
    ids = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(ids) == len(set(ids))


def test_references_lead_somewhere(document: dict[str, Any]) -> None:
    """Every `$ref` has its schema, and every body is there."""
    schemas = document["components"]["schemas"]
    wanted: set[str] = set()

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                wanted.add(value["$ref"].removeprefix("#/components/schemas/"))
            for item in value.values():
                collect(item)
        elif isinstance(value, list):
            for item in value:
                collect(item)

    collect(document)
    assert wanted <= set(schemas)
    assert {"CreateBody", "SendText", "QueuePageBody", "SubscriptionBody", "Failed"} <= set(schemas)
    assert schemas["CreateBody"]["required"] == ["name"]


def test_query_and_security(document: dict[str, Any]) -> None:
    """The list names its query; partner calls and instance calls name their credentials."""
    listing = document["paths"]["/instances"]["get"]
    assert [parameter["name"] for parameter in listing["parameters"]] == ["page", "pageSize", "query", "middleware"]
    assert listing["security"] == [{"partner": []}]
    sending = document["paths"]["/instances/{instance_id}/token/{token}/send-text"]["post"]
    assert sending["security"] == [{"clientToken": []}]
    assert document["servers"] == [{"url": "https://tomada.example"}]
