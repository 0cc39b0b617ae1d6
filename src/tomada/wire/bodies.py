"""The bodies of today's calls, as clients send them. Optional fields may be null; unknown fields are ignored.

Field names are the wire's through `rename="camel"`. `str | int` stands where clients are known to send a number.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

MESSAGE_LENGTH_MAX = 65_536  # WhatsApp's own limit for a text
MENTIONS_MAX = 1_024  # a group holds no more people
SUBJECT_LENGTH_MAX = 255  # WhatsApp lets a group's subject have 100
MESSAGE_ID_LENGTH_MAX = 128  # ours have 22 characters, WhatsApp's 18 to 32; it is kept with every message

Phone = Annotated[str | int, Meta(description="Digits with country code, <id>-group, <id>@lid or <id>@newsletter.")]
MessageId = Annotated[str, Meta(max_length=MESSAGE_ID_LENGTH_MAX)]
Url = Annotated[str | None, Meta(description="https URL; empty clears it.")]


class CreateBody(msgspec.Struct, kw_only=True, rename="camel"):
    """POST /instances/integrator/on-demand."""

    name: Annotated[str, Meta(description="Name of the instance, 1 to 255 characters.")]
    session_name: Annotated[str | None, Meta(description="Shown by the phone under linked devices. Default: name.")] = (
        None
    )
    delivery_callback_url: Url = None
    received_callback_url: Url = None
    received_and_delivery_callback_url: Url = None
    disconnected_callback_url: Url = None
    connected_callback_url: Url = None
    message_status_callback_url: Url = None
    presence_chat_callback_url: Url = None
    call_reject_auto: bool | None = None
    call_reject_message: str | None = None
    auto_read_message: bool | None = None
    auto_read_status: bool | None = None
    is_device: bool | None = None
    business_device: bool | None = None
    disable_enqueue_when_disconnected: bool | None = None


class TextValue(msgspec.Struct):
    """A call that sets one text."""

    value: str


class OptionalTextValue(msgspec.Struct):
    """A call that sets or clears one text."""

    value: str | None


class SwitchValue(msgspec.Struct):
    """A call that turns something on or off."""

    value: bool


class UrlValue(msgspec.Struct):
    """PUT update-webhook-*: the URL, or an empty text or null to clear it."""

    value: str | None


class EveryUrl(msgspec.Struct, rename="camel"):
    """PUT update-every-webhooks."""

    value: str | None
    notify_sent_by_me: bool | None = None


class NotifySentByMe(msgspec.Struct, rename="camel"):
    """PUT update-notify-sent-by-me."""

    notify_sent_by_me: bool


class QueueSettings(msgspec.Struct, rename="camel"):
    """PUT update-queue-settings."""

    disable_enqueue_when_disconnected: bool


class GroupMentioned(msgspec.Struct):
    """A group named in a text."""

    phone: Phone
    subject: Annotated[str, Meta(max_length=SUBJECT_LENGTH_MAX)]


class SendText(msgspec.Struct, kw_only=True, rename="camel"):
    """POST send-text."""

    phone: Phone
    message: Annotated[str, Meta(min_length=1, max_length=MESSAGE_LENGTH_MAX)] | int | float
    delay_message: Annotated[float | None, Meta(description="Seconds before it is sent, 1 to 15.")] = None
    delay_typing: Annotated[float | None, Meta(description="Seconds of `typing` before it is sent, 1 to 15.")] = None
    message_id: Annotated[MessageId | None, Meta(description="The message that this one replies to.")] = None
    edit_message_id: Annotated[MessageId | None, Meta(description="The message whose text this one replaces.")] = None
    private_answer: bool | None = None
    mentioned: Annotated[list[Phone], Meta(max_length=MENTIONS_MAX)] | None = None
    group_mentioned: Annotated[list[GroupMentioned], Meta(max_length=MENTIONS_MAX)] | None = None


class QueuePageBody(msgspec.Struct, rename="camel"):
    """POST queue."""

    page_size: int | None = None
    paging_state: str | None = None
