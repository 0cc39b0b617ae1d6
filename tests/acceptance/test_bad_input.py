"""Every route of the OpenAPI document with bodies, queries and paths that make no sense: words, and never a 5xx.

Credentials are right, so that what is wrong reaches the code behind the guards. The routes are read from the running
product: a new one is tested by existing.
"""

import json
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

from tests.acceptance.product import Account, Instance, Product, Reply, http

OPERATOR = "operator-token-of-the-acceptance-tests"
PLAUSIBLE: dict[str, object] = {
    "phone": "5511988887777",
    "message": "x",
    "name": "x",
    "value": "https://example.com/x",
    "url": "https://example.com/x",
    "instances": [{"id": "x", "token": "x"}],
    "notifySentByMe": True,
    "disableEnqueueWhenDisconnected": True,
}
NONSENSE: tuple[object, ...] = (
    *(None, True, -1, 0, 1.5, 2**53, 2**63, 10**400, 1e308),
    *("", "x" * 5000, "NaN", "Infinity", "-1", "\U0001f600", "\u202e", "a\u0000b", "' or 1=1 --", "\r\nX: y", "../.."),
    *([], [[]], [None], {}, {"a": {}}),
)
PATHS = ("%00", "x" * 3000, "%F0%9F%98%80", "..%2F..%2Fetc%2Fpasswd", "%25", "%ff", "' or 1=1 --", "-1", str(2**64))


class Route(NamedTuple):
    """A route, its credential and the fields of its body and query."""

    method: str
    path: str
    security: str
    fields: tuple[str, ...]
    query: tuple[str, ...]


def routes(product: Product) -> list[Route]:
    """Every route of the document."""
    document = http("GET", f"{product.base}/v1/openapi.json").body
    schemas = document["components"]["schemas"]
    found = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            schema = schemas[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
            security = next((name for item in operation.get("security", []) for name in item), "")
            query = tuple(one["name"] for one in operation.get("parameters", []) if one["in"] == "query")
            found.append(Route(method.upper(), path, security, tuple(schema.get("properties", {})), query))
    return found


class Caller:
    """Calls routes with the right credentials, for an instance and an account that nobody else needs."""

    def __init__(self, product: Product) -> None:
        self._base = product.base
        self.account: Account = product.create_account("--limit", "100000")
        self._victim = product.create_account().id
        self.instance: Instance = self.account.create_instance(name="Nonsense")

    def call(self, route: Route, body: object = None, query: str = "", **path: str) -> Reply:
        """One call; `path` replaces parts of the path."""
        parts = {
            "instance_id": self.instance.id,
            "token": self.instance.token,
            "account_id": self._victim,
            "phone": "5511988887777",
        } | path
        filled = route.path
        for name in [part.split("}")[0] for part in route.path.split("{")[1:]]:
            filled = filled.replace("{" + name + "}", parts.get(name, "none"))
        token = OPERATOR if route.security == "operator" else self.account.partner_token
        headers = {"Authorization": f"Bearer {token}"}
        return http(route.method, f"{self._base}{filled}{query}", body, headers=headers)


@pytest.fixture(scope="module")
def caller(product: Product) -> Caller:
    """One for all."""
    return Caller(product)


def is_in_words(reply: Reply) -> bool:
    """Whether a refusal is a clear JSON error, or the call simply worked."""
    if reply.status < 400:
        return True
    error: Any = reply.body.get("error") if isinstance(reply.body, dict) else None
    return reply.status < 500 and isinstance(error, str) and bool(error) and "Traceback" not in json.dumps(reply.body)


def test_bodies(product: Product, caller: Caller) -> None:
    """Each field of each body with each kind of nonsense, the other fields being plausible; and whole bodies of it."""
    called = 0
    for route in routes(product):
        if route.method == "GET" or "qr" in route.path:
            continue
        plausible = {name: PLAUSIBLE[name] for name in route.fields if name in PLAUSIBLE}
        bodies = [{**plausible, name: value} for name in route.fields for value in NONSENSE]
        for body in (*bodies, [], [1], "text", 7, True):
            reply = caller.call(route, body)
            assert is_in_words(reply), (route, body, reply)
            called += 1
    assert called > 500


def test_queries(product: Product, caller: Caller) -> None:
    """Each documented part of each query."""
    called = 0
    for route in routes(product):
        for name in route.query:
            for value in NONSENSE:
                text = quote(value if isinstance(value, str) else json.dumps(value)[:400])
                reply = caller.call(route, query=f"?{name}={text}")
                assert is_in_words(reply), (route, name, value, reply)
                called += 1
    assert called > 100


def test_paths(product: Product, caller: Caller) -> None:
    """Each part of each path."""
    for route in routes(product):
        for name in [part.split("}")[0] for part in route.path.split("{")[1:]]:
            for value in PATHS:
                body = None if route.method == "GET" else PLAUSIBLE
                reply = caller.call(route, body, **{name: quote(value, safe="%")})
                assert is_in_words(reply), (route, name, value, reply)
