"""What is sent: from the port's content to WhatsApp's message. Pure functions."""

from typing import Any

from tomada.engine.neonize_addresses import jid_text
from tomada.engine.neonize_protos import common, e2e
from tomada.engine.port import Content, Text


def chat_of(chat: str, content: Content) -> str:
    """Where a message goes: to its chat, or for an answer in private to a group's message, to whoever wrote that."""
    return content.quote.sender if _in_private(chat, content) and content.quote else chat


def message_of(chat: str, content: Content, now_ms: int) -> Any:
    """An e2e.Message; raises EngineRefused when an address in it means nothing."""
    body = _text(content)
    if _in_private(chat, content):  # names the group, so that the quote leads back to it
        body.extendedTextMessage.contextInfo.remoteJID = jid_text(chat)
    return _edit(chat, content.edits_wa_id, body, now_ms) if content.edits_wa_id else body


def _text(text: Text) -> Any:
    """A bare text stays the short form; whatever refers to something needs the long one."""
    if text.quote is None and not text.mentioned and not text.group_mentioned:
        return e2e.Message(conversation=text.message)
    context = e2e.ContextInfo(
        mentionedJID=[jid_text(person) for person in text.mentioned],
        groupMentions=[
            e2e.GroupMention(groupJID=jid_text(mention.group), groupSubject=mention.subject)
            for mention in text.group_mentioned
        ],
    )
    if text.quote is not None:
        context.stanzaID = text.quote.wa_id
        context.participant = jid_text(text.quote.sender)
        context.quotedMessage.conversation = text.quote.text
    return e2e.Message(extendedTextMessage=e2e.ExtendedTextMessage(text=text.message, contextInfo=context))


def _in_private(chat: str, content: Content) -> bool:
    """A quote whose author is not known is told to be by the chat itself: such an answer stays in the group."""
    quote = content.quote
    return content.private_answer and chat.endswith("-group") and quote is not None and quote.sender != chat


def _edit(chat: str, wa_id: str, body: Any, now_ms: int) -> Any:
    """The form in which WhatsApp's own apps edit: a protocol message that names the old one and holds the new."""
    change = e2e.ProtocolMessage(
        key=common.MessageKey(remoteJID=jid_text(chat), fromMe=True, ID=wa_id),
        type=e2e.ProtocolMessage.MESSAGE_EDIT,
        editedMessage=body,
        timestampMS=now_ms,
    )
    return e2e.Message(editedMessage=e2e.FutureProofMessage(message=e2e.Message(protocolMessage=change)))
