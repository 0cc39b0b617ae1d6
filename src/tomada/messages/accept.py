"""From a validated call to a durable row. The caller hears its ids only after the commit."""

import msgspec

from tomada.engine.port import Content
from tomada.errors import QueueFull, SubscriptionNeeded
from tomada.kit import ids
from tomada.messages.store import ACCEPT
from tomada.postgres.group_commit import GroupCommit


class Accepted(msgspec.Struct, frozen=True):
    """The names of an accepted message: `zaap_id` of the queue entry, `message_id` as later callbacks show it."""

    zaap_id: str
    message_id: str


async def accept(
    committer: GroupCommit, instance_id: str, chat: str, content: Content, delay_s: float | None, queue_max: int
) -> Accepted:
    """Queue a message. Raises QueueFull when `queue_max` messages wait already, SubscriptionNeeded if the
    instance has just ended, Unavailable without a database.

    The ids are made here, so a commit that is repeated after a broken connection queues the message once.
    """
    accepted = Accepted(ids.zaap_id(), ids.message_id())
    encoded = msgspec.json.encode(content).decode()
    row = await committer.execute(
        ACCEPT, instance_id, accepted.zaap_id, accepted.message_id, chat, encoded, delay_s, queue_max
    )
    assert row is not None  # the statement always gives one
    if row["number"] is None and not row["live"]:
        raise SubscriptionNeeded
    if row["number"] is None:
        raise QueueFull(f"The queue of this instance is full ({queue_max} messages)")
    return accepted
