"""The calls about one instance and its session: status, pairing, disconnect, restart, me, device.

They take no body and ignore whatever body comes. Those that act answer GET and POST, because clients send both.
"""

import contextlib
from typing import Any

from litestar import get, route
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from tomada.errors import SubscriptionNeeded
from tomada.instances.authorize import has_ended
from tomada.wire.credentials import ENDED_TOO, instance_of
from tomada.wire.openapi import operation
from tomada.wire.phones import person_of
from tomada.wire.qr_image import png_data_uri
from tomada.wire.reading import AnyRequest, ports_of
from tomada.wire.replies import Code, Device, Done, Me, Phone, Scannable, Status, device_of, linked, me_of, status_of

_TAGS = ["instance"]


@get("/status", tags=_TAGS)
async def status(request: AnyRequest) -> Status:
    """Whether the instance is connected."""
    instance = instance_of(request)
    return status_of(instance, await ports_of(request).sessions.status(instance.id))


@get("/qr-code", operation_class=operation(fails=(504,)), tags=_TAGS)
async def qr_code(request: AnyRequest) -> Scannable:
    """The text of the QR code to scan now; it lives about 20 seconds."""
    code = await ports_of(request).sessions.qr(instance_of(request).id)
    return Scannable(value=code) if code else Scannable(connected=True)


@get("/qr-code/image", operation_class=operation(fails=(504,)), tags=_TAGS)
async def qr_code_image(request: AnyRequest) -> Scannable:
    """The QR code as a PNG data URI."""
    code = await ports_of(request).sessions.qr(instance_of(request).id)
    return Scannable(value=await png_data_uri(code)) if code else Scannable(connected=True)


@get("/phone-code/{phone:str}", operation_class=operation(fails=(504,)), tags=_TAGS)
async def phone_code(request: AnyRequest, phone: FromPath[str]) -> Code:
    """A code to type on the phone instead of scanning."""
    return Code(await ports_of(request).sessions.phone_code(instance_of(request).id, person_of(phone)))


@get("/me", tags=_TAGS)
async def me(request: AnyRequest) -> Me:
    """The instance and its settings."""
    return me_of(instance_of(request), request.path_params["token"])


@get("/device", tags=_TAGS)
async def device(request: AnyRequest) -> Device:
    """The linked phone."""
    instance = instance_of(request)
    return device_of(instance, await ports_of(request).sessions.status(instance.id))


@get("/phone", tags=_TAGS)
async def phone_number(request: AnyRequest) -> Phone:
    """The number of the linked phone."""
    return Phone(linked(await ports_of(request).sessions.status(instance_of(request).id)).phone)


@route("/disconnect", http_method=["GET", "POST"], status_code=200, tags=_TAGS, opt={ENDED_TOO: True})
async def disconnect(request: AnyRequest) -> Done:
    """Unlink from the phone. A new QR code is needed afterwards. An instance whose time is over is unlinked anyway."""
    instance = instance_of(request)
    if not has_ended(instance):
        with contextlib.suppress(SubscriptionNeeded):  # it ended this moment
            await ports_of(request).sessions.logout(instance.id)
    return Done()


@route("/restart", http_method=["GET", "POST"], status_code=200, tags=_TAGS)
async def restart(request: AnyRequest) -> Done:
    """Stop the session and start it again; it stays paired."""
    await ports_of(request).sessions.restart(instance_of(request).id)
    return Done()


@route("/restore-session", http_method=["GET", "POST"], status_code=200, tags=_TAGS)
async def restore_session(request: AnyRequest) -> Done:
    """Connect a session that rests, such as one that was replaced elsewhere."""
    await ports_of(request).sessions.restore(instance_of(request).id)
    return Done()


HANDLERS: list[HTTPRouteHandler | Any] = [
    status,
    qr_code,
    qr_code_image,
    phone_code,
    me,
    device,
    phone_number,
    disconnect,
    restart,
    restore_session,
]
