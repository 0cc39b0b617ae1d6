"""What deleting an instance erases in the database: every table and every column, by name.

A table with the column `instance_id` must be in TABLES or KEPT, a column of `instance` in COLUMNS or TOMBSTONE; a test
compares both with the schema, so that whoever adds one must say here what becomes of it.

Of messages and events there may be millions, more than one statement removes in its time: they go in parts first.
"""

from tomada.instances.deletion import Step
from tomada.postgres.pool import Connection, rows_changed

# Children first; `lane` last, since what it still holds goes with it.
_CALLBACKS = ("dead_letter", "callback", "attempt", "replay", "event", "lane")

TABLES: dict[Step, tuple[str, ...]] = {
    Step.SESSION: ("session",),
    Step.EVENTS: ("outgoing_message", "quarantined_event", *_CALLBACKS),
    # What came since: events are recorded until the token is gone (callbacks/store/recording.py).
    Step.TOMBSTONE: ("quarantined_event", *_CALLBACKS),
}
"""Which step removes the instance's rows from which table, in order."""

KEPT = frozenset({"deletion"})
"""Tables that keep their rows: the proof that the rest is gone. They hold ids, times and counts."""

COLUMNS: dict[Step, dict[str, str]] = {
    Step.TOKENS: {"token_hash": "''", "token_sealed": "''"},
    Step.TOMBSTONE: {
        "name": "''",
        "session_name": "''",
        "call_reject_message": "null",
        "delivery_callback_url": "null",
        "received_callback_url": "null",
        "received_and_delivery_callback_url": "null",
        "disconnected_callback_url": "null",
        "connected_callback_url": "null",
        "message_status_callback_url": "null",
        "presence_chat_callback_url": "null",
    },
}
"""Which step overwrites which column of `instance`, and with what."""

TOMBSTONE = frozenset(
    (
        *("id", "account_id", "state", "created_ms", "due_ms", "epoch", "event_number", "revision", "with_calls"),
        *("ended_ms", "retire_ms", "next_ms", "suspended_until_ms", "notify_sent_by_me", "call_reject_auto"),
        *("auto_read_message", "auto_read_status", "is_device", "business_device", "enqueue_when_disconnected"),
    )
)
"""The columns that a tombstone keeps: they tell nothing of anybody."""


PART = 2000

_MESSAGES_END = "select number from outgoing_message where instance_id = $1 order by number offset $2 limit 1"
_EVENTS_END = "select number from event where instance_id = $1 order by number offset $2 limit 1"
_OF_EVENTS = {"dead_letter": "event_number", "callback": "event_number", "attempt": "event_number", "event": "number"}

# Whoever settles locks lanes before callbacks. Lanes are due no more: a dispatcher that found a gap where callbacks
# were would look for them again and again.
_LOCK_LANES = "select from lane where instance_id = $1 order by url for update"
_SILENCE = "update lane set due_ms = null, done_position = last_position where instance_id = $1"


async def erase_part(connection: Connection, instance_id: str) -> dict[str, int]:
    """Erases the oldest PART messages, and the oldest PART events with all that belongs to them.

    Returns how many rows of which table; nothing if fewer are left, which `erase` removes with the rest.
    """
    removed = {}
    last = await connection.fetchval(_MESSAGES_END, instance_id, PART - 1)
    if last is not None:
        removed["outgoing_message"] = await _delete(connection, "outgoing_message", instance_id, f"number <= {last}")
    last = await connection.fetchval(_EVENTS_END, instance_id, PART - 1)
    if last is not None:
        await connection.execute(_LOCK_LANES, instance_id)
        await connection.execute(_SILENCE, instance_id)
        for table, number in _OF_EVENTS.items():
            removed[table] = await _delete(connection, table, instance_id, f"{number} <= {last}")
    return removed


async def erase(connection: Connection, instance_id: str, step: Step) -> dict[str, int]:
    """Does a local step; returns how many rows of which table (or columns of the instance) it removed."""
    removed = {}
    for table in TABLES.get(step, ()):
        removed[table] = await _delete(connection, table, instance_id)
    if columns := COLUMNS.get(step):
        assignments = ", ".join(f"{column} = {value}" for column, value in columns.items())
        await connection.execute(f"update instance set {assignments} where id = $1", instance_id)  # noqa: S608 - constants
        removed["columns"] = len(columns)
    return removed


async def _delete(connection: Connection, table: str, instance_id: str, which: str = "true") -> int:
    status = await connection.execute(f"delete from {table} where instance_id = $1 and {which}", instance_id)  # noqa: S608 - constants and numbers
    return rows_changed(status)
