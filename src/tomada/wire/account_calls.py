"""/v1/accounts: what the operator may do with integrators. Each of these stands on the command line, too.

Secrets are answered once, when they are made. Times are epoch milliseconds. Every change is in the account's audit log
with the actor `operator`.
"""

from typing import Any

import msgspec
from litestar import get, patch, post, put
from litestar.params import FromPath
from msgspec import UNSET, UnsetType

from tomada.accounts import audit, manage
from tomada.accounts.model import INSTANCES_MAX_DEFAULT, Account, Rotated
from tomada.errors import AccountNotFound
from tomada.wire.openapi import operation
from tomada.wire.operator_parts import ACTOR, parts_of
from tomada.wire.reading import AnyRequest, number_of, read_body, read_optional_body

_ACCOUNT = "/v1/accounts/{account_id:str}"


class AccountBody(msgspec.Struct, kw_only=True, rename="camel"):
    """POST /v1/accounts. Limits per time are set afterwards, by PATCH."""

    name: str
    instances_max: int = INSTANCES_MAX_DEFAULT
    client_token: bool = False


class LimitsBody(msgspec.Struct, kw_only=True, rename="camel"):
    """PATCH: the limits to set; null takes a limit per time away."""

    instances_max: int | UnsetType = UNSET
    created_per_day_max: int | UnsetType | None = UNSET
    messages_per_minute_max: int | UnsetType | None = UNSET


class OverlapBody(msgspec.Struct, kw_only=True, rename="camel"):
    """POST rotate-...: how long the secret before works too; 0 ends it at once."""

    overlap_hours: float = manage.OVERLAP_HOURS_DEFAULT


class ClientTokenBody(msgspec.Struct, kw_only=True):
    """PUT client-token: whether the account's calls must carry the header Client-Token."""

    on: bool


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
    created_per_day_max: int | None
    messages_per_minute_max: int | None
    has_client_token: bool
    suspended_until_ms: int | None
    previous_token_until_ms: int | None


class NewAccountView(msgspec.Struct, frozen=True, rename="camel"):
    """A new account; its secrets are shown this once."""

    id: str
    name: str
    partner_token: str
    client_token: str | None
    signing_secret: str


class TokenView(msgspec.Struct, frozen=True, rename="camel"):
    """A new partner token, and until when the one before works too; null: it ended."""

    id: str
    partner_token: str
    previous_until_ms: int | None


class SecretView(msgspec.Struct, frozen=True, rename="camel"):
    """A new signing secret, and until when callbacks are signed with the one before too; null: it ended."""

    id: str
    signing_secret: str
    previous_until_ms: int | None


class ClientTokenView(msgspec.Struct, frozen=True, rename="camel"):
    """The account's Client-Token; null: the feature is off."""

    id: str
    client_token: str | None


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


@post("/v1/accounts", status_code=201, operation_class=operation(AccountBody))
async def create(request: AnyRequest) -> NewAccountView:
    """A new integrator with its secrets."""
    body, parts = await read_body(request, AccountBody), parts_of(request)
    made = await manage.create(
        parts.accounts,
        parts.sealer,
        body.name,
        instances_max=body.instances_max,
        with_client_token=body.client_token,
        actor=ACTOR,
    )
    return NewAccountView(made.id, made.name, made.partner_token, made.client_token, made.signing_secret)


@get("/v1/accounts")
async def list_accounts(request: AnyRequest) -> list[AccountView]:
    """All integrators, oldest first."""
    return [_view(account) for account in await manage.list_accounts(parts_of(request).accounts)]


@patch(_ACCOUNT, operation_class=operation(LimitsBody, fails=(404,)))
async def set_limits(request: AnyRequest, account_id: FromPath[str]) -> AccountView:
    """Set limits; they hold from the next call on."""
    body = await read_body(request, LimitsBody)
    given = {name: value for name in LimitsBody.__struct_fields__ if (value := getattr(body, name)) is not UNSET}
    return _view(await manage.set_limits(parts_of(request).accounts, account_id, given, ACTOR))


@post(f"{_ACCOUNT}/rotate-token", status_code=200, operation_class=operation(OverlapBody, required=False, fails=(404,)))
async def rotate(request: AnyRequest, account_id: FromPath[str]) -> TokenView:
    """A new partner token."""
    made = await _rotate(request, account_id, manage.rotate_partner_token)
    return TokenView(account_id, made.secret, made.previous_until_ms)


@post(
    f"{_ACCOUNT}/rotate-signing-secret",
    status_code=200,
    operation_class=operation(OverlapBody, required=False, fails=(404,)),
)
async def rotate_signing_secret(request: AnyRequest, account_id: FromPath[str]) -> SecretView:
    """A new secret for signing callbacks."""
    made = await _rotate(request, account_id, manage.rotate_signing_secret)
    return SecretView(account_id, made.secret, made.previous_until_ms)


async def _rotate(request: AnyRequest, account_id: str, how: Any) -> Rotated:
    body, parts = await read_optional_body(request, OverlapBody), parts_of(request)
    made: Rotated = await how(parts.accounts, parts.sealer, account_id, overlap_hours=body.overlap_hours, actor=ACTOR)
    return made


@post(f"{_ACCOUNT}/end-overlap", status_code=200, operation_class=operation(fails=(404,)))
async def end_overlap(request: AnyRequest, account_id: FromPath[str]) -> dict[str, str]:
    """The previous partner token and signing secret end now."""
    parts = parts_of(request)
    await manage.end_overlap(parts.accounts, parts.sealer, account_id, actor=ACTOR)
    return {"id": account_id}


@put(f"{_ACCOUNT}/client-token", status_code=200, operation_class=operation(ClientTokenBody, fails=(404,)))
async def client_token(request: AnyRequest, account_id: FromPath[str]) -> ClientTokenView:
    """Demand the header Client-Token, or no more. Switching on what is on answers the present token."""
    body, parts = await read_body(request, ClientTokenBody), parts_of(request)
    token = await manage.set_client_token(parts.accounts, parts.sealer, account_id, on=body.on, actor=ACTOR)
    return ClientTokenView(account_id, token)


@post(f"{_ACCOUNT}/suspend", status_code=200, operation_class=operation(SuspendBody, required=False, fails=(404,)))
async def suspend(request: AnyRequest, account_id: FromPath[str]) -> SuspendedView:
    """The account does not pay: its instances stop at once, and end after some days."""
    body, parts = await read_optional_body(request, SuspendBody), parts_of(request)
    days = parts.terms.suspension_days if body.days is None else body.days
    until_ms = await parts.lifecycle.suspend(account_id, days, ACTOR)
    parts.nudge()
    return SuspendedView(account_id, until_ms)


@post(f"{_ACCOUNT}/resume", status_code=200, operation_class=operation(fails=(404,)))
async def resume(request: AnyRequest, account_id: FromPath[str]) -> SuspendedView:
    """The account has paid."""
    await parts_of(request).lifecycle.resume(account_id, ACTOR)
    return SuspendedView(account_id, None)


@get(f"{_ACCOUNT}/audit", operation_class=operation(query=("after", "limit"), fails=(404,)))
async def audit_log(request: AnyRequest, account_id: FromPath[str]) -> list[AuditRow]:
    """The account's audit log after a number. Query: after, limit."""
    after = number_of(request, "after", 0, 1 << 53, smallest=0)
    rows = await audit.page(parts_of(request).pool, account_id, after, number_of(request, "limit", 100, 500))
    if not rows and not await audit.is_kept(parts_of(request).pool, account_id):
        raise AccountNotFound
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


def _view(account: Account) -> AccountView:
    return AccountView(**{name: getattr(account, name) for name in AccountView.__struct_fields__})


HANDLERS: list[Any] = [
    *(create, list_accounts, set_limits, rotate, rotate_signing_secret, end_overlap, client_token),
    *(suspend, resume, audit_log),
]
