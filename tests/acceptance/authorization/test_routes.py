"""Every route of the OpenAPI document, called with no credential, wrong ones, and everybody else's.

The routes are read from the document of the running product, so a new route is tested by existing. open_routes.txt
names those that ask for nothing; it may only shrink.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.acceptance.product import Account, Instance, Product, http, running

OPEN_ROUTES = Path(__file__).with_name("open_routes.txt")
OPEN_ROUTES_MAX = 2  # only ever lower this
NOT_FOUND = (400, {"error": "Instance not found"})
UNAUTHORIZED = ("Unauthorized", "unauthorized")  # on the wire, and under /v1
MUST_SUBSCRIBE = (400, {"error": "To continue sending a message, you must subscribe to this instance again"})
OPERATOR = "operator-token-of-the-authorization-tests"
BODY = {
    "phone": "5511988887777",
    "message": "x",
    "name": "x",
    "value": "x",
    "instances": [{"id": "x", "token": "x"}],
    "notifySentByMe": True,
    "disableEnqueueWhenDisconnected": True,
}


class _Filled(dict[str, str]):
    """Values for a path; whatever is not told is some number."""

    def __missing__(self, name: str) -> str:
        return "5511988887777"


class Route(NamedTuple):
    """A route of the document; `security` names its credentials."""

    method: str
    path: str
    security: frozenset[str]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class World(NamedTuple):
    """Two accounts with instances, one with the Client-Token feature, and every route."""

    product: Product
    mine: Account
    theirs: Account
    guarded: Account
    victim: Instance
    sibling: Instance
    foreign: Instance
    routes: list[Route]

    def call(
        self, route: Route, instance_id: str, token: str, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Call a route for an instance, with a body that the route would take."""
        path = route.path.format_map(_Filled(instance_id=instance_id, token=token))
        body = None if route.method == "GET" else BODY
        reply = http(route.method, f"{self.product.base}{path}", body, headers=headers)
        return reply.status, reply.body

    def of(self, *security: str) -> list[Route]:
        """The routes with exactly these credentials."""
        return [route for route in self.routes if route.security == frozenset(security)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A product of its own, because its clock is moved, and because it must hear many wrong credentials a minute."""
    environment = {"TOMADA_FAILED_LOGINS_PER_MINUTE": "0", "TOMADA_OPERATOR_TOKEN": OPERATOR}
    with running(tmp_path_factory.mktemp("authorization") / "data", environment) as product:
        mine, theirs = product.create_account(), product.create_account()
        guarded = product.create_account("--client-token")
        document = http("GET", f"{product.base}/v1/openapi.json").body
        routes = [
            Route(method.upper(), path, frozenset(name for item in operation.get("security", []) for name in item))
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
        ]
        yield World(
            product,
            mine,
            theirs,
            guarded,
            mine.create_instance(name="victim"),
            mine.create_instance(name="sibling"),
            theirs.create_instance(name="foreign"),
            routes,
        )


def _seen(world: World) -> object:
    listed = world.mine.get("/instances").body
    return listed, world.victim.get("me").body, world.victim.get("queue/count").body


def test_routes_without_credentials_only_shrink(world: World) -> None:
    """The routes that ask for nothing are exactly those of the list, and the list does not grow."""
    listed = OPEN_ROUTES.read_text().splitlines()
    assert sorted(str(route) for route in world.of()) == sorted(listed)
    assert len(listed) <= OPEN_ROUTES_MAX


def test_every_other_route_is_of_a_known_kind(world: World) -> None:
    """A route names the partner's credential, the instance's or the operator's, and only one of them."""
    known = [*world.of(), *world.of("partner"), *world.of("clientToken"), *world.of("operator")]
    assert sorted(map(str, known)) == sorted(map(str, world.routes))
    assert len(world.routes) > 40
    for route in world.of("clientToken"):
        assert "{instance_id}/token/{token}" in route.path


def test_instance_routes(world: World) -> None:
    """Each refuses a missing, wrong, sibling's and foreign token and an unknown id; nothing changes."""
    before = _seen(world)
    victim, sibling, foreign = world.victim, world.sibling, world.foreign
    for route in world.of("clientToken"):
        for instance_id, token in (
            (victim.id, "-"),
            (victim.id, "A" * 24),
            (victim.id, victim.token.lower()),
            (victim.id, sibling.token),
            (victim.id, foreign.token),
            (foreign.id, victim.token),
            (victim.id, world.mine.partner_token),
            ("F" * 32, victim.token),
        ):
            assert world.call(route, instance_id, token, world.mine.headers) == NOT_FOUND, route
    assert _seen(world) == before


def test_instance_routes_with_client_token(world: World) -> None:
    """Where the account demands a Client-Token, each route refuses none, an empty, a wrong and a foreign one."""
    other = world.product.create_account("--client-token")
    instance = world.guarded.create_instance(name="guarded")
    for route in world.of("clientToken"):
        for empty in ({}, {"Client-Token": ""}):
            status, body = world.call(route, instance.id, instance.token, empty)
            assert (status, body) == (400, {"error": "your client-token is not configured"}), route
        for wrong in ("F" + "0" * 32 + "S", other.client_token or "", world.guarded.partner_token):
            status, body = world.call(route, instance.id, instance.token, {"Client-Token": wrong})
            assert (status, body) == (403, {"error": f"Client-Token {wrong} not allowed"}), route


def test_partner_routes(world: World) -> None:
    """Each refuses a missing and a wrong credential and an instance's token; nothing changes."""
    before = _seen(world)
    victim = world.victim
    for route in world.of("partner"):
        for headers in (
            {},
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer tmd_" + "x" * 43},
            {"Authorization": f"Bearer {victim.token}"},
            {"Authorization": f"Bearer {OPERATOR}"},
            {"Client-Token": "F" + "0" * 32 + "S"},
            {"Client-Token": victim.token},
        ):
            _is_unauthorized(world, route, headers)
    assert _seen(world) == before


def _is_unauthorized(world: World, route: Route, headers: dict[str, str]) -> None:
    status, body = world.call(route, world.victim.id, world.victim.token, headers)
    assert status == 401, route
    assert body["error"] in UNAUTHORIZED, route


def test_operator_routes(world: World) -> None:
    """Each refuses a missing and a wrong credential, a partner's and an instance's token; nothing changes.

    The operator's own token opens each, so none is shut just because there is no operator.
    """
    before = _seen(world)
    assert world.of("operator")
    for route in world.of("operator"):
        for token in (
            "",
            "wrong" * 8,
            OPERATOR[:-1],
            f"{OPERATOR}x",
            OPERATOR.upper(),
            world.mine.partner_token,
            world.victim.token,
        ):
            _is_unauthorized(world, route, {"Authorization": f"Bearer {token}"})
        _is_unauthorized(world, route, {})
        _is_unauthorized(world, route, {"Client-Token": world.guarded.client_token or ""})
        _is_unauthorized(world, route, {"Client-Token": OPERATOR})
    assert _seen(world) == before
    for route in world.of("operator"):
        with contextlib.suppress(json.JSONDecodeError):  # metrics are text; refusals never are
            right = world.call(route, world.victim.id, world.victim.token, {"Authorization": f"Bearer {OPERATOR}"})
            assert right[0] in (200, 201, 400, 404), (route, right)  # there is no account as in the path


def test_partner_routes_on_instances(world: World) -> None:
    """A partner's call on an instance needs that instance's token and its own account; nothing changes."""
    before = _seen(world)
    victim, foreign = world.victim, world.foreign
    routes = [route for route in world.of("partner") if "{token}" in route.path]
    assert routes
    for route in routes:
        for account, instance_id, token in (
            (world.theirs, victim.id, victim.token),
            (world.mine, victim.id, world.sibling.token),
            (world.mine, victim.id, "A" * 24),
            (world.mine, foreign.id, foreign.token),
            (world.mine, "F" * 32, victim.token),
        ):
            assert world.call(route, instance_id, token, account.headers) == NOT_FOUND, route
    assert _seen(world) == before


def test_other_accounts_see_nothing(world: World) -> None:
    """What one account reads or does with another's instance by its id is what it hears of an id that never was."""
    before = _seen(world)
    assert world.theirs.get(f"/instances?query={world.victim.id}").body["total"] == 0
    for route in world.of("partner"):
        if "{instance_id}" in route.path and "{token}" not in route.path:
            foreign = world.call(route, world.victim.id, "", world.theirs.headers)
            unknown = world.call(route, "F" * 32, "", world.theirs.headers)
            assert foreign == unknown, route
            assert world.victim.id not in str(foreign), route
    assert _seen(world) == before


def test_ended_and_deleted_instances(world: World) -> None:
    """After its trial each route of an instance says to subscribe, and after its deletion that there is none.

    But for the one with which clients tidy up.
    """
    instance = world.mine.create_instance(name="ends")
    world.product.advance_clock(48 * 3600 + 1)
    for route in world.of("clientToken"):
        expected = (200, {"value": True}) if route.path.endswith("/disconnect") else MUST_SUBSCRIBE
        assert world.call(route, instance.id, instance.token) == expected, route
    by_id = [it for it in world.of("partner") if "{instance_id}" in it.path and "{token}" not in it.path]
    assert by_id
    for route in by_id:
        assert world.call(route, instance.id, "", world.mine.headers)[0] < 500, route
    deleted = http("DELETE", instance.url("integrator/on-demand/delete"), headers=world.mine.headers)
    assert deleted.status == 200, deleted
    for route in world.of("clientToken"):
        assert world.call(route, instance.id, instance.token) == NOT_FOUND, route
    for route in world.of("partner"):
        if "{token}" in route.path:
            assert world.call(route, instance.id, instance.token, world.mine.headers) == NOT_FOUND, route
    for route in by_id:
        assert world.call(route, instance.id, "", world.mine.headers)[0] < 500, route


def test_no_credential_in_the_log(world: World) -> None:
    """After all these calls the product's log holds none of the credentials that were sent."""
    log = world.product.log.read_text()
    assert OPERATOR not in log
    for account in (world.mine, world.theirs, world.guarded):
        for secret in (account.partner_token, account.client_token):
            assert secret is None or secret not in log
    for instance in (world.victim, world.sibling, world.foreign):
        assert instance.token not in log
