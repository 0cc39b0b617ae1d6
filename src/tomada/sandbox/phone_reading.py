"""What a decrypted message is, in words: its kind, what a tester gets to see of it, and how its stanza is marked.

One table (`_FIELDS`) from the message's field to the kind and to the function that describes it. Wrappers that only say
how to treat a message (view once, disappearing, document with caption) are taken off first and shown as flags.
Kinds without a describing function are shown whole, as protobuf JSON under `content`.
"""

import base64
from collections.abc import Callable
from typing import Any

from google.protobuf.json_format import MessageToDict

from tomada.sandbox import protos

_HIDDEN = ("messageContextInfo", "senderKeyDistributionMessage", "deviceSentMessage")
_WRAPPERS = {
    "ephemeralMessage": "disappearing",
    "viewOnceMessage": "viewOnce",
    "viewOnceMessageV2": "viewOnce",
    "viewOnceMessageV2Extension": "viewOnce",
    "documentWithCaptionMessage": "",
    "editedMessage": "",
}

Described = dict[str, Any]


def unwrap(message: Any) -> tuple[Any, list[str]]:
    """The message without its wrappers, and what they said (`disappearing`, `viewOnce`)."""
    flags = []
    for _ in range(len(_WRAPPERS)):
        wrapper = next((name for name in _WRAPPERS if message.HasField(name)), None)
        if wrapper is None:
            break
        flags += [_WRAPPERS[wrapper]] if _WRAPPERS[wrapper] else []
        message = getattr(message, wrapper).message
    return message, flags


def content_field(message: Any) -> str:
    """The name of the field that holds the content; empty if there is none."""
    return next((field.name for field, _ in message.ListFields() if field.name not in _HIDDEN), "")


def is_shown(message: Any) -> bool:
    """Whether there is anything for a person in it, beyond keys and housekeeping between devices."""
    plain, _ = unwrap(message)
    name = content_field(plain)
    if name != "protocolMessage":
        return bool(name)
    kinds = protos.e2e.ProtocolMessage
    return plain.protocolMessage.type in (kinds.REVOKE, kinds.MESSAGE_EDIT)


def describe(message: Any) -> Described:
    """What a tester sees: `kind`, its fields, and `quoted`, `quotedFrom`, `mentioned`, flags where there are any."""
    plain, flags = unwrap(message)
    name = content_field(plain)
    kind, describe_field = _FIELDS.get(name, (name.removesuffix("Message"), None))
    content = getattr(plain, name)
    shown: Described = {"kind": kind}
    if describe_field is None:
        shown["content"] = MessageToDict(content) if hasattr(content, "ListFields") else str(content)
    else:
        shown |= describe_field(content)
    shown |= dict.fromkeys(flags, True)
    if getattr(content, "viewOnce", False):
        shown["viewOnce"] = True
    if hasattr(content, "contextInfo"):
        shown |= _context(content.contextInfo)
    return shown


def stanza_type(message: Any) -> str:
    """The `type` of the stanza that carries this message."""
    plain, _ = unwrap(message)
    name = content_field(plain)
    if name == "reactionMessage":
        return "reaction"
    if name.startswith(("pollCreationMessage", "pollUpdateMessage")):
        return "poll"
    return "media" if media_type(message) else "text"


def media_type(message: Any) -> str:
    """The `mediatype` of its ciphertext; empty for what is no medium."""
    plain, _ = unwrap(message)
    name = content_field(plain)
    if name == "audioMessage" and plain.audioMessage.PTT:
        return "ptt"
    if name == "videoMessage" and plain.videoMessage.gifPlayback:
        return "gif"
    return _MEDIA_TYPES.get(name, "")


def media_of(message: Any) -> tuple[str, Any] | None:
    """The media kind (see `media_crypto`) and the part with its keys; None if it carries no medium."""
    plain, _ = unwrap(message)
    name = content_field(plain)
    kind = _FIELDS.get(name, ("", None))[0]
    return (kind, getattr(plain, name)) if kind in ("image", "audio", "video", "document", "sticker") else None


def _context(context: Any) -> Described:
    found: Described = {}
    if context.stanzaID:
        found |= {"quoted": context.stanzaID, "quotedFrom": context.participant}
    if context.mentionedJID:
        found["mentioned"] = list(context.mentionedJID)
    if context.isForwarded:
        found["forwarded"] = True
    return found


def _plain_text(content: Any) -> Described:
    return {"text": str(content)}


def _extended_text(content: Any) -> Described:
    link = {name: getattr(content, name) for name in ("matchedText", "title", "description")}
    return {"text": content.text} | {name: value for name, value in link.items() if value}


def _media(content: Any) -> Described:
    shown: Described = {"mimetype": content.mimetype, "bytes": content.fileLength}
    names = {"caption": "caption", "fileName": "fileName", "title": "title", "seconds": "seconds"}
    names |= {"width": "width", "height": "height", "PTT": "ptt", "gifPlayback": "gif", "isAnimated": "animated"}
    for field, name in names.items():
        if value := getattr(content, field, None):
            shown[name] = value
    return shown | {"sha256": base64.b64encode(content.fileSHA256).decode()}


def _location(content: Any) -> Described:
    shown = {"latitude": content.degreesLatitude, "longitude": content.degreesLongitude}
    return shown | {name: getattr(content, name) for name in ("name", "address") if getattr(content, name)}


def _contact(content: Any) -> Described:
    return {"name": content.displayName, "vcard": content.vcard}


def _reaction(content: Any) -> Described:
    return {"emoji": content.text, "target": content.key.ID}


def _poll(content: Any) -> Described:
    options = [option.optionName for option in content.options]
    return {"name": content.name, "options": options, "selectable": content.selectableOptionsCount}


def _poll_vote(content: Any) -> Described:
    return {"target": content.pollCreationMessageKey.ID}


def _protocol(content: Any) -> Described:
    if content.type == protos.e2e.ProtocolMessage.REVOKE:
        return {"kind": "revoke", "target": content.key.ID}
    return {**describe(content.editedMessage), "kind": "edit", "target": content.key.ID}


_FIELDS: dict[str, tuple[str, Callable[[Any], Described] | None]] = {
    "conversation": ("text", _plain_text),
    "extendedTextMessage": ("text", _extended_text),
    "imageMessage": ("image", _media),
    "audioMessage": ("audio", _media),
    "videoMessage": ("video", _media),
    "ptvMessage": ("video", _media),
    "documentMessage": ("document", _media),
    "stickerMessage": ("sticker", _media),
    "locationMessage": ("location", _location),
    "contactMessage": ("contact", _contact),
    "reactionMessage": ("reaction", _reaction),
    "pollCreationMessage": ("poll", _poll),
    "pollCreationMessageV2": ("poll", _poll),
    "pollCreationMessageV3": ("poll", _poll),
    "pollUpdateMessage": ("pollVote", _poll_vote),
    "protocolMessage": ("protocol", _protocol),
}
_MEDIA_TYPES = {
    "imageMessage": "image",
    "audioMessage": "audio",
    "videoMessage": "video",
    "documentMessage": "document",
    "stickerMessage": "sticker",
    "locationMessage": "location",
    "contactMessage": "vcard",
}
