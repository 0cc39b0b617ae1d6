"""The partner's lifecycle calls: subscription, cancellation, deletion, and the receipt of what a deletion erased.

They carry id and token in the path *and* a partner credential; the three must belong together. Bodies are optional
where clients send none, `[]` or an empty form (docs/wire.md). A 201 is answered after the commit; the sweeper is
nudged, so that a deletion begins at once, and a new machine does not wait for the former one's.
"""

import hmac
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import msgspec
from litestar import Router, delete, get, post, put
from litestar.params import FromPath

from tomada.errors import BadInput, NotFound
from tomada.instances import subscriptions
from tomada.instances.deletion import Receipt
from tomada.instances.lifecycle import Terms
from tomada.instances.lifecycle_store import PostgresLifecycle
from tomada.instances.subscriptions import BATCH_MAX, BatchItem, BatchOutcome, Settled
from tomada.kit.sealing import token_hash
from tomada.wire.credentials import account_of, partner_guard
from tomada.wire.openapi import operation
from tomada.wire.reading import AnyRequest, ports_of, read_body, read_optional_body
from tomada.wire.replies import Done

_SECURITY = [{"partner": list[str]()}]
_TAGS = ["partner"]
_PATH = "/instances/{instance_id:str}/token/{token:str}/integrator"


class SubscriptionBody(msgspec.Struct, kw_only=True, rename="camel"):
    """POST subscription: `withCalls` adds calls."""

    with_calls: bool | None = None


class UpdateBody(msgspec.Struct, kw_only=True, rename="camel"):
    """PUT subscription/update: only `withCalls: true` means something; a downgrade is a cancellation."""

    with_calls: bool | None = True


class BatchEntry(msgspec.Struct):
    """One instance to delete."""

    id: str
    token: str


class BatchBody(msgspec.Struct):
    """POST batch-delete."""

    instances: list[BatchEntry]


class BatchResults(msgspec.Struct, frozen=True):
    """Of batch-delete: one outcome for each instance, in the order of the body."""

    results: list[BatchOutcome]


async def _instance_id(request: AnyRequest) -> str:
    """The instance of the path, if its token and its account are the caller's. Raises NotFound."""
    instance_id, token = request.path_params["instance_id"], request.path_params["token"]
    return await _owned(request, BatchItem(instance_id, token_hash(token)))


async def _owned(request: AnyRequest, item: BatchItem) -> str:
    found = await ports_of(request).instances.find(item.id)
    if (
        found is None
        or found.instance.account_id != account_of(request).id
        or not hmac.compare_digest(found.token_hash, item.token_hash)
    ):
        raise NotFound
    return item.id


class LifecycleParts(NamedTuple):
    """What these routes stand on; `nudge` tells the sweeper to look now."""

    store: PostgresLifecycle
    terms: Terms
    nudge: Callable[[], None]


def _parts(request: AnyRequest) -> LifecycleParts:
    parts: LifecycleParts = request.app.state.lifecycle
    return parts


@post(
    f"{_PATH}/on-demand/subscription",
    status_code=201,
    security=_SECURITY,
    tags=_TAGS,
    operation_class=operation(SubscriptionBody, required=False),
)
async def subscribe(request: AnyRequest) -> Settled:
    """Subscribe: a trial becomes paid for; an expired instance gets a new machine."""
    body = await read_optional_body(request, SubscriptionBody)
    instance_id = await _instance_id(request)
    settled = await subscriptions.subscribe(
        _parts(request).store,
        _parts(request).terms,
        account_of(request).id,
        instance_id,
        with_calls=bool(body.with_calls),
    )
    _parts(request).nudge()
    return settled


@put(
    [f"{_PATH}/on-demand/subscription/update", f"{_PATH}/subscription/update"],
    status_code=201,
    security=_SECURITY,
    tags=_TAGS,
    operation_class=operation(UpdateBody, required=False),
)
async def update(request: AnyRequest) -> Settled:
    """Add calls to a subscription."""
    body = await read_optional_body(request, UpdateBody)
    if body.with_calls is False:
        raise BadInput("withCalls can only be true; to go without calls, cancel and subscribe anew")
    return await subscriptions.update_subscription(
        _parts(request).store, account_of(request).id, await _instance_id(request)
    )


@post(f"{_PATH}/on-demand/cancel", status_code=201, security=_SECURITY, tags=_TAGS)
async def cancel(request: AnyRequest) -> Settled:
    """Cancel; the instance works until `due`."""
    settled = await subscriptions.cancel(
        _parts(request).store, _parts(request).terms, account_of(request).id, await _instance_id(request)
    )
    _parts(request).nudge()
    return settled


@delete(f"{_PATH}/on-demand/delete", status_code=200, security=_SECURITY, tags=_TAGS)
async def remove(request: AnyRequest) -> Done:
    """Delete an ended instance for good."""
    await subscriptions.delete(
        _parts(request).store, _parts(request).terms, account_of(request).id, await _instance_id(request)
    )
    _parts(request).nudge()
    return Done()


@post(
    "/instances/integrator/on-demand/batch-delete",
    status_code=200,
    security=_SECURITY,
    tags=_TAGS,
    operation_class=operation(BatchBody),
)
async def remove_many(request: AnyRequest) -> BatchResults:
    """Delete up to 100 ended instances; one outcome each, a refusal stops none of the others."""
    body = await read_body(request, BatchBody)
    if not 1 <= len(body.instances) <= BATCH_MAX:
        raise BadInput(f"instances: from 1 to {BATCH_MAX} entries")
    items = [BatchItem(entry.id, token_hash(entry.token)) for entry in body.instances]
    outcomes = await subscriptions.batch_delete(
        _parts(request).store, _parts(request).terms, account_of(request).id, items, partial(_owned, request)
    )
    _parts(request).nudge()
    return BatchResults(outcomes)


@get(
    "/v1/instances/{instance_id:str}/erasure-receipt",
    security=_SECURITY,
    tags=["v1"],
    operation_class=operation(fails=(404,)),
)
async def receipt(request: AnyRequest, instance_id: FromPath[str]) -> Receipt:
    """What the instance's last deletion removed, when, and the digest of that list."""
    return await _parts(request).store.receipt(account_of(request).id, instance_id)


router = Router("/", guards=[partner_guard], route_handlers=[subscribe, update, cancel, remove, remove_many, receipt])
