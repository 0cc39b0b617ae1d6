"""The operator's calls: accounts over HTTP, and metrics. Behind TOMADA_OPERATOR_TOKEN; without it they answer 401.

A partner token never opens these, and the operator's token opens nothing of a partner's: two ladders, no common rung.
"""

import hmac
from collections.abc import Callable
from typing import NamedTuple

import msgspec
from litestar import Response, Router, get, post
from litestar.handlers import BaseRouteHandler
from litestar.params import FromPath
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from tomada.accounts import audit, manage
from tomada.accounts.model import INSTANCES_MAX_DEFAULT, Account
from tomada.accounts.store import AccountStore
from tomada.errors import Unauthorized
from tomada.instances.lifecycle import Terms
from tomada.instances.lifecycle_store import PostgresLifecycle
from tomada.kit.sealing import Sealer, token_hash
from tomada.postgres.pool import Pool
from tomada.wire.credentials import AnyConnection
from tomada.wire.openapi import operation
from tomada.wire.reading import AnyRequest, number_of, read_body, read_optional_body

ACTOR = "operator"


class AccountBody(msgspec.Struct, kw_only=True, rename="camel"):
    """POST /v1/accounts."""

    name: str
    instances_max: int = INSTANCES_MAX_DEFAULT
    client_token: bool = False


class SuspendBody(msgspec.Struct, kw_only=True):
    """POST suspend: days until the account's instances end, unless it is resumed before."""

    days: float | None = None


class AccountView(msgspec.Struct, frozen=True, rename="camel"):
    """An account without its secrets."""

    id: str
    name: str
    created_ms: int
    instances_max: int
    instances_live: int
    has_client_token: bool


class NewAccountView(msgspec.Struct, frozen=True, rename="camel"):
    """A new account; its tokens are shown this once."""

    id: str
    name: str
    partner_token: str
    client_token: str | None


class TokenView(msgspec.Struct, frozen=True, rename="camel"):
    """A new partner token; the one before ended."""

    id: str
    partner_token: str


class SuspendedView(msgspec.Struct, frozen=True, rename="camel"):
    """When the account's instances end (epoch ms of the lifecycle); null: they do not."""

    id: str
    until_ms: int | None


class AuditRow(msgspec.Struct, frozen=True, rename="camel"):
    """A row of the audit log; `hash` chains it to the one before."""

    number: int
    at_ms: int
    actor: str
    action: str
    subject: str
    detail: msgspec.Raw
    hash: str


def operator_guard(connection: AnyConnection, _handler: BaseRouteHandler) -> None:
    """Raises Unauthorized unless the operator's token is set and sent."""
    parts: OperatorParts = connection.app.state.operator
    expected = token_hash(parts.token) if parts.token else None
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    sent = token_hash(token.strip())
    if expected is None or scheme.lower() != "bearer" or not hmac.compare_digest(sent, expected):
        raise Unauthorized


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


def _parts(request: AnyRequest) -> OperatorParts:
    parts: OperatorParts = request.app.state.operator
    return parts


@post("/v1/accounts", status_code=201, operation_class=operation(AccountBody))
async def create(request: AnyRequest) -> NewAccountView:
    """A new integrator with its tokens."""
    body = await read_body(request, AccountBody)
    made = await manage.create(
        _parts(request).accounts,
        _parts(request).sealer,
        body.name,
        instances_max=body.instances_max,
        with_client_token=body.client_token,
    )
    return NewAccountView(made.id, made.name, made.partner_token, made.client_token)


@get("/v1/accounts")
async def list_accounts(request: AnyRequest) -> list[AccountView]:
    """All integrators, oldest first."""
    return [_view(account) for account in await manage.list_accounts(_parts(request).accounts)]


@post("/v1/accounts/{account_id:str}/rotate-token", status_code=200)
async def rotate(request: AnyRequest, account_id: FromPath[str]) -> TokenView:
    """A new partner token."""
    return TokenView(
        account_id, await manage.rotate_partner_token(_parts(request).accounts, _parts(request).sealer, account_id)
    )


@post("/v1/accounts/{account_id:str}/suspend", status_code=200, operation_class=operation(SuspendBody, required=False))
async def suspend(request: AnyRequest, account_id: FromPath[str]) -> SuspendedView:
    """The account does not pay: its instances stop at once, and end after some days."""
    body = await read_optional_body(request, SuspendBody)
    days = _parts(request).terms.suspension_days if body.days is None else body.days
    until_ms = await _parts(request).lifecycle.suspend(account_id, days, ACTOR)
    _parts(request).nudge()
    return SuspendedView(account_id, until_ms)


@post("/v1/accounts/{account_id:str}/resume", status_code=200)
async def resume(request: AnyRequest, account_id: FromPath[str]) -> SuspendedView:
    """The account has paid."""
    await _parts(request).lifecycle.resume(account_id, ACTOR)
    return SuspendedView(account_id, None)


@get("/v1/accounts/{account_id:str}/audit")
async def audit_log(request: AnyRequest, account_id: FromPath[str]) -> list[AuditRow]:
    """The account's audit log after a number. Query: after, limit."""
    after = number_of(request, "after", 1, 1 << 53) if "after" in request.query_params else 0
    rows = await audit.page(_parts(request).pool, account_id, after, number_of(request, "limit", 100, 500))
    return [
        AuditRow(
            row.number,
            row.at_ms,
            row.actor,
            row.action,
            row.subject,
            msgspec.Raw(row.detail.encode()),
            row.hash.hex(),
        )
        for row in rows
    ]


@get("/metrics")
async def metrics(request: AnyRequest) -> Response[bytes]:
    """Prometheus metrics."""
    return Response(generate_latest(_parts(request).registry), media_type=CONTENT_TYPE_LATEST)


def _view(account: Account) -> AccountView:
    return AccountView(**{name: getattr(account, name) for name in AccountView.__struct_fields__})


router = Router(
    "/",
    guards=[operator_guard],
    security=[{"operator": []}],
    tags=["operator"],
    route_handlers=[create, list_accounts, rotate, suspend, resume, audit_log, metrics],
)
