"""What a simulated phone does with the stanzas it gets: reads messages, notes receipts, answers retries.

A message is decrypted, logged and only then confirmed to its sender, by the delivered receipt that a phone sends on its
own. One that cannot be decrypted is asked for again (at most `RETRIES_MAX` times). A duplicate is confirmed once
more and otherwise ignored, which is also what makes a redelivery after a crash harmless.

Work that itself needs the network's answer to other stanzas (settings for a new companion, answers to retries) runs
inside `receive`, one stanza after another, as on a real phone.
"""

import logging
from typing import Any

from tomada.sandbox import phone_outbox, phone_settings, protos
from tomada.sandbox.network_ports import COMPANION_READY
from tomada.sandbox.node import Jid, Node
from tomada.sandbox.phone import NetworkRefused, Phone, Sighting
from tomada.sandbox.phone_log import LogEntry, ReceiptRow
from tomada.sandbox.phone_prekeys import read_bundle
from tomada.sandbox.phone_reading import is_shown
from tomada.sandbox.ratchet import Envelope
from tomada.sandbox.signal_chain import CannotDecrypt, DuplicateMessage
from tomada.sandbox.signal_wire import MalformedMessage

RETRIES_MAX = 5
_RECEIPT_KINDS = {"": "delivered", "inactive": "delivered", "read": "read", "played": "played"}
_log = logging.getLogger(__name__)


async def receive(phone: Phone, node: Node) -> None:
    """Handle one stanza; kinds a phone has no use for are ignored."""
    match node.tag, node.text("type"):
        case "message", _:
            await _message(phone, node)
        case "receipt", "retry":
            await _retry(phone, node)
        case "receipt", kind if kind in _RECEIPT_KINDS:
            _receipt(phone, node, _RECEIPT_KINDS[kind])
        case "notification", kind if kind == COMPANION_READY:
            device = node.jid("device")
            if device:
                await phone_settings.welcome(phone, device)
        case "notification", "server_sync":
            for collection in node.children("collection"):
                await phone_settings.catch_up(phone, collection.text("name"))
        case (("presence" | "chatstate"), _):
            _sighting(phone, node)
        case _:
            pass


async def _message(phone: Phone, node: Node) -> None:
    """Read a message, or ask for it again.

    A key that was used before means a repeated stanza only if the message is known: the engine encrypts two messages
    with one key when it sends and receives at the same moment, and the second would be lost.
    """
    sender = _sender(phone, node)
    if sender is None:
        _log.warning("%s: a message from nobody known: %s", phone.number, node)
        return
    retried = 0
    try:
        for enc in node.children("enc"):
            retried = int(enc.text("count", "0"))
            content = _decrypt(phone, node, sender, enc)
            _take(phone, node, sender, protos.e2e.Message.FromString(content))
    except CannotDecrypt as error:
        if isinstance(error, DuplicateMessage) and phone.log.find(node.text("id")) is not None:
            _log.debug("%s: message %s again", phone.number, node.text("id"))
            await _confirm(phone, node)
            return
        phone.store.commit()
        _log.info("%s: cannot read %s from %s: %s", phone.number, node.text("id"), sender, error)
        if retried < RETRIES_MAX:
            await phone_outbox.ask_again(phone, node, retried + 1)
        return
    phone.store.commit()
    await _confirm(phone, node)


def _decrypt(phone: Phone, node: Node, sender: Jid, enc: Node) -> bytes:
    chat, kind = node.jid("from"), enc.text("type")
    if kind == "skmsg" and chat is not None:
        return phone.sessions.decrypt_group(chat, sender, enc.data)
    return phone.sessions.decrypt(sender, Envelope(kind, enc.data))


def _take(phone: Phone, node: Node, sender: Jid, message: Any) -> None:
    """Note what a decrypted message says: a sender key, or something to show."""
    chat = node.jid("from")
    if message.HasField("senderKeyDistributionMessage") and chat is not None and chat.is_group:
        given = message.senderKeyDistributionMessage.axolotlSenderKeyDistributionMessage
        try:
            phone.sessions.accept_sender_key(chat, sender, given)
        except MalformedMessage:
            _log.warning("%s: a broken sender key from %s", phone.number, sender)
    sent_copy = message.HasField("deviceSentMessage")
    destination = message.deviceSentMessage.destinationJID if sent_copy else ""
    shown = message.deviceSentMessage.message if sent_copy else message
    if node.text("category") == "peer" or not is_shown(shown):
        return
    number = phone.network.find_number(sender) or sender.user
    at_ms = int(node.text("t", "0")) * 1000
    now_ms = phone.clock.now_ms()
    entry = LogEntry(
        sequence=0,
        id=node.text("id"),
        sender=number,
        sender_device=sender.device,
        chat=_chat(phone, node, destination),
        from_me=number == phone.number,
        at_ms=now_ms if abs(now_ms - at_ms) < 1000 else at_ms,
        payload=shown.SerializeToString(),
        state="sent" if number == phone.number else "",
    )
    phone.log.append(entry)


async def _confirm(phone: Phone, node: Node) -> None:
    entry = phone.log.find(node.text("id"))
    if entry is not None and not entry.from_me:
        await phone_outbox.send_receipt(phone, [entry], None)


async def _retry(phone: Phone, node: Node) -> None:
    """Send again what a device could not read: a message of ours, or something between our own devices."""
    retry, asker = node.child("retry"), node.jid("participant") or node.jid("from")
    address = _as_lid(phone, asker) if asker else None
    count = int(retry.text("count", "1")) if retry else RETRIES_MAX + 1
    if address is None or count > RETRIES_MAX:
        return
    bundle = read_bundle(node) if node.child("keys") else None
    message_id = node.text("id")
    entry = phone.log.find(message_id)
    try:
        if entry is not None and entry.from_me:
            await phone_outbox.resend(phone, entry, address, count=count, bundle=bundle)
        elif not await phone_outbox.resend_peer(phone, message_id, address, count=count, bundle=bundle):
            _log.info("%s: a retry for %s, which is not ours", phone.number, message_id)
    except (NetworkRefused, CannotDecrypt) as error:
        _log.warning("%s: cannot answer the retry of %s: %s", phone.number, message_id, error)


def _receipt(phone: Phone, node: Node, kind: str) -> None:
    by = node.jid("participant") or node.jid("from")
    number = phone.network.find_number(by) if by else None
    if number is None or number == phone.number:
        return
    listed = node.child("list")
    ids = [node.text("id"), *(item.text("id") for item in (listed.nodes if listed else ()))]
    for message_id in ids:
        entry = phone.log.find(message_id)
        if entry is not None and entry.from_me:
            phone.log.add_receipt(message_id, ReceiptRow(kind, number, phone.clock.now_ms()))
    phone.store.commit()


def _sighting(phone: Phone, node: Node) -> None:
    by = node.jid("participant") or node.jid("from")
    what = node.text("type", "available")
    if node.tag == "chatstate":
        composing = node.child("composing")
        what = "paused" if composing is None else "recording" if composing.text("media") == "audio" else "composing"
    if by:
        number = phone.network.find_number(by) or str(by)
        phone.sightings.append(Sighting(number, what, phone.clock.now_ms()))


def _sender(phone: Phone, node: Node) -> Jid | None:
    by = node.jid("participant") or node.jid("from")
    return _as_lid(phone, by) if by else None


def _as_lid(phone: Phone, address: Jid) -> Jid | None:
    """The device's hidden-number address, under which its session is kept."""
    if address.server == "lid":
        return address
    number = phone.network.find_number(address)
    devices = phone.network.devices(number) if number else []
    return devices[0].lid.with_device(address.device) if devices else None


def _chat(phone: Phone, node: Node, destination: str) -> str:
    source = node.jid("from")
    if source is not None and source.is_group:
        return str(source)
    other = node.jid("recipient") or (Jid.parse(destination) if destination else source)
    if other is None:
        return phone.number
    return str(other) if other.is_group else phone.network.find_number(other.bare) or str(other)
