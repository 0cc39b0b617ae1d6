"""The operator's door, and what stands behind it. It opens to TOMADA_OPERATOR_TOKEN; without one it stays shut.

A partner token never opens it, and the operator's token opens nothing of a partner's: two ladders, no common rung.
"""

import hmac
from collections.abc import Callable
from typing import NamedTuple

from litestar.handlers import BaseRouteHandler
from prometheus_client import CollectorRegistry

from tomada.accounts.store import AccountStore
from tomada.errors import Unauthorized
from tomada.instances.lifecycle import Terms
from tomada.instances.lifecycle_store import PostgresLifecycle
from tomada.kit.sealing import Sealer, token_hash
from tomada.postgres.pool import Pool
from tomada.wire.credentials import AnyConnection, peer_of
from tomada.wire.ports import Ports
from tomada.wire.reading import AnyRequest

ACTOR = "operator"
_HINT = "Send Authorization: Bearer <TOMADA_OPERATOR_TOKEN>; without one these calls stay shut."


class OperatorParts(NamedTuple):
    """What these routes stand on; `token` None closes them."""

    pool: Pool
    accounts: AccountStore
    sealer: Sealer
    lifecycle: PostgresLifecycle
    terms: Terms
    nudge: Callable[[], None]
    registry: CollectorRegistry
    token: str | None


def operator_guard(connection: AnyConnection, _handler: BaseRouteHandler) -> None:
    """Raises Unauthorized unless the operator's token is set and sent."""
    ports: Ports = connection.app.state.ports
    parts: OperatorParts = connection.app.state.operator
    authorization = connection.headers.get("authorization", "")
    with ports.logins.guarding(peer_of(connection), "operator", authorization):
        expected = token_hash(parts.token) if parts.token else None
        scheme, _, token = authorization.partition(" ")
        sent = token_hash(token.strip())
        if expected is None or scheme.lower() != "bearer" or not hmac.compare_digest(sent, expected):
            raise Unauthorized(hint=_HINT)


def parts_of(request: AnyRequest) -> OperatorParts:
    """The parts that build_app was given."""
    parts: OperatorParts = request.app.state.operator
    return parts
