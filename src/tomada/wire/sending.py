"""The calls that send. A 200 means: queued durably. What became of the message is told by callback.

While the instance is not connected a message waits in the queue, unless the instance was told not to queue then; such a
message is answered with 200 `{"value": false}`, as the service that clients know does.
"""

import math
from typing import Any

from litestar import post
from litestar.handlers import HTTPRouteHandler

from tomada.engine.port import GroupMention, Quote, Text
from tomada.errors import TooManyRequests
from tomada.wire.bodies import SendText
from tomada.wire.credentials import instance_of, messages_per_minute_of
from tomada.wire.openapi import operation
from tomada.wire.phones import chat_of
from tomada.wire.reading import AnyRequest, ports_of, read_body
from tomada.wire.replies import Done, Sent

DELAY_MAX_S = 15.0


@post("/send-text", status_code=200, operation_class=operation(SendText), tags=["messages"])
async def send_text(request: AnyRequest) -> Sent | Done:
    """Queue a text message."""
    body = await read_body(request, SendText)
    instance = instance_of(request)
    chat = chat_of(body.phone)
    content = _text(body, chat)
    if not instance.enqueue_when_disconnected and not instance.connected:
        return Done(value=False)
    check_rate(request)
    accepted = await ports_of(request).messages.accept(instance.id, chat, content, seconds(body.delay_message))
    return Sent(accepted.zaap_id, accepted.message_id, accepted.message_id)


def check_rate(request: AnyRequest) -> None:
    """Counts a message of the instance's account. Raises TooManyRequests if it has no more of this minute's."""
    limit = messages_per_minute_of(request)
    if limit is None:
        return
    wait_s = ports_of(request).rates.take(instance_of(request).account_id, limit)
    if wait_s:
        raise TooManyRequests(f"Your account may send {limit} messages a minute", wait_s)


def seconds(value: float | None) -> float | None:
    """A delay as clients send it: at most 15 s; None for none given, for a negative one and for what is no number."""
    if value is None or math.isnan(value) or value < 0:
        return None
    return min(value, DELAY_MAX_S)


def _text(body: SendText, chat: str) -> Text:
    replied_to, edited = ((message_id or "").strip() for message_id in (body.message_id, body.edit_message_id))
    return Text(
        message=str(body.message),  # one-time codes come as numbers
        quote=Quote(wa_id=replied_to, sender=chat) if replied_to else None,
        mentioned=tuple(chat_of(phone, "mentioned") for phone in body.mentioned or ()),
        group_mentioned=tuple(
            GroupMention(chat_of(group.phone, "groupMentioned"), group.subject) for group in body.group_mentioned or ()
        ),
        private_answer=bool(body.private_answer),
        edits_wa_id=edited or None,
        typing_s=seconds(body.delay_typing) or 0.0,
    )


HANDLERS: list[HTTPRouteHandler | Any] = [send_text]
