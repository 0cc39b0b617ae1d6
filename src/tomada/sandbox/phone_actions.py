"""What a tester has a simulated person do, beyond receiving: each function is one control route's work.

They take and give plain values, so that a test inside the process may use them as well as the routes do.
Errors: `BadRequest`, `NetworkRefused`, `PairingError`, all meant to be shown.
"""

from typing import Any

from tomada.sandbox import phone_outbox
from tomada.sandbox.media_crypto import decrypt_media
from tomada.sandbox.network_ports import Device
from tomada.sandbox.node import GROUP_SERVER, AttrValue, Jid, Node, element
from tomada.sandbox.phone import NetworkRefused, Phone
from tomada.sandbox.phone_content import BadRequest, compose
from tomada.sandbox.phone_log import LogEntry
from tomada.sandbox.phone_polls import open_vote
from tomada.sandbox.phone_reading import describe, media_of
from tomada.sandbox.phone_requests import SendBody
from tomada.sandbox.protos import e2e

_GROUP_SUFFIX = "-group"
_TYPING = ("composing", "recording", "paused")
_PRESENCES = ("available", "unavailable")


async def send_body(phone: Phone, body: SendBody) -> str:
    """Send what the body asks for; the message id."""
    chat = find_chat(phone, body.to)
    composed = compose(phone, chat, body)
    return await phone_outbox.send(phone, chat, composed.message, edit=composed.edit)


async def confirm(phone: Phone, ids: list[str], kind: str) -> None:
    """Tell the senders that these messages were `read` or `played`."""
    entries = [phone.log.find(message_id) for message_id in ids]
    missing = [message_id for message_id, entry in zip(ids, entries, strict=True) if entry is None]
    if missing or not ids:
        raise BadRequest(f"this phone has no message {', '.join(missing)}" if ids else "ids is empty")
    await phone_outbox.send_receipt(phone, [entry for entry in entries if entry and not entry.from_me], kind)


async def set_presence(phone: Phone, status: str) -> None:
    """Be `available` or `unavailable`."""
    if status not in _PRESENCES:
        raise BadRequest(f"status is one of {', '.join(_PRESENCES)}")
    await phone.submit(element("presence", {"type": status, "name": phone.name}))


async def subscribe(phone: Phone, to: str) -> None:
    """Watch another account's presence; it shows among the sightings."""
    answer = await phone.submit(element("presence", {"type": "subscribe", "to": find_chat(phone, to)}))
    if answer is not None:
        await phone.deliver(answer)


async def type_to(phone: Phone, to: str, state: str) -> None:
    """Be `composing`, `recording` or `paused` in a chat."""
    if state not in _TYPING:
        raise BadRequest(f"state is one of {', '.join(_TYPING)}")
    if state == "paused":
        content = element("paused")
    else:
        content = element("composing", {"media": "audio" if state == "recording" else None})
    await phone.submit(element("chatstate", {"to": find_chat(phone, to)}, [content]))


async def create_group(phone: Phone, subject: str, members: list[str]) -> Jid:
    """Make a group of this phone's account and these numbers; its address."""
    participants = [element("participant", {"jid": find_chat(phone, number)}) for number in members]
    create = element("create", {"subject": subject, "key": phone.new_id()}, participants)
    answer = await _ask_groups(phone, Jid("", GROUP_SERVER), create)
    group = answer.child("group")
    if group is None:
        raise NetworkRefused("the network made no group")
    return Jid(group.text("id").partition("@")[0], GROUP_SERVER)


async def rename_group(phone: Phone, group: Jid, subject: str) -> None:
    """Give a group another subject, as one of its admins."""
    await _ask_groups(phone, group, element("subject", {}, subject.encode()))


async def change_members(phone: Phone, group: Jid, action: str, members: list[str]) -> None:
    """`add`, `remove`, `promote` or `demote` members, or `leave` the group oneself."""
    if action == "leave":
        await _ask_groups(phone, Jid("", GROUP_SERVER), element("leave", {}, [element("group", {"id": group})]))
        return
    if action not in ("add", "remove", "promote", "demote") or not members:
        raise BadRequest("action is add, remove, promote or demote, with members; or leave")
    participants = [element("participant", {"jid": find_chat(phone, number)}) for number in members]
    await _ask_groups(phone, group, element(action, {}, participants))


async def _ask_groups(phone: Phone, to: Jid, request: Node) -> Node:
    attrs: dict[str, AttrValue | int | bool | None] = {"to": to, "type": "set", "xmlns": "w:g2", "id": phone.new_id()}
    return await phone.ask(element("iq", attrs, [request]))


def find_chat(phone: Phone, to: str) -> Jid:
    """The address of a number or group in any usual spelling; `BadRequest` if there is nobody."""
    name, at, server = to.strip().partition("@")
    if name.endswith(_GROUP_SUFFIX) or server == GROUP_SERVER:
        return Jid(name.removesuffix(_GROUP_SUFFIX), GROUP_SERVER)
    digits = "".join(filter(str.isdigit, name))
    number = phone.network.find_number(Jid(digits, server)) if at and server else digits
    devices = phone.network.devices(number or "")
    if not devices:
        raise BadRequest(f"{to} is not on WhatsApp")
    return devices[0].lid


def show_message(phone: Phone, entry: LogEntry) -> dict[str, Any]:
    """One message as the control routes list it; times in epoch milliseconds."""
    message = e2e.Message.FromString(entry.payload)
    described = describe(message)
    if described["kind"] == "pollVote":
        described["options"] = _vote(phone, entry, message.pollUpdateMessage)
    for name in ("quotedFrom", "mentioned"):
        if name in described:
            described[name] = _as_numbers(phone, described[name])
    shown = {
        "id": entry.id,
        "waId": entry.id,
        "from": entry.sender,
        "to": entry.chat if entry.from_me or "@" in entry.chat else phone.number,
        "chat": entry.chat,
        "fromMe": entry.from_me,
        "device": entry.sender_device,
        "at": entry.at_ms,
        **described,
    }
    if entry.from_me:
        receipts = [{"kind": one.kind, "by": one.by, "at": one.at_ms} for one in entry.receipts]
        shown |= {"status": entry.status, "receipts": receipts}
    return shown


def show_device(phone: Phone, device: Device) -> dict[str, Any]:
    """One linked device as the phone lists it."""
    return {
        "device": device.id,
        "name": device.name,
        "platform": device.platform,
        "online": phone.network.online(device),
    }


def media_content(phone: Phone, message_id: str) -> tuple[bytes, str]:
    """The decrypted medium of a message and its media type; `BadRequest` if there is none."""
    entry = phone.log.find(message_id)
    found = media_of(e2e.Message.FromString(entry.payload)) if entry else None
    if found is None:
        raise BadRequest(f"this phone has no medium {message_id}")
    kind, part = found
    uploaded = phone.network.download(part.directPath)
    if uploaded is None:
        raise BadRequest("the media server does not have it")
    return decrypt_media(kind, part.mediaKey, uploaded, part.fileSHA256), str(part.mimetype)


def _vote(phone: Phone, entry: LogEntry, update: Any) -> list[str] | None:
    """The options a vote chose; None if this phone cannot tell."""
    poll = phone.log.find(update.pollCreationMessageKey.ID)
    accounts = [phone.network.devices(number) for number in (poll.sender if poll else "", entry.sender)]
    if poll is None or not all(accounts):
        return None
    author, voter = (devices[0].lid for devices in accounts)
    return open_vote(e2e.Message.FromString(poll.payload), poll.id, author, voter, update.vote)


def _as_numbers(phone: Phone, addresses: str | list[str]) -> str | list[str]:
    if isinstance(addresses, list):
        return [str(_as_numbers(phone, address)) for address in addresses]
    try:
        return phone.network.find_number(Jid.parse(addresses).bare) or addresses
    except ValueError:
        return addresses
