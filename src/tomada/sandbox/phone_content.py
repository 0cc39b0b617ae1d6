"""From a tester's request to the message a real phone would make of it.

Media are encrypted and uploaded on the way. Ids of other messages (quotes, reactions, votes, edits) are looked up in
the phone's log, because the wire wants to know who wrote them. `BadRequest` says what is wrong, for a tester.
"""

import base64
import binascii
from collections.abc import Callable
from typing import Any, NamedTuple

from tomada.sandbox import protos
from tomada.sandbox.media_crypto import UPLOAD_KINDS, encrypt_media
from tomada.sandbox.node import Jid
from tomada.sandbox.phone import Phone
from tomada.sandbox.phone_log import LogEntry
from tomada.sandbox.phone_polls import options_of, seal_vote
from tomada.sandbox.phone_reading import content_field, unwrap
from tomada.sandbox.phone_requests import KINDS, ContactBody, MediaBody, PollBody, SendBody, VoteBody
from tomada.sandbox.phone_samples import MIMETYPES, sample

_EDIT_MARK = "1"
_REVOKE_MARK = "7"
_OPTIONS_MAX = 12


class BadRequest(ValueError):
    """This cannot be sent"""


class Composed(NamedTuple):
    """A message ready to be sent, and the stanza's mark if it changes another one."""

    message: Any
    edit: str | None = None


def compose(phone: Phone, chat: Jid, body: SendBody) -> Composed:
    """Make the message; `BadRequest` if not exactly one kind is given, or one does not make sense."""
    kinds = [kind for kind in KINDS if getattr(body, kind) is not None]
    if len(kinds) != 1:
        raise BadRequest(f"give exactly one of {', '.join(KINDS)}")
    kind = kinds[0]
    message = protos.e2e.Message()
    if kind in UPLOAD_KINDS:
        value = getattr(body, kind)
        _put_media(phone, message, kind, MediaBody(data=value) if isinstance(value, str) else value)
    else:
        _WRITERS[kind](phone, chat, message, body)
    _put_context(phone, message, body)
    mark = {"edit": _EDIT_MARK, "revoke": _REVOKE_MARK}.get(kind)
    return Composed(message, mark)


def _put_text(_phone: Phone, _chat: Jid, message: Any, body: SendBody) -> None:
    if body.quoted or body.mentioned or body.forwarded:
        message.extendedTextMessage.text = body.text
    else:
        message.conversation = body.text


def _put_media(phone: Phone, message: Any, kind: str, body: MediaBody) -> None:
    content = _decoded(body.data) if body.data else sample(kind)
    encrypted = encrypt_media(kind, content)
    location = phone.network.upload(UPLOAD_KINDS[kind], encrypted.upload)
    part = getattr(message, f"{kind}Message")
    part.URL, part.directPath = location.url, location.direct_path
    part.mimetype = body.mimetype or MIMETYPES[kind]
    part.mediaKey, part.fileLength = encrypted.key, encrypted.plain_bytes
    part.fileSHA256, part.fileEncSHA256 = encrypted.plain_hash, encrypted.upload_hash
    part.mediaKeyTimestamp = phone.clock.now_ms() // 1000
    for field, value in _media_details(kind, body).items():
        if value and hasattr(part, field):
            setattr(part, field, value)
    if kind == "document" and body.caption:
        plain = protos.e2e.Message()
        plain.CopyFrom(message)
        message.Clear()
        message.documentWithCaptionMessage.message.CopyFrom(plain)


def _media_details(kind: str, body: MediaBody) -> dict[str, str | int | bool]:
    named = body.file_name or "document.pdf" if kind == "document" else ""
    return {
        "caption": body.caption,
        "fileName": named,
        "title": named,
        "seconds": body.seconds,
        "width": body.width,
        "height": body.height,
        "PTT": body.ptt,
        "gifPlayback": body.gif,
        "viewOnce": body.view_once,
    }


def _put_location(_phone: Phone, _chat: Jid, message: Any, body: SendBody) -> None:
    assert body.location is not None
    part = message.locationMessage
    part.degreesLatitude, part.degreesLongitude = body.location.latitude, body.location.longitude
    part.name, part.address = body.location.name, body.location.address


def _put_contact(_phone: Phone, _chat: Jid, message: Any, body: SendBody) -> None:
    assert body.contact is not None
    message.contactMessage.displayName = body.contact.name
    message.contactMessage.vcard = body.contact.vcard or _vcard(body.contact)


def _put_reaction(phone: Phone, chat: Jid, message: Any, body: SendBody) -> None:
    assert body.reaction is not None
    target = _find(phone, body.reaction.id)
    _put_key(phone, chat, message.reactionMessage.key, target)
    message.reactionMessage.text = body.reaction.emoji
    message.reactionMessage.senderTimestampMS = phone.clock.now_ms()


def _put_poll(phone: Phone, _chat: Jid, message: Any, body: SendBody) -> None:
    poll: PollBody | None = body.poll
    assert poll is not None
    if not 2 <= len(set(poll.options)) == len(poll.options) <= _OPTIONS_MAX:
        raise BadRequest(f"a poll has 2 to {_OPTIONS_MAX} different options")
    part = message.pollCreationMessageV3 if poll.selectable == 1 else message.pollCreationMessage
    part.name, part.selectableOptionsCount = poll.name, poll.selectable
    for option in poll.options:
        part.options.add().optionName = option
    message.messageContextInfo.messageSecret = phone.random_bytes(32)


def _put_vote(phone: Phone, chat: Jid, message: Any, body: SendBody) -> None:
    vote: VoteBody | None = body.vote
    assert vote is not None
    target = _find(phone, vote.id)
    poll = protos.e2e.Message.FromString(target.payload)
    offered = options_of(poll)
    if not offered or not set(vote.options) <= set(offered):
        raise BadRequest("that message is no poll with these options")
    author = _lid(phone, target.sender)
    sealed = seal_vote(poll, vote.id, author, phone.lid, vote.options, phone.random_bytes(12))
    update = message.pollUpdateMessage
    _put_key(phone, chat, update.pollCreationMessageKey, target)
    update.vote.CopyFrom(sealed)
    update.senderTimestampMS = phone.clock.now_ms()


def _put_edit(phone: Phone, chat: Jid, message: Any, body: SendBody) -> None:
    assert body.edit is not None
    part = message.protocolMessage
    part.type = protos.e2e.ProtocolMessage.MESSAGE_EDIT
    _put_key(phone, chat, part.key, _own(phone, body.edit.id))
    part.editedMessage.conversation = body.edit.text
    part.timestampMS = phone.clock.now_ms()


def _put_revoke(phone: Phone, chat: Jid, message: Any, body: SendBody) -> None:
    assert body.revoke is not None
    message.protocolMessage.type = protos.e2e.ProtocolMessage.REVOKE
    _put_key(phone, chat, message.protocolMessage.key, _own(phone, body.revoke.id))


def _put_context(phone: Phone, message: Any, body: SendBody) -> None:
    if not (body.quoted or body.mentioned or body.forwarded):
        return
    plain, _ = unwrap(message)
    part = getattr(plain, content_field(plain))
    if not hasattr(part, "contextInfo"):
        raise BadRequest("this kind cannot quote, mention or be forwarded")
    context = part.contextInfo
    if body.quoted:
        target = _find(phone, body.quoted)
        context.stanzaID, context.participant = target.id, str(_lid(phone, target.sender))
        context.quotedMessage.ParseFromString(target.payload)
    context.mentionedJID.extend(str(_lid(phone, number)) for number in body.mentioned)
    if body.forwarded:
        context.isForwarded, context.forwardingScore = True, 1


def _put_key(phone: Phone, chat: Jid, key: Any, target: LogEntry) -> None:
    key.ID, key.fromMe, key.remoteJID = target.id, target.from_me, str(chat)
    if chat.is_group and not target.from_me:
        key.participant = str(_lid(phone, target.sender))


def _find(phone: Phone, message_id: str) -> LogEntry:
    entry = phone.log.find(message_id)
    if entry is None:
        raise BadRequest(f"this phone has no message {message_id}")
    return entry


def _own(phone: Phone, message_id: str) -> LogEntry:
    entry = _find(phone, message_id)
    if not entry.from_me:
        raise BadRequest(f"message {message_id} is not this phone's own")
    return entry


def _lid(phone: Phone, number: str) -> Jid:
    devices = phone.network.devices(number)
    if not devices:
        raise BadRequest(f"{number} is not on WhatsApp")
    return devices[0].lid


def _vcard(contact: ContactBody) -> str:
    if not contact.phone:
        raise BadRequest("a contact needs a phone or a vcard")
    number = contact.phone.lstrip("+")
    lines = ("BEGIN:VCARD", "VERSION:3.0", f"FN:{contact.name}", f"TEL;type=CELL;waid={number}:+{number}", "END:VCARD")
    return "\n".join(lines)


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data.rpartition("base64,")[2], validate=True)
    except binascii.Error as error:
        raise BadRequest("the data of a medium must be base64") from error


_WRITERS: dict[str, Callable[[Phone, Jid, Any, SendBody], None]] = {
    "text": _put_text,
    "location": _put_location,
    "contact": _put_contact,
    "reaction": _put_reaction,
    "poll": _put_poll,
    "vote": _put_vote,
    "edit": _put_edit,
    "revoke": _put_revoke,
}
