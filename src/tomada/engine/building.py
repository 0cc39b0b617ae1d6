"""What is sent: from the port's content to the bytes of WhatsApp's message. Pure functions."""

from typing import Any

from tomada.engine.addresses import jid_of
from tomada.engine.port import Content, Text
from tomada.kit.protobufs import Package

_common, _e2e = Package("WACommon"), Package("WAWebProtobufsE2E")


def chat_of(chat: str, content: Content) -> str:
    """Where a message goes: to its chat, or for an answer in private to a group's message, to whoever wrote that."""
    return content.quote.sender if _in_private(chat, content) and content.quote else chat


def message_of(chat: str, content: Content, now_ms: int) -> bytes:
    """A WAWebProtobufsE2E.Message; raises EngineRefused when an address in it means nothing."""
    body = _text(content)
    if _in_private(chat, content):  # names the group, so that the quote leads back to it
        body.extendedTextMessage.contextInfo.remoteJID = str(jid_of(chat))
    message = _edit(chat, content.edits_wa_id, body, now_ms) if content.edits_wa_id else body
    encoded: bytes = message.SerializeToString()
    return encoded


def _text(text: Text) -> Any:
    """A bare text stays the short form; whatever refers to something needs the long one."""
    if text.quote is None and not text.mentioned and not text.group_mentioned:
        return _e2e.Message(conversation=text.message)
    context = _e2e.ContextInfo(
        mentionedJID=[str(jid_of(person)) for person in text.mentioned],
        groupMentions=[
            _e2e.GroupMention(groupJID=str(jid_of(mention.group)), groupSubject=mention.subject)
            for mention in text.group_mentioned
        ],
    )
    if text.quote is not None:
        context.stanzaID = text.quote.wa_id
        context.participant = str(jid_of(text.quote.sender))
        context.quotedMessage.conversation = text.quote.text
    return _e2e.Message(extendedTextMessage=_e2e.ExtendedTextMessage(text=text.message, contextInfo=context))


def _in_private(chat: str, content: Content) -> bool:
    """A quote whose author is not known is told to be by the chat itself: such an answer stays in the group."""
    quote = content.quote
    return content.private_answer and chat.endswith("-group") and quote is not None and quote.sender != chat


def _edit(chat: str, wa_id: str, body: Any, now_ms: int) -> Any:
    """The form in which WhatsApp's own apps edit: a protocol message that names the old one and holds the new."""
    change = _e2e.ProtocolMessage(
        key=_common.MessageKey(remoteJID=str(jid_of(chat)), fromMe=True, ID=wa_id),
        type=_e2e.ProtocolMessage.MESSAGE_EDIT,
        editedMessage=body,
        timestampMS=now_ms,
    )
    return _e2e.Message(editedMessage=_e2e.FutureProofMessage(message=_e2e.Message(protocolMessage=change)))
