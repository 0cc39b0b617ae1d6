"""The wire's replies, and how an instance is shown in them. Times are epoch ms unless a field is a text."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from tomada.instances.lifecycle import LIVE
from tomada.instances.model import Instance
from tomada.wire.ports import SessionStatus

# Our words; the wire's documents name the states but not their spelling (docs/wire.md). An open invoice is PENDING.
PAYMENT_STATUS = {
    "trial": "TRIAL",
    "active": "PAID",
    "in_cancellation": "IN_CANCELLATION",
    "canceled": "CANCELED",
    "expired": "PENDING",
}
# Conditions in which the session has keys: a phone is linked, whether or not it is connected just now.
_PAIRED = frozenset({"connecting", "connected", "disconnected", "replaced", "banned", "outdated", "failed"})


class Created(msgspec.Struct, frozen=True):
    """Of create: the instance and the end of its trial."""

    id: str
    token: str
    due: int


class Done(msgspec.Struct, frozen=True):
    """Of every call that changes something. False: a message that was not queued."""

    value: bool = True


class Sent(msgspec.Struct, frozen=True, rename="camel"):
    """Of every send: queued under these names; `id` equals `messageId`."""

    zaap_id: str
    message_id: str
    id: str


class Scannable(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of qr-code and qr-code/image: a code, or (connected) that none is needed."""

    value: str | None = None
    connected: bool = False


class Code(msgspec.Struct, frozen=True):
    """Of phone-code."""

    value: str


class Phone(msgspec.Struct, frozen=True):
    """Of phone; null if none is linked."""

    phone: str | None


class Status(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Of status. `error` is set although this is a success: the service that clients know does so."""

    connected: bool
    session: bool
    created: int
    error: str | None
    smartphone_connected: bool
    subscribed: bool | UnsetType  # absent in a trial, as clients expect
    phone: str | None
    condition: str  # ours: why it is not connected, finer than `error`
    reason: str | None  # ours: words of the engine


class DeviceNames(msgspec.Struct, frozen=True, rename={"session_name": "sessionName"}):
    """The linked device as the phone shows it."""

    session_name: str
    device_model: str


class Device(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Of device: the connected phone."""

    phone: str | None
    img_url: str | None
    about: str | None
    name: str | None
    device: DeviceNames
    original_device: str | None
    session_id: int
    is_business: bool


class Urls(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The callback URLs, as `me` and the list show them."""

    delivery_callback_url: str | None
    received_callback_url: str | None
    received_and_delivery_callback_url: str | None
    disconnected_callback_url: str | None
    connected_callback_url: str | None
    message_status_callback_url: str | None
    presence_chat_callback_url: str | None
    received_status_callback_url: str | None = None
    initial_data_callback_url: str | None = None
    receive_callback_sent_by_me: bool
    call_reject_auto: bool
    call_reject_message: str | None
    auto_read_message: bool
    auto_read_status: bool


class Me(Urls, frozen=True, kw_only=True, rename="camel"):
    """Of me."""

    id: str
    token: str
    name: str
    due: int
    connected: bool
    payment_status: str
    created: str
    phone: str | None


class Listed(Urls, frozen=True, kw_only=True, rename="camel"):
    """One instance of the list."""

    id: str
    token: str
    tenant: str
    name: str
    created: str
    due: int
    payment_status: str
    phone_connected: bool
    whatsapp_connected: bool
    middleware: str


class InstancePage(msgspec.Struct, frozen=True, rename="camel"):
    """Of GET /instances; `page` starts at 1."""

    total: int
    total_page: int
    page_size: int
    page: int
    content: list[Listed]


def iso(ms: int) -> str:
    """Epoch ms as `2026-01-01T00:00:00.000+00:00`."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


def linked(session: SessionStatus) -> SessionStatus:
    """Without the phone, if none is linked any more: the record of a session keeps the last one (machines/)."""
    if session.condition in _PAIRED:
        return session
    return SessionStatus(condition=session.condition, reason=session.reason)


def status_of(instance: Instance, session: SessionStatus) -> Status:
    """The status reply."""
    connected = session.condition == "connected"
    return Status(
        connected=connected,
        session=session.condition in _PAIRED,
        created=instance.created_ms,
        error=_status_error(session.condition),
        smartphone_connected=connected,
        subscribed=UNSET if instance.state == "trial" else instance.subscribed,
        phone=linked(session).phone,
        condition=session.condition,
        reason=session.reason,
    )


def _status_error(condition: str) -> str:
    if condition == "connected":
        return "You are already connected."
    return "You need to restore the session." if condition == "replaced" else "You are not connected."


def device_of(instance: Instance, session: SessionStatus) -> Device:
    """The device reply."""
    phone = linked(session)
    return Device(
        phone=phone.phone,
        img_url=None,
        about=None,
        name=phone.push_name,
        device=DeviceNames(instance.session_name, instance.session_name),
        original_device=phone.platform,
        session_id=0,
        is_business=phone.is_business,
    )


def me_of(instance: Instance, token: str) -> Me:
    """The reply of me."""
    return Me(
        id=instance.id,
        token=token,
        name=instance.name,
        due=instance.due_ms,
        connected=instance.connected,
        payment_status=payment_status(instance),
        created=iso(instance.created_ms),
        phone=instance.phone if instance.condition in _PAIRED else None,
        **_urls(instance),
    )


def listed_of(instance: Instance, token: str) -> Listed:
    """One instance as the list shows it."""
    return Listed(
        id=instance.id,
        token=token,
        tenant=instance.account_id,
        name=instance.name,
        created=iso(instance.created_ms),
        due=instance.due_ms,
        payment_status=payment_status(instance),
        phone_connected=instance.connected,
        whatsapp_connected=instance.connected,
        middleware="mobile" if instance.is_device else "web",
        **_urls(instance),
    )


def payment_status(instance: Instance) -> str:
    """What the wire calls the lifecycle's state, true even before the sweep that writes it."""
    if instance.suspended_until_ms is not None and instance.state in LIVE:
        return PAYMENT_STATUS["expired"]
    if instance.overdue:
        return PAYMENT_STATUS[{"in_cancellation": "canceled", "trial": "expired"}.get(instance.state, instance.state)]
    return PAYMENT_STATUS[instance.state]


def _urls(instance: Instance) -> dict[str, Any]:
    return {
        "delivery_callback_url": instance.delivery_callback_url,
        "received_callback_url": instance.received_callback_url,
        "received_and_delivery_callback_url": instance.received_and_delivery_callback_url,
        "disconnected_callback_url": instance.disconnected_callback_url,
        "connected_callback_url": instance.connected_callback_url,
        "message_status_callback_url": instance.message_status_callback_url,
        "presence_chat_callback_url": instance.presence_chat_callback_url,
        "receive_callback_sent_by_me": instance.notify_sent_by_me,
        "call_reject_auto": instance.call_reject_auto,
        "call_reject_message": instance.call_reject_message,
        "auto_read_message": instance.auto_read_message,
        "auto_read_status": instance.auto_read_status,
    }
