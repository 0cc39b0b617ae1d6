"""The queue of messages that wait to be sent, in the wire's two listings, and taking messages out of it.

A thousand texts may wait, of a megabyte each, so a page has room for some megabytes of them (messages/store.py). Where
that ends, so does a page of the listing that says whether there is more; of the old one, whose clients count by
`pageSize` and take a short page for the last, what remains is listed without its text.
"""

import base64
import binascii
import itertools
from typing import Any

import msgspec
from litestar import delete, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from tomada.errors import BadInput
from tomada.messages.store import Listed
from tomada.wire.bodies import QueuePageBody
from tomada.wire.credentials import instance_of
from tomada.wire.openapi import operation
from tomada.wire.reading import AnyRequest, number_of, ports_of, read_optional_body
from tomada.wire.replies import iso

PAGE_SIZE_DEFAULT = 20
PAGE_SIZE_MAX = 30
_OLD_PAGE_SIZE_MAX = 1000  # the whole queue
_DEFAULT_DELAY = -1
_TAGS = ["queue"]
_ZAAP_ID_LENGTH_MAX = 64


class Item(msgspec.Struct, kw_only=True, omit_defaults=False):
    """A waiting message, in the PascalCase of this one part of the wire."""

    id: str = msgspec.field(name="_id")
    zaap_id: str = msgspec.field(name="ZaapId")
    message_id: str = msgspec.field(name="MessageId")
    instance_id: str = msgspec.field(name="InstanceId")
    phone: str = msgspec.field(name="Phone")
    message: str = msgspec.field(name="Message")
    delay_message: int | float = msgspec.field(name="DelayMessage")
    delay_typing: int | float = msgspec.field(name="DelayTyping")
    is_trial: bool = msgspec.field(name="IsTrial")
    created: int = msgspec.field(name="Created")
    created_at: str = msgspec.field(name="CreatedAt")
    beta: bool = msgspec.field(name="Beta", default=False)


class OldListing(msgspec.Struct):
    """Of GET queue."""

    messages: list[Item]


class Listing(msgspec.Struct, rename="camel"):
    """Of POST queue: `pagingState` asks for the next page."""

    messages: list[Item]
    paging_state: str | None
    has_more: bool


class Count(msgspec.Struct):
    """Of GET queue/count."""

    count: int


@get("/queue", operation_class=operation(query=("page", "pageSize")), tags=_TAGS)
async def old_listing(request: AnyRequest) -> OldListing:
    """The waiting messages, by page and pageSize."""
    page = number_of(request, "page", 1, _OLD_PAGE_SIZE_MAX)
    size = number_of(request, "pageSize", PAGE_SIZE_DEFAULT, _OLD_PAGE_SIZE_MAX)
    instance = instance_of(request)
    messages = await ports_of(request).queue.page(instance.account_id, instance.id, size, skip=(page - 1) * size)
    return OldListing(_items(request, messages))


@post("/queue", status_code=200, operation_class=operation(QueuePageBody, required=False), tags=_TAGS)
async def listing(request: AnyRequest) -> Listing:
    """The waiting messages, in pages of at most 30."""
    body = await read_optional_body(request, QueuePageBody)
    size = max(1, min(body.page_size or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX))
    instance = instance_of(request)
    after = _after(body.paging_state)
    messages = await ports_of(request).queue.page(instance.account_id, instance.id, size + 1, after_number=after)
    shown = list(itertools.takewhile(lambda message: message.message is not None, messages[:size]))
    more = len(messages) > len(shown)
    return Listing(_items(request, shown), _state(shown[-1].number) if more else None, more)


@get("/queue/count", tags=_TAGS)
async def count(request: AnyRequest) -> Count:
    """How many messages wait."""
    instance = instance_of(request)
    return Count(await ports_of(request).queue.count(instance.account_id, instance.id))


@delete("/queue", status_code=200, tags=_TAGS)
async def clear(request: AnyRequest) -> dict[str, bool]:
    """Remove every message that is not being sent yet."""
    instance = instance_of(request)
    await ports_of(request).queue.cancel(instance.account_id, instance.id, None)
    return {"value": True}


@delete("/queue/{zaap_id:str}", status_code=200, tags=_TAGS)
async def remove(request: AnyRequest, zaap_id: FromPath[str]) -> dict[str, bool]:
    """Remove one message, by its zaapId or its messageId; false if it does not wait (any more)."""
    instance = instance_of(request)
    if len(zaap_id) > _ZAAP_ID_LENGTH_MAX or not zaap_id.isalnum():
        return {"value": False}
    removed = await ports_of(request).queue.cancel(instance.account_id, instance.id, zaap_id)
    return {"value": bool(removed)}


def _items(request: AnyRequest, messages: list[Listed]) -> list[Item]:
    instance = instance_of(request)
    return [_item(message, instance.id, instance.state == "trial") for message in messages]


def _item(message: Listed, instance_id: str, is_trial: bool) -> Item:
    return Item(
        id=message.zaap_id,
        zaap_id=message.zaap_id,
        message_id=message.message_id,
        instance_id=instance_id,
        phone=message.chat,
        message=message.message or "",
        delay_message=_DEFAULT_DELAY if message.delay_s is None else _plain(message.delay_s),
        delay_typing=_plain(message.typing_s),
        is_trial=is_trial,
        created=message.created_ms,
        created_at=iso(message.created_ms),
    )


def _plain(delay_s: float) -> int | float:
    """Without a fraction where there is none: clients read these fields as whole numbers."""
    whole = int(delay_s)
    return whole if whole == delay_s else delay_s


def _state(number: int) -> str:
    return base64.urlsafe_b64encode(str(number).encode()).decode()


def _after(state: str | None) -> int:
    """The number in a paging state. Raises BadInput for one that is not ours."""
    if not state:
        return 0
    try:
        number = int(base64.urlsafe_b64decode(state.encode("ascii")))
    except (ValueError, binascii.Error):
        raise BadInput("pagingState is not one that this call gave") from None
    if not 0 <= number < 2**63:
        raise BadInput("pagingState is not one that this call gave")
    return number


HANDLERS: list[HTTPRouteHandler | Any] = [old_listing, listing, count, clear, remove]
