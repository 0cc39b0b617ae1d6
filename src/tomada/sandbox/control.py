"""The control routes: how people and tests move the simulated phones and disturb the simulated network.

Plain JSON over HTTP on loopback; `docs/sandbox.md` lists the routes. Bad input answers 400 and `{"error": why}`, a
phone that does not exist 404. Nothing here decides anything: each route is one call of `phone_actions`,
`phone_pairing` or the network.
"""

import json
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import msgspec
from aiohttp import web

from tomada.kit.clock import Clock, SystemClock
from tomada.sandbox import phone_actions, phone_pairing
from tomada.sandbox.media_crypto import BrokenMedia
from tomada.sandbox.network_ports import PairingError, PhoneNetwork
from tomada.sandbox.node import Jid
from tomada.sandbox.phone import NetworkRefused, Phone
from tomada.sandbox.phone_content import BadRequest
from tomada.sandbox.phone_requests import SendBody
from tomada.sandbox.phonebook import BadNumber, Phonebook, UnknownPhone
from tomada.sandbox.signal_chain import CannotDecrypt

BODY_BYTES_MAX = 96 * 1024 * 1024
_log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_T = TypeVar("_T")


class FaultyNetwork(PhoneNetwork, Protocol):
    """A network that can also misbehave on request; `ValueError` from `apply_fault` says what was wrong."""

    def apply_fault(self, body: Any) -> dict[str, Any]:
        """Put a fault in force or carry it out."""

    def clear_faults(self) -> None:
        """End all standing faults."""

    def fault_report(self) -> dict[str, Any]:
        """What is in force, and the connections."""


class _PhoneBody(msgspec.Struct):
    number: str
    name: str = ""


class _ScanBody(msgspec.Struct):
    qr: str


class _CodeBody(msgspec.Struct):
    code: str


class _IdsBody(msgspec.Struct):
    ids: list[str]


class _PresenceBody(msgspec.Struct):
    status: str


class _TypingBody(msgspec.Struct):
    to: str
    state: str = "composing"


class _SubscribeBody(msgspec.Struct):
    to: str


class _UnlinkBody(msgspec.Struct):
    device: int


class _GroupBody(msgspec.Struct):
    owner: str
    subject: str
    members: list[str]


class _MembersBody(msgspec.Struct):
    by: str
    action: str
    members: list[str] = []


class _SubjectBody(msgspec.Struct):
    by: str
    subject: str


async def control_app(
    network: FaultyNetwork, clock: Clock | None = None, random_bytes: Callable[[int], bytes] = os.urandom
) -> web.Application:
    """The application of the control port, with every stored phone attached."""
    phonebook = Phonebook(network, clock or SystemClock(), random_bytes)
    await phonebook.load()
    app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[_errors_as_json])
    app.add_routes([*routes(phonebook), *fault_routes(network)])
    return app


def routes(phonebook: Phonebook) -> list[web.RouteDef]:
    """The routes of phones and groups."""
    return [*_phone_routes(phonebook), *_group_routes(phonebook)]


def _phone_routes(phonebook: Phonebook) -> list[web.RouteDef]:
    phone = "/sandbox/phones/{number}"

    def of_phone(handler: Callable[[Phone, web.Request], Awaitable[web.Response]]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await handler(phonebook.get(request.match_info["number"]), request)

        return handle

    async def add(request: web.Request) -> web.StreamResponse:
        body = await _body(request, _PhoneBody)
        added = await phonebook.add(body.number.lstrip("+"), body.name)
        return _json({"number": added.number, "name": added.name})

    async def listed(_request: web.Request) -> web.StreamResponse:
        return _json([_phone_view(one) for one in phonebook.all()])

    return [
        web.post("/sandbox/phones", add),
        web.get("/sandbox/phones", listed),
        web.get(phone, of_phone(_show)),
        web.post(f"{phone}/scan", of_phone(_scan)),
        web.post(f"{phone}/link-code", of_phone(_link_code)),
        web.post(f"{phone}/unlink", of_phone(_unlink)),
        web.post(f"{phone}/send", of_phone(_send)),
        web.get(f"{phone}/messages", of_phone(_messages)),
        web.get(phone + "/messages/{id}/media", of_phone(_media)),
        web.post(f"{phone}/read", of_phone(_read)),
        web.post(f"{phone}/played", of_phone(_played)),
        web.post(f"{phone}/presence", of_phone(_presence)),
        web.post(f"{phone}/subscribe", of_phone(_subscribe)),
        web.post(f"{phone}/typing", of_phone(_typing)),
        web.get(f"{phone}/sightings", of_phone(_sightings)),
    ]


def _group_routes(phonebook: Phonebook) -> list[web.RouteDef]:
    async def create(request: web.Request) -> web.StreamResponse:
        body = await _body(request, _GroupBody)
        group = await phone_actions.create_group(phonebook.get(body.owner), body.subject, body.members)
        return _json({"id": str(group), "subject": body.subject, "owner": body.owner, "members": body.members})

    async def change_members(request: web.Request) -> web.StreamResponse:
        body = await _body(request, _MembersBody)
        actor = phonebook.get(body.by)
        await phone_actions.change_members(actor, named(actor, request), body.action, body.members)
        return _json({})

    async def rename(request: web.Request) -> web.StreamResponse:
        body = await _body(request, _SubjectBody)
        actor = phonebook.get(body.by)
        await phone_actions.rename_group(actor, named(actor, request), body.subject)
        return _json({})

    def named(actor: Phone, request: web.Request) -> Jid:
        return phone_actions.find_chat(actor, request.match_info["group"].partition("@")[0] + "-group")

    path = "/sandbox/groups"
    group = path + "/{group}"
    return [
        web.post(path, create),
        web.post(f"{group}/participants", change_members),
        web.post(f"{group}/subject", rename),
    ]


def fault_routes(network: FaultyNetwork) -> list[web.RouteDef]:
    """The routes of faults; the network knows their kinds."""

    async def add(request: web.Request) -> web.StreamResponse:
        return _json(network.apply_fault(await _raw_body(request)))

    async def show(_request: web.Request) -> web.StreamResponse:
        return _json(network.fault_report())

    async def clear(_request: web.Request) -> web.StreamResponse:
        network.clear_faults()
        return _json({})

    path = "/sandbox/faults"
    return [web.post(path, add), web.get(path, show), web.delete(path, clear)]


async def _show(phone: Phone, _request: web.Request) -> web.Response:
    return _json(_phone_view(phone))


async def _scan(phone: Phone, request: web.Request) -> web.Response:
    device = await phone_pairing.scan(phone, (await _body(request, _ScanBody)).qr)
    return _json({"device": device.id, "name": device.name})


async def _link_code(phone: Phone, request: web.Request) -> web.Response:
    device = await phone_pairing.enter_code(phone, (await _body(request, _CodeBody)).code)
    return _json({"device": device.id, "name": device.name})


async def _unlink(phone: Phone, request: web.Request) -> web.Response:
    device = (await _body(request, _UnlinkBody)).device
    if not await phone.network.unlink(phone.number, device):
        raise BadRequest(f"this phone has no linked device {device}")
    return _json({"device": device})


async def _send(phone: Phone, request: web.Request) -> web.Response:
    return _json({"id": await phone_actions.send_body(phone, await _body(request, SendBody))})


async def _messages(phone: Phone, request: web.Request) -> web.Response:
    """All messages in the order of arrival; `?chat=` and `?after=` (a message id) narrow them."""
    entries = phone.log.entries()
    chat, after = request.query.get("chat"), request.query.get("after")
    if after and (mark := phone.log.find(after)):
        entries = [entry for entry in entries if entry.sequence > mark.sequence]
    return _json([phone_actions.show_message(phone, entry) for entry in entries if chat in (None, entry.chat)])


async def _media(phone: Phone, request: web.Request) -> web.Response:
    content, mimetype = phone_actions.media_content(phone, request.match_info["id"])
    return web.Response(body=content, headers={"Content-Type": mimetype or "application/octet-stream"})


async def _read(phone: Phone, request: web.Request) -> web.Response:
    await phone_actions.confirm(phone, (await _body(request, _IdsBody)).ids, "read")
    return _json({})


async def _played(phone: Phone, request: web.Request) -> web.Response:
    await phone_actions.confirm(phone, (await _body(request, _IdsBody)).ids, "played")
    return _json({})


async def _presence(phone: Phone, request: web.Request) -> web.Response:
    await phone_actions.set_presence(phone, (await _body(request, _PresenceBody)).status)
    return _json({})


async def _subscribe(phone: Phone, request: web.Request) -> web.Response:
    await phone_actions.subscribe(phone, (await _body(request, _SubscribeBody)).to)
    return _json({})


async def _typing(phone: Phone, request: web.Request) -> web.Response:
    body = await _body(request, _TypingBody)
    await phone_actions.type_to(phone, body.to, body.state)
    return _json({})


async def _sightings(phone: Phone, _request: web.Request) -> web.Response:
    return _json([msgspec.to_builtins(sighting) for sighting in phone.sightings])


def _phone_view(phone: Phone) -> dict[str, Any]:
    linked = [device for device in phone.network.devices(phone.number) if device.id]
    return {
        "number": phone.number,
        "name": phone.name,
        "lid": str(phone.lid),
        "linkedDevices": [phone_actions.show_device(phone, device) for device in linked],
    }


async def _raw_body(request: web.Request) -> Any:
    try:
        return json.loads(await request.read() or b"{}")
    except (ValueError, RecursionError) as error:
        raise BadRequest("the body is not JSON") from error


async def _body(request: web.Request, shape: type[_T]) -> _T:
    try:
        return msgspec.convert(await _raw_body(request), shape)
    except msgspec.ValidationError as error:
        raise BadRequest(str(error)) from error


def _json(content: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(content), content_type="application/json")


def _error(status: int, why: str) -> web.Response:
    return web.json_response({"error": why}, status=status)


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except UnknownPhone as error:
        return _error(404, str(error))
    except (BadRequest, BadNumber, NetworkRefused, PairingError, CannotDecrypt, BrokenMedia, ValueError) as error:
        return _error(400, str(error) or type(error).__name__)
    except web.HTTPException as error:
        return _error(error.status, error.reason)
