"""Looking back in an instance's history: what a reply refers to, and what was last told of the connection."""

import msgspec

from tomada.postgres.pool import Connection, Pool

# The dedupe key of a received message begins with its chat and ends with WhatsApp's id (events.py): the unique index
# narrows it to the chat, for the column is in the order of bytes. That of a language may put `;` before `:`.
_FIND = """
select payload from event
where instance_id = $1 and dedupe_key >= $2 and dedupe_key < $3 and right(dedupe_key, length($4)) = $4
limit 1
"""

_LAST_CONNECTION_EVENT = """
select type from event
where instance_id = $1 and type in ('ConnectedCallback', 'DisconnectedCallback') order by number desc limit 1
"""


class _Text(msgspec.Struct):
    message: str = ""


class _Received(msgspec.Struct):
    phone: str
    fromMe: bool  # noqa: N815 - the wire's names
    connectedPhone: str  # noqa: N815
    participantPhone: str | None = None  # noqa: N815
    text: _Text | None = None


async def find_received(pool: Pool, instance_id: str, chat: str, wa_id: str) -> tuple[str, str] | None:
    """Who wrote the message `wa_id` of a chat, and its text; None if it was not received here."""
    payload = await pool.fetchval(_FIND, instance_id, f"message:{chat}:", f"message:{chat};", f":{wa_id}")
    if payload is None:
        return None
    received = msgspec.json.decode(payload, type=_Received)
    sender = received.connectedPhone if received.fromMe else received.participantPhone or received.phone
    return sender, received.text.message if received.text else ""


async def last_connection_event(connection: Connection, instance_id: str) -> str | None:
    """The type of the newest ConnectedCallback or DisconnectedCallback; None if there never was one."""
    kind: str | None = await connection.fetchval(_LAST_CONNECTION_EVENT, instance_id)
    return kind
