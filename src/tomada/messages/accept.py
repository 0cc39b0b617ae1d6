"""From a validated call to a durable row. The caller hears its ids only after the commit."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from tomada.engine.port import Content
from tomada.errors import QueueFull
from tomada.kit import ids
from tomada.messages import store

# Runs one statement in a shared transaction and gives its row, or None; see postgres/group_commit.py.
CommitOne = Callable[..., Awaitable[Any]]


class Accepted(msgspec.Struct, frozen=True):
    """The names of an accepted message: `zaap_id` of the queue entry, `message_id` as later callbacks show it."""

    zaap_id: str
    message_id: str


async def accept(
    commit_one: CommitOne, instance_id: str, chat: str, content: Content, delay_s: float | None, queue_max: int
) -> Accepted:
    """Queue a message. Raises QueueFull when `queue_max` messages wait already.

    The ids are made here and unique in the database, so a commit that is repeated after a broken connection queues
    the message once.
    """
    accepted = Accepted(ids.zaap_id(), ids.message_id())
    row = await commit_one(
        store.ACCEPT,
        instance_id,
        accepted.zaap_id,
        accepted.message_id,
        chat,
        msgspec.json.encode(content).decode(),
        delay_s,
        queue_max,
    )
    if row is None:
        raise QueueFull(f"The queue of this instance is full ({queue_max} messages)")
    return accepted
