"""Events that our own code could not handle or does not know, kept as a machine told them.

A row is committed before the event is acknowledged, so nothing is lost for a fault of ours; it goes with its instance
(instances/erasure.py). `tomada_events_quarantined` counts them, and the log names each as an error.
"""

from tomada.machines.database import Database

# Nothing if the instance is gone: what was to be told of it, nobody hears any more.
_PUT = """
insert into quarantined_event (instance_id, error, event)
select id, $2, $3 from instance where id = $1
"""


async def put(database: Database, instance_id: str, raw: bytes, error: str) -> None:
    """Keep an event; `error` names the kind of error, never its text, which may show what the event says."""
    await database.execute(_PUT, instance_id, error, raw)
