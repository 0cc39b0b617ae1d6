"""What a simulated phone sends: messages to people and groups, copies to its own companions, receipts and retries.

How: a message is encrypted once per receiving device, with a session of its own each (prekeys are fetched where there
is none yet), and written as one stanza; a group message is encrypted once, and devices that have not got our sender
key get it in the same stanza. The session state is stored before the stanza leaves, so that no key is ever used twice.

Own companions get a copy that names the chat (`deviceSentMessage`): that is how a linked device sees what its owner
types on the phone. Retries are answered from the message log.
"""

from collections.abc import Iterable
from typing import Any

from tomada.sandbox import protos
from tomada.sandbox.node import AttrValue, Jid, Node, element
from tomada.sandbox.phone import NetworkRefused, Phone
from tomada.sandbox.phone_log import LogEntry
from tomada.sandbox.phone_prekeys import ensure_sessions, own_keys
from tomada.sandbox.phone_reading import media_type, stanza_type
from tomada.sandbox.ratchet import Bundle, Envelope

_PEER_PREFIX = "peer/"
_Attrs = dict[str, AttrValue | int | bool | None]


async def send(phone: Phone, chat: Jid, message: Any, *, edit: str | None = None) -> str:
    """Send a message to an account (hidden-number address) or a group; its id.

    `edit` is the stanza's mark for messages that change another one: 1 edit, 7 revoke. Raises `NetworkRefused`.
    """
    message_id = phone.new_id()
    phone.log.append(_entry(phone, message_id, chat, message))
    attrs: _Attrs = {"id": message_id, "to": chat, "type": stanza_type(message), "edit": edit}
    try:
        stanza = await (_group_stanza if chat.is_group else _chat_stanza)(phone, chat, message, attrs)
        phone.store.commit()
        ack = await phone.submit(stanza)
    except NetworkRefused:
        phone.log.set_state(message_id, "failed")
        phone.store.commit()
        raise
    if ack is not None:
        phone.log.set_state(message_id, "sent")
        phone.store.commit()
    return message_id


async def send_peer(phone: Phone, companion: Jid, message: Any) -> None:
    """Send something between devices of this account, which no person sees."""
    message_id = phone.new_id()
    phone.store.put(_PEER_PREFIX + message_id, message.SerializeToString())
    await _send_to_companion(phone, companion, message_id, message.SerializeToString(), None)


async def resend_peer(phone: Phone, message_id: str, asker: Jid, *, count: int, bundle: Bundle | None) -> bool:
    """Answer a companion that could not read what `send_peer` sent; False if there is no such message."""
    content = phone.store.get(_PEER_PREFIX + message_id)
    if content is None or asker.bare != phone.lid:
        return False
    if bundle is not None:
        phone.sessions.start(asker, bundle)
    await _send_to_companion(phone, asker, message_id, content, count)
    return True


async def resend(phone: Phone, entry: LogEntry, asker: Jid, *, count: int, bundle: Bundle | None) -> None:
    """Answer a device that could not read a message of ours, with a new session if it sent keys for one."""
    if bundle is not None:
        phone.sessions.start(asker, bundle)
    if not await ensure_sessions(phone, [asker]):
        raise NetworkRefused(f"the network has no keys of {asker}")
    message = protos.e2e.Message.FromString(entry.payload)
    chat = chat_jid(phone, entry.chat)
    attrs: _Attrs = {"id": entry.id, "type": stanza_type(message)}
    if chat.is_group:
        attrs |= {"to": chat, "participant": asker}
        _add_sender_key(phone, chat, message)
    elif asker.bare == phone.lid:
        attrs |= {"to": asker, "device_fanout": False, "recipient": chat}
        message = _device_sent(chat, message)
    else:
        attrs |= {"to": asker, "device_fanout": False}
    envelope = phone.sessions.encrypt(asker, message.SerializeToString())
    phone.store.commit()
    await phone.submit(element("message", attrs, [_enc(envelope, media_type(message), count=count)]))


async def send_receipt(phone: Phone, entries: Iterable[LogEntry], kind: str | None) -> None:
    """Tell the senders of these messages: delivered (None), `read` or `played`. One receipt per chat and sender."""
    grouped: dict[tuple[Jid, Jid | None], list[str]] = {}
    for entry in entries:
        sender = _device_jid(phone, entry.sender, entry.sender_device)
        chat = chat_jid(phone, entry.chat)
        key = (chat, sender) if chat.is_group else (sender, None)
        grouped.setdefault(key, []).append(entry.id)
    for (to, participant), ids in grouped.items():
        attrs: _Attrs = {"id": ids[0], "to": to, "participant": participant, "type": kind, "t": phone.now_s()}
        more = [element("item", {"id": message_id}) for message_id in ids[1:]]
        await phone.submit(element("receipt", attrs, [element("list", content=more)] if more else None))


async def ask_again(phone: Phone, message: Node, count: int) -> None:
    """Ask the sender of a message that could not be read to send it again; from the second time on with keys."""
    attrs: _Attrs = {"id": message.text("id"), "to": message.jid("from"), "type": "retry"}
    attrs |= {name: message.attrs.get(name) for name in ("participant", "recipient")}
    retry: _Attrs = {"count": count, "id": message.text("id"), "t": message.text("t"), "v": 1}
    content = [
        element("retry", retry),
        element("registration", content=phone.registration_id.to_bytes(4, "big")),
    ]
    if count > 1:
        content.append(own_keys(phone))
    phone.store.commit()
    await phone.submit(element("receipt", attrs, content))


async def group_members(phone: Phone, group: Jid) -> list[str]:
    """The numbers of a group's members, asked of the network; `NetworkRefused` if we are not in it."""
    query = element("query", {"request": "interactive"})
    attrs: _Attrs = {"to": group, "type": "get", "xmlns": "w:g2", "id": phone.new_id()}
    answer = (await phone.ask(element("iq", attrs, [query]))).child("group")
    members = [node.jid("jid") for node in answer.children("participant")] if answer else []
    numbers = [phone.network.find_number(member) for member in members if member]
    return [number for number in numbers if number]


def chat_jid(phone: Phone, chat: str) -> Jid:
    """The address of a chat as the log names it: a group address or a number; `NetworkRefused` if nobody has it."""
    return Jid.parse(chat) if "@" in chat else _device_jid(phone, chat, 0)


async def _send_to_companion(phone: Phone, companion: Jid, message_id: str, content: bytes, count: int | None) -> None:
    if not await ensure_sessions(phone, [companion]):
        raise NetworkRefused(f"the network has no keys of {companion}")
    envelope = phone.sessions.encrypt(companion, content)
    phone.store.commit()
    attrs: _Attrs = {"id": message_id, "to": companion, "type": "text", "category": "peer"}
    await phone.submit(element("message", attrs, [_enc(envelope, count=count)]))


async def _chat_stanza(phone: Phone, chat: Jid, message: Any, attrs: _Attrs) -> Node:
    number = phone.network.find_number(chat) or ""
    theirs = [device.lid for device in phone.network.devices(number)]
    reachable = await ensure_sessions(phone, [*theirs, *_own_companions(phone)])
    own = [device for device in reachable if device.bare == phone.lid]
    plain = message.SerializeToString()
    copy = _device_sent(chat, message).SerializeToString() if own else b""
    kind = media_type(message)
    parts = [_to(phone, device, plain, kind) for device in reachable if device not in own]
    parts += [_to(phone, device, copy, kind) for device in own]
    more: _Attrs = {"peer_recipient_pn": Jid(number, "s.whatsapp.net")}
    return element("message", attrs | more, [element("participants", content=parts)])


async def _group_stanza(phone: Phone, group: Jid, message: Any, attrs: _Attrs) -> Node:
    members = await group_members(phone, group)
    devices = [device.lid for number in members for device in phone.network.devices(number) if device.lid != phone.lid]
    missing = await ensure_sessions(phone, phone.sessions.share_sender_key(group, devices))
    hello = protos.e2e.Message()
    _add_sender_key(phone, group, hello)
    content = hello.SerializeToString()
    parts = [_to(phone, device, content, "") for device in missing]
    phone.sessions.mark_sender_key_given(group, missing)
    envelope = phone.sessions.encrypt_group(group, message.SerializeToString())
    body = [element("participants", content=parts)] if parts else []
    return element("message", attrs, [*body, _enc(envelope, media_type(message))])


def _entry(phone: Phone, message_id: str, chat: Jid, message: Any) -> LogEntry:
    name = str(chat) if chat.is_group else phone.network.find_number(chat) or str(chat)
    now = phone.clock.now_ms()
    return LogEntry(0, message_id, phone.number, 0, name, True, now, message.SerializeToString(), "pending")


def _own_companions(phone: Phone) -> list[Jid]:
    return [device.lid for device in phone.network.devices(phone.number) if device.id]


def _device_jid(phone: Phone, number: str, device: int) -> Jid:
    account = phone.network.devices(number)
    if not account:
        raise NetworkRefused(f"{number} is not on WhatsApp")
    return account[0].lid.with_device(device)


def _device_sent(chat: Jid, message: Any) -> Any:
    copy = protos.e2e.Message()
    copy.deviceSentMessage.destinationJID = str(chat)
    copy.deviceSentMessage.message.CopyFrom(message)
    if message.HasField("messageContextInfo"):
        copy.messageContextInfo.CopyFrom(message.messageContextInfo)
    return copy


def _add_sender_key(phone: Phone, group: Jid, message: Any) -> None:
    message.senderKeyDistributionMessage.groupID = str(group)
    distribution = phone.sessions.sender_key_distribution(group)
    message.senderKeyDistributionMessage.axolotlSenderKeyDistributionMessage = distribution


def _to(phone: Phone, device: Jid, content: bytes, kind: str) -> Node:
    return element("to", {"jid": device}, [_enc(phone.sessions.encrypt(device, content), kind)])


def _enc(envelope: Envelope, kind: str = "", *, count: int | None = None) -> Node:
    attrs: _Attrs = {"v": 2, "type": envelope.kind, "mediatype": kind or None, "count": count}
    return element("enc", attrs, envelope.data)
