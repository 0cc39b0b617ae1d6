"""What an engine's event becomes, on a real PostgreSQL: told once, twice or again after a restart, it is one event.

A machine tells again whatever was not acknowledged, so the copies here come as they would: read anew from JSON, and to
a pipeline that remembers nothing.
"""

from random import Random  # noqa: TID251 - seeded
from string import ascii_letters
from typing import Any

import asyncpg
import msgspec
import pytest

from tests.integration.callbacks.harness import Instance, make_account, make_instance
from tomada.callbacks.recorder import Recorder
from tomada.callbacks.store.quoting import find_received
from tomada.engine import port
from tomada.kit.clock import SystemClock
from tomada.messages.accept import Accepted, accept
from tomada.messages.store import MessageStore
from tomada.pipeline import Pipeline
from tomada.postgres.group_commit import GroupCommit
from tomada.postgres.pool import Pool

OURS, THEIRS, THEIR_LID = "5511900000001", "5511900000002", "900000000000002@lid"
GROUP = "120363999999999999-group"
AT_MS = 1_800_000_000_000


def pipeline(pool: Pool, phone: str = OURS, name: str = "Shop") -> Pipeline:
    """One that remembers nothing yet, as after a restart; its instance's phone and name as they were written down."""

    async def account(_instance_id: str) -> tuple[str, str]:
        return phone, name

    async def find(instance_id: str, chat: str, wa_id: str) -> tuple[str, str] | None:
        return await find_received(pool, instance_id, chat, wa_id)

    return Pipeline(MessageStore(pool), Recorder(pool), account, find, SystemClock(), lambda _: None, lambda *_: None)


def message(wa_id: str = "3EB0AA", text: str = "oi", **changes: Any) -> port.MessageReceived:
    """A text from them."""
    fields: dict[str, Any] = {
        "wa_id": wa_id,
        "chat": THEIRS,
        "chat_lid": THEIR_LID,
        "sender": THEIRS,
        "sender_lid": THEIR_LID,
        "from_me": False,
        "is_group": False,
        "at_ms": AT_MS,
        "push_name": "Bia",
        "content": port.TextReceived(text),
    }
    return port.MessageReceived(**{**fields, **changes})


def receipt(kind: str = "read", *wa_ids: str, **changes: Any) -> port.ReceiptReceived:
    """A receipt of theirs."""
    return port.ReceiptReceived(kind, wa_ids or ("3EB0BB",), THEIRS, THEIR_LID, False, AT_MS, **changes)


def copy(event: port.EngineEvent) -> port.EngineEvent:
    """The event as another process tells it."""
    again: port.EngineEvent = msgspec.json.decode(msgspec.json.encode(event), type=port.EngineEvent)
    return again


async def bodies(pool: Pool, instance: Instance) -> list[dict[str, Any]]:
    """What was recorded, in order."""
    rows = await pool.fetch("select payload::text from event where instance_id = $1 order by number", instance.id)
    return [msgspec.json.decode(row["payload"]) for row in rows]


@pytest.fixture
async def instance(pool: Pool) -> Instance:
    """An instance whose received events have a URL."""
    return await make_instance(pool, await make_account(pool), "https://example.com/received", notify_sent_by_me=True)


async def queued(pool: Pool, instance: Instance, content: port.Text, chat: str = THEIRS) -> Accepted:
    """An accepted message that was given to the engine."""
    committer = GroupCommit(pool)
    accepted = await accept(committer, instance.id, chat, content, None, 1000)
    await committer.close()
    await pool.execute("update outgoing_message set state = 'sending' where zaap_id = $1", accepted.zaap_id)
    return accepted


@pytest.mark.parametrize(
    "event",
    [
        message(),
        message(from_me=True, sender=OURS),
        message(chat=GROUP, is_group=True, chat_lid=None),
        message("3EB0CC", is_edit=True, edited_wa_id="3EB0AA"),
        receipt(),
        receipt("delivered", "3EB0BB", "3EB0BC"),
        port.ChatPresence(THEIRS, "COMPOSING"),
        port.Connected(OURS, "9@lid", "Shop", False),
        port.Disconnected("broke"),
        port.LoggedOut("unlinked"),
        port.Replaced(),
        port.Banned(101, AT_MS),
        port.Outdated(),
    ],
    ids=lambda event: type(event).__name__,
)
async def test_told_again_it_is_one_event(pool: Pool, instance: Instance, event: port.EngineEvent) -> None:
    """By the same pipeline, and by one that was just started."""
    one = pipeline(pool)
    await one.handle(instance.id, event, 7)
    await one.handle(instance.id, copy(event), 7)
    await pipeline(pool).handle(instance.id, copy(event), 7)
    assert len(await bodies(pool, instance)) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (message("A"), message("B")),
        (message("A"), message("A", chat=GROUP, is_group=True)),
        (message("A", chat=GROUP, is_group=True), message("A", chat=GROUP, is_group=True, sender="5511900000003")),
        (receipt("delivered", "A"), receipt("read", "A")),
        (receipt("read", "A"), receipt("read", "A", "B")),
        (receipt("read", "A"), receipt("read", "A", device=2)),
    ],
)
async def test_what_is_not_the_same_is_two_events(
    pool: Pool, instance: Instance, first: port.EngineEvent, second: port.EngineEvent
) -> None:
    """Another id, chat, author, status, set of messages or device is something else."""
    one = pipeline(pool)
    await one.handle(instance.id, first, 7)
    await one.handle(instance.id, second, 8)
    assert len(await bodies(pool, instance)) == 2


@pytest.mark.parametrize("wa_id", ["\0a", "".join(Random(1).choices(ascii_letters, k=9000))], ids=["nul", "long"])
async def test_an_id_that_no_row_can_hold_costs_no_event(pool: Pool, instance: Instance, wa_id: str) -> None:
    """Contacts choose ids: of a message, of what it quotes or edits, of a receipt. It is told, once, and as it came."""
    ordinary = message("3EB0CC", quoted_wa_id=wa_id)
    edit = message("3EB0CD", is_edit=True, edited_wa_id=wa_id)
    receipts = (receipt("read", wa_id, "3EB0CC"), receipt("read", "A", participant=wa_id))
    told: tuple[port.EngineEvent, ...] = (ordinary, edit, message(wa_id), *receipts)
    for _ in range(2):
        for number, event in enumerate(told):
            await pipeline(pool).handle(instance.id, copy(event), number)
    quoting, edited, chosen, status, _ = await bodies(pool, instance)
    assert quoting["referenceMessageId"] == edited["messageId"] == chosen["messageId"] == wa_id
    assert status["ids"] == [wa_id, "3EB0CC"]


async def test_two_ids_that_no_row_can_hold_are_two_events(pool: Pool, instance: Instance) -> None:
    """What stands for them in the dedupe key tells them apart."""
    for number, wa_id in enumerate(("\0a", "\0b", "x" * 9000, "x" * 9001)):
        await pipeline(pool).handle(instance.id, message(wa_id), number)
    assert len(await bodies(pool, instance)) == 4


async def test_a_send_is_settled_and_told_or_neither(pool: Pool, instance: Instance) -> None:
    """Regression: killed between the two, its DeliveryCallback was told by nobody, for no machine tells it again."""
    accepted = await queued(pool, instance, port.Text("oi"))
    sent = port.MessageSent(accepted.message_id, AT_MS)
    await pool.execute(_REFUSE_EVENTS)
    with pytest.raises(asyncpg.RaiseError):
        await pipeline(pool).handle(instance.id, sent, 7)
    assert await pool.fetchval("select state from outgoing_message") == "sending"

    await pool.execute("drop trigger refuse on event")
    for _ in range(2):
        await pipeline(pool).handle(instance.id, copy(sent), 7)

    told = await bodies(pool, instance)
    assert [body["type"] for body in told] == ["DeliveryCallback", "MessageStatusCallback", "ReceivedCallback"]
    assert told[0]["messageId"] == told[2]["messageId"] == accepted.message_id
    assert told[1]["ids"] == [accepted.message_id]


async def test_a_failure_told_again_is_one_callback_with_its_words(pool: Pool, instance: Instance) -> None:
    """The message is settled, and DeliveryCallback says why."""
    accepted = await queued(pool, instance, port.Text("oi"))
    failed = port.MessageFailed(accepted.message_id, "no LID found", code=404)
    for _ in range(2):
        await pipeline(pool).handle(instance.id, copy(failed), 7)
    (told,) = await bodies(pool, instance)
    assert (told["messageId"], told["error"]) == (accepted.message_id, "Phone number does not exist")


_REFUSE_EVENTS = """
create function refuse() returns trigger language plpgsql as 'begin raise exception ''killed''; end';
create trigger refuse before insert on event for each row execute function refuse();
"""


async def test_giving_a_message_up_settles_and_tells_it_or_does_neither(pool: Pool, instance: Instance) -> None:
    """Regression: killed between the two, its failure was told by nobody, for no machine tells of it."""
    accepted = await queued(pool, instance, port.Text("oi"))
    message = await MessageStore(pool).head(instance.id)
    assert message is not None
    await pool.execute(_REFUSE_EVENTS)
    with pytest.raises(asyncpg.RaiseError):
        await pipeline(pool).gave_up(message, "too large")
    assert await MessageStore(pool).head(instance.id) == message

    await pool.execute("drop trigger refuse on event")
    for _ in range(2):
        await pipeline(pool).gave_up(message, "too large")

    assert await MessageStore(pool).head(instance.id) is None
    (told,) = await bodies(pool, instance)
    assert (told["messageId"], told["error"]) == (accepted.message_id, "too large")


@pytest.mark.parametrize("state", ["sent", "cancelled"])
async def test_what_was_settled_otherwise_is_not_given_up(pool: Pool, instance: Instance, state: str) -> None:
    """Sent after all, or removed from the queue at that moment: it did not fail, and nothing says so."""
    await queued(pool, instance, port.Text("oi"))
    message = await MessageStore(pool).head(instance.id)
    assert message is not None
    await pool.execute("update outgoing_message set state = $1", state)

    await pipeline(pool).gave_up(message, "too large")

    assert await bodies(pool, instance) == []
    assert await pool.fetchval("select state from outgoing_message") == state


async def test_our_own_name_is_told_as_soon_as_it_is_known(pool: Pool, instance: Instance) -> None:
    """Written down: after a restart. Told later: from then on, with no second ConnectedCallback. Another phone: no."""
    numbers = iter(range(1, 100))

    async def sender_name(one: Pipeline) -> str:
        accepted = await queued(pool, instance, port.Text("oi"))
        await one.handle(instance.id, port.MessageSent(accepted.message_id, AT_MS), next(numbers))
        return str((await bodies(pool, instance))[-1]["senderName"])

    assert await sender_name(pipeline(pool)) == "Shop"
    new = pipeline(pool, "", "")
    await new.handle(instance.id, copy(port.Connected(OURS, "9@lid", "", False)), 1)
    assert await sender_name(new) == OURS
    await new.handle(instance.id, copy(port.Named("Shop 2")), 2)
    assert await sender_name(new) == "Shop 2"
    await new.handle(instance.id, copy(port.Connected(OURS, "9@lid", "", False)), 3)
    assert await sender_name(new) == "Shop 2"
    await new.handle(instance.id, copy(port.Connected(THEIRS, "9@lid", "", False)), 4)
    assert await sender_name(new) == THEIRS
    kinds = [body["type"] for body in await bodies(pool, instance)]
    assert kinds.count("ConnectedCallback") == 3


async def test_ids_of_an_older_version_are_shown_as_they_were_told(pool: Pool, instance: Instance) -> None:
    """Receipts, replies and edits speak of the messageId of old, although WhatsApp knows the message by another one."""
    accepted = await sent_by_an_older_version(pool, instance, "oi", "3EB0DD")
    again = pipeline(pool)
    await again.handle(instance.id, receipt("read", "3EB0DD", "3EB0UNKNOWN"), 8)
    await again.handle(instance.id, message("3EB0EE", quoted_wa_id="3EB0DD"), 9)
    await again.handle(
        instance.id, message("3EB0FF", from_me=True, sender=OURS, is_edit=True, edited_wa_id="3EB0DD"), 10
    )

    status, reply, edit = await bodies(pool, instance)
    assert status["ids"] == [accepted.message_id, "3EB0UNKNOWN"]
    assert (reply["messageId"], reply["referenceMessageId"]) == ("3EB0EE", accepted.message_id)
    assert (edit["messageId"], edit["isEdit"]) == (accepted.message_id, True)


async def test_what_is_quoted_goes_out_under_whatsapps_id(pool: Pool, instance: Instance) -> None:
    """A reply to ours, to one of an older version, to theirs (with author and text), to one never seen; an edit."""
    old = await sent_by_an_older_version(pool, instance, "asked then", "3EB0DD")
    ours = await queued(pool, instance, port.Text("asked"))
    one = pipeline(pool)
    await one.handle(instance.id, port.MessageSent(ours.message_id, AT_MS), 7)
    await one.handle(instance.id, message("3EB0EE", "in the group", chat=GROUP, is_group=True), 8)

    async def resolved(content: port.Text, chat: str = THEIRS) -> port.Content:
        await queued(pool, instance, content, chat)
        (*_, last) = [row async for row in _messages(pool, instance)]
        return await pipeline(pool).resolve(last)

    to_ours = await resolved(port.Text("x", quote=port.Quote(ours.message_id, THEIRS)))
    assert to_ours.quote == port.Quote(ours.message_id, OURS, "asked")
    to_old = await resolved(port.Text("x", quote=port.Quote(old.message_id, THEIRS)))
    assert to_old.quote == port.Quote("3EB0DD", OURS, "asked then")
    to_theirs = await resolved(port.Text("x", quote=port.Quote("3EB0EE", GROUP)), GROUP)
    assert to_theirs.quote == port.Quote("3EB0EE", THEIRS, "in the group")
    to_nothing = await resolved(port.Text("x", quote=port.Quote("3EB0ZZ", THEIRS)))
    assert to_nothing.quote == port.Quote("3EB0ZZ", THEIRS, "")
    assert (await resolved(port.Text("x", edits_wa_id=ours.message_id))).edits_wa_id == ours.message_id
    assert (await resolved(port.Text("x", edits_wa_id=old.message_id))).edits_wa_id == "3EB0DD"


async def _nobody(_connection: object, _message: object) -> None:
    """Was told of it."""


async def sent_by_an_older_version(pool: Pool, instance: Instance, text: str, wa_id: str) -> Accepted:
    """A message that WhatsApp knows under an id of its own choice."""
    accepted = await queued(pool, instance, port.Text(text))
    await MessageStore(pool).took_old_id(instance.id, accepted.zaap_id, wa_id)
    await MessageStore(pool).settle(instance.id, accepted.message_id, "sent", None, _nobody)
    return accepted


async def _messages(pool: Pool, instance: Instance) -> Any:
    store = MessageStore(pool)
    rows = "select message_id from outgoing_message where instance_id = $1 order by number"
    for row in await pool.fetch(rows, instance.id):
        yield await store.by_message_id(instance.id, row["message_id"])


async def test_an_instance_that_is_gone_is_no_error(pool: Pool) -> None:
    """Its machine's last words are taken and forgotten."""
    for event in (message(), receipt(), port.MessageSent("3EB0", AT_MS), port.Disconnected("x")):
        await pipeline(pool).handle("N" * 32, event, 7)
    assert await pool.fetchval("select count(*) from event") == 0
