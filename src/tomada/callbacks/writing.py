"""Writes what came of a batch of lanes, in one transaction, with the notice of each URL that was disabled by it."""

from collections.abc import Sequence

import msgspec

from tomada.callbacks.store.delivered import is_delivered, settle_delivered
from tomada.callbacks.store.recording import write_events
from tomada.callbacks.store.settling import Settled, settle
from tomada.callbacks.types import NewEvent, Settlement, Target
from tomada.postgres.pool import Connection


async def write(connection: Connection, batch: Sequence[Settlement]) -> Settled:
    """All of the batch or nothing; committed when it returns."""
    if all(map(is_delivered, batch)):
        return await settle_delivered(connection, batch)
    async with connection.transaction():
        settled = await settle(connection, batch)
        notices = [_disabled_notice(s) for s in batch if s.disable and s.lane.id in settled.ours]
        if notices:
            await write_events(connection, notices)
    return settled


def _disabled_notice(settlement: Settlement) -> NewEvent:
    """An entry in the instance's history, for the operator and the integrator; it is not sent anywhere."""
    lane = settlement.lane
    body = {
        "type": "CallbackUrlDisabled",
        "instanceId": lane.instance_id,
        "url": lane.url,
        "reason": settlement.disable,
    }
    return NewEvent(
        instance_id=lane.instance_id,
        target=Target.NOBODY,
        type="CallbackUrlDisabled",
        payload=msgspec.json.encode(body).decode(),
        dedupe_key=f"url-disabled:{lane.id}:{lane.epoch}",
    )
