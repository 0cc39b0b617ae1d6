"""What a reply refers to is found whatever order the database gives to text."""

from tests.integration.callbacks.harness import make_account, make_instance
from tomada.callbacks import events
from tomada.callbacks.recorder import Recorder
from tomada.callbacks.shapes import Facts
from tomada.callbacks.store.quoting import find_received
from tomada.engine.port import MessageReceived, TextReceived
from tomada.postgres.pool import Pool

_ORDER = """
select c.collname from pg_attribute a join pg_collation c on c.oid = a.attcollation
where a.attrelid = 'event'::regclass and a.attname = 'dedupe_key'
"""


def _message(chat: str, wa_id: str, text: str) -> MessageReceived:
    return MessageReceived(
        wa_id=wa_id,
        chat=chat,
        chat_lid=None,
        sender=chat,
        sender_lid=None,
        from_me=False,
        is_group=False,
        at_ms=1,
        push_name="",
        content=TextReceived(message=text),
    )


async def test_a_quoted_message_is_found_in_its_own_chat(pool: Pool) -> None:
    """Author and text, among chats whose addresses begin alike."""
    instance = await make_instance(pool, await make_account(pool), None)
    facts = Facts(instance.id, "5511900000000")
    chats = ("5511999999999", "55119999999990", "551199999999")
    told = [_message(chat, "A1", f"hello from {chat}") for chat in chats]
    await Recorder(pool).record([events.received(facts, message, message_id="A1") for message in told])
    for chat in chats:
        assert await find_received(pool, instance.id, chat, "A1") == (chat, f"hello from {chat}")
    assert await find_received(pool, instance.id, "5511", "A1") is None


async def test_the_key_is_in_the_order_of_bytes_in_every_database(pool: Pool) -> None:
    """In the order of a language `;` comes before `:`, and nothing is found. The embedded server knows no language."""
    assert await pool.fetchval(_ORDER) == "C"
