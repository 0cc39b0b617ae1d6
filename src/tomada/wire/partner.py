"""The partner's calls: create and list. Subscription, cancellation and deletion join them here (docs/lifecycle.md).

Both stand behind partner_guard; none of them takes the account from anywhere else.
"""

from litestar import Router, get, post

from tomada.errors import BadInput
from tomada.instances.listing import PAGE_MAX, PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, list_page
from tomada.instances.model import CALLBACK_FIELDS, NewInstance
from tomada.wire.bodies import CreateBody
from tomada.wire.creating import create_now, create_once
from tomada.wire.credentials import account_of, partner_guard
from tomada.wire.openapi import operation
from tomada.wire.reading import AnyRequest, decode, number_of, ports_of, read_json, text_of
from tomada.wire.replies import Created, InstancePage, listed_of

_SECURITY = [{"partner": list[str]()}]
_KEY = (
    "The same key with the same body answers the same instance for 48 h: what may be sent again. 1 to 255 characters."
)
_KINDS = {"web": False, "mobile": True}


@post(
    "/instances/integrator/on-demand",
    status_code=200,
    operation_class=operation(CreateBody, headers=(("Idempotency-Key", _KEY),), fails=(409,)),
    security=_SECURITY,
    tags=["partner"],
)
async def create_instance(request: AnyRequest) -> Created:
    """Create an instance. Its trial ends at `due` (epoch ms); it can be used at once."""
    raw = await read_json(request)
    wanted = _wanted(decode(raw, CreateBody))
    ports, key = ports_of(request), request.headers.get("idempotency-key")
    if key:
        created = await create_once(ports, account_of(request).id, key, raw, wanted)
    else:
        created = await create_now(ports, account_of(request).id, wanted)
    ports.logins.made(created.id, created.token)
    return created


@get(
    "/instances",
    operation_class=operation(query=("page", "pageSize", "query", "middleware")),
    security=_SECURITY,
    tags=["partner"],
)
async def list_instances(request: AnyRequest) -> InstancePage:
    """A page of the account's instances, oldest first. Query: page, pageSize, query (name part or id), middleware."""
    ports = ports_of(request)
    number = number_of(request, "page", 1, PAGE_MAX)
    size = number_of(request, "pageSize", PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)
    page = await list_page(
        ports.instances,
        ports.sealer,
        account_of(request).id,
        page=number,
        page_size=size,
        query=text_of(request, "query").replace("\0", "").strip() or None,
        is_device=_kind(text_of(request, "middleware")),
    )
    return InstancePage(
        total=page.total,
        total_page=-(-page.total // size),
        page_size=size,
        page=number,
        content=[listed_of(listed.instance, listed.token) for listed in page.content],
    )


def _kind(middleware: str) -> bool | None:
    if middleware and middleware not in _KINDS:
        raise BadInput(f"middleware must be one of {', '.join(_KINDS)}")
    return _KINDS.get(middleware)


def _wanted(body: CreateBody) -> NewInstance:
    urls = {field: getattr(body, field) for field in CALLBACK_FIELDS.values()}
    return NewInstance(
        name=body.name,
        session_name=body.session_name,
        call_reject_auto=bool(body.call_reject_auto),
        call_reject_message=body.call_reject_message,
        auto_read_message=bool(body.auto_read_message),
        auto_read_status=bool(body.auto_read_status),
        is_device=bool(body.is_device),
        business_device=bool(body.business_device),
        enqueue_when_disconnected=not body.disable_enqueue_when_disconnected,
        **urls,
    )


router = Router("/", guards=[partner_guard], route_handlers=[create_instance, list_instances])
