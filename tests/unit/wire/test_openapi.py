"""The OpenAPI document names every route, its body and its errors."""

from typing import Any

import msgspec
import pytest
from litestar import Litestar

from tomada.wire import callback_calls, lifecycle_calls, operator
from tomada.wire.api import build_app, routes
from tomada.wire.openapi import document_of
from tomada.wire.ports import Ports

_MORE = (lifecycle_calls.router, callback_calls.router, operator.router)


@pytest.fixture(scope="module")
def app() -> Litestar:
    """The application over no ports: its routes alone."""
    nothing: Any = None
    names = [name for name in Ports.__struct_fields__ if name != "settings"]
    return build_app(Ports(**dict.fromkeys(names, nothing)), _MORE)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """Its document, with the routes that app.py adds."""
    return document_of(routes(_MORE), "https://tomada.example")


def test_every_route_is_described(app: Litestar, document: dict[str, Any]) -> None:
    """Each route of the router stands in the document, with words, a success and flat errors."""
    routed = {(route.path_format, method) for route in app.routes for method in route.methods if method != "OPTIONS"}
    described = {(path, method.upper()) for path, item in document["paths"].items() for method in item}
    assert routed - described == {("/v1/openapi.json", "GET")}
    for path, item in document["paths"].items():
        for operation in item.values():
            assert operation["description"], path
            assert {"200", "201", "202"} & set(operation["responses"]), path
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
    events = document["paths"]["/v1/instances/{instance_id}/events"]["get"]["parameters"]
    assert [parameter["name"] for parameter in events if parameter["in"] == "query"] == [
        *("type", "state", "sinceMs", "untilMs", "cursor", "limit")
    ]
    dead = document["paths"]["/v1/dead-letters"]["get"]["parameters"]
    assert [parameter["name"] for parameter in dead] == ["instanceId", "cursor", "limit"]
    assert document["servers"] == [{"url": "https://tomada.example"}]


def test_failures_of_some_routes(document: dict[str, Any]) -> None:
    """409 and its header stand at create, 504 where a machine is waited for, 404 where /v1 names what may be gone."""
    create = document["paths"]["/instances/integrator/on-demand"]["post"]
    header = next(each for each in create["parameters"] if each["in"] == "header")
    assert (header["name"], header["required"]) == ("Idempotency-Key", False)
    assert header["description"]
    replay = document["paths"]["/v1/replays/{replay_id}"]["get"]
    code = document["paths"]["/instances/{instance_id}/token/{token}/qr-code"]["get"]
    for operation, status in ((create, "409"), (replay, "404"), (code, "504")):
        schema = operation["responses"][status]["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/Failed"}
        assert {"400", "503"} <= set(operation["responses"])
    listing = document["paths"]["/instances"]["get"]
    assert not {"404", "409", "504"} & set(listing["responses"])


def test_every_query_is_described(document: dict[str, Any]) -> None:
    """What a description calls its query are the parameters, in that order."""
    for path, item in document["paths"].items():
        for operation in item.values():
            told = operation["description"].partition("Query: ")[2].partition(".")[0].split(", ")
            names = [one["name"] for one in operation.get("parameters", []) if one["in"] == "query"]
            assert not told[0] or [name.split(" ")[0] for name in told] == names, path


def test_valid_answers_validate(document: dict[str, Any]) -> None:
    """Whatever fits one of several schemas is valid: a whole number is a number, and `Sent` has fields to spare."""
    text = msgspec.json.encode(document).decode()
    sent = document["paths"]["/instances/{instance_id}/token/{token}/send-text"]["post"]["responses"]["200"]
    delay = document["components"]["schemas"]["Item"]["properties"]["DelayMessage"]

    assert "oneOf" not in text
    assert len(sent["content"]["application/json"]["schema"]["anyOf"]) == 2
    assert [kind["type"] for kind in delay["anyOf"]] == ["integer", "number"]


def test_metrics_are_text(document: dict[str, Any]) -> None:
    """And not JSON."""
    content = document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]

    assert [kind.partition(";")[0] for kind in content] == ["text/plain"]
