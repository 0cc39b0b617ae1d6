"""The calls that change an instance: `PUT update-...`, all answered with `{"value": true}`."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from litestar import put
from litestar.handlers import HTTPRouteHandler

from tomada.callbacks import replay
from tomada.instances import configure
from tomada.instances.model import CALLBACK_FIELDS
from tomada.wire.bodies import (
    EveryUrl,
    NotifySentByMe,
    OptionalTextValue,
    QueueSettings,
    SwitchValue,
    TextValue,
    UrlValue,
)
from tomada.wire.credentials import instance_of
from tomada.wire.openapi import operation
from tomada.wire.reading import AnyRequest, ports_of, read_body
from tomada.wire.replies import Done

_WEBHOOK_TAGS = ["webhooks"]
_TAGS = ["instance"]

# Path after `update-webhook-` -> which URL it sets. `receive` is an old misspelling that clients copied.
WEBHOOK_PATHS = {
    "delivery": "delivery",
    "received": "received",
    "receive": "received",
    "received-delivery": "receivedAndDelivery",
    "disconnected": "disconnected",
    "connected": "connected",
    "message-status": "messageStatus",
    "chat-presence": "presenceChat",
}
SWITCH_PATHS = {
    "update-call-reject-auto": "call_reject_auto",
    "update-auto-read-message": "auto_read_message",
    "update-auto-read-status": "auto_read_status",
}


def _webhook_route(path: str, field: str) -> HTTPRouteHandler:
    async def set_webhook(request: AnyRequest) -> Done:
        body = await read_body(request, UrlValue)
        ports = ports_of(request)
        await configure.set_callback(ports.instances, instance_of(request), ports.check_url, field, body.value)
        await _switch_on(request, body.value)
        return Done()

    set_webhook.__doc__ = f"Set the URL of this callback ({field.removesuffix('_callback_url')})."
    return _put(path, UrlValue, set_webhook, _WEBHOOK_TAGS)


async def _switch_on(request: AnyRequest, url: str | None) -> None:
    """Whoever sets a URL anew wants it called, also if it was disabled; what it missed waits for a replay."""
    if url:
        instance = instance_of(request)
        await replay.switch_on(ports_of(request).pool, instance.account_id, instance.id, url)


def _switch_route(path: str, field: str) -> HTTPRouteHandler:
    async def set_switch(request: AnyRequest) -> Done:
        body = await read_body(request, SwitchValue)
        await configure.set_switch(ports_of(request).instances, instance_of(request), field, body.value)
        return Done()

    set_switch.__doc__ = f"Turn {field.replace('_', ' ')} on or off."
    return _put(path, SwitchValue, set_switch, _TAGS)


def _put(
    path: str, body: type[msgspec.Struct], call: Callable[[AnyRequest], Awaitable[Done]], tags: list[str]
) -> HTTPRouteHandler:
    call.__name__ = path.replace("-", "_")
    return put(f"/{path}", operation_class=operation(body), tags=tags, operation_id=f"put-{path}")(call)


@put("/update-every-webhooks", operation_class=operation(EveryUrl), tags=_WEBHOOK_TAGS)
async def update_every_webhooks(request: AnyRequest) -> Done:
    """Set every callback URL to this one."""
    body = await read_body(request, EveryUrl)
    ports = ports_of(request)
    await configure.set_every_callback(
        ports.instances, instance_of(request), ports.check_url, body.value, body.notify_sent_by_me
    )
    await _switch_on(request, body.value)
    return Done()


@put("/update-notify-sent-by-me", operation_class=operation(NotifySentByMe), tags=_WEBHOOK_TAGS)
async def update_notify_sent_by_me(request: AnyRequest) -> Done:
    """Whether messages that the number itself sends are told too."""
    body = await read_body(request, NotifySentByMe)
    await configure.set_switch(
        ports_of(request).instances, instance_of(request), "notify_sent_by_me", body.notify_sent_by_me
    )
    return Done()


@put("/update-name", operation_class=operation(TextValue), tags=_TAGS)
async def update_name(request: AnyRequest) -> Done:
    """Give the instance another name."""
    body = await read_body(request, TextValue)
    await configure.rename(ports_of(request).instances, instance_of(request), body.value)
    return Done()


@put("/update-call-reject-message", operation_class=operation(OptionalTextValue), tags=_TAGS)
async def update_call_reject_message(request: AnyRequest) -> Done:
    """The text sent to a caller whose call was rejected."""
    body = await read_body(request, OptionalTextValue)
    await configure.set_call_reject_message(ports_of(request).instances, instance_of(request), body.value)
    return Done()


@put("/update-queue-settings", operation_class=operation(QueueSettings), tags=["queue"])
async def update_queue_settings(request: AnyRequest) -> Done:
    """Whether messages are refused instead of queued while the instance is not connected."""
    body = await read_body(request, QueueSettings)
    on = not body.disable_enqueue_when_disconnected
    await configure.set_switch(ports_of(request).instances, instance_of(request), "enqueue_when_disconnected", on)
    return Done()


HANDLERS: list[HTTPRouteHandler | Any] = [
    *(_webhook_route(f"update-webhook-{path}", CALLBACK_FIELDS[name]) for path, name in WEBHOOK_PATHS.items()),
    *(_switch_route(path, field) for path, field in SWITCH_PATHS.items()),
    update_every_webhooks,
    update_notify_sent_by_me,
    update_name,
    update_call_reject_message,
    update_queue_settings,
]
