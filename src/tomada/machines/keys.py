"""What the host does with the session store: tables in the schema `machine`, which belong to the machine program.

A machine keeps the keys of its sessions there, through a role that may nothing else (postgres/machine_role.py). Which
device is whose is in `tomada_session`: its key is the instance and the epoch of its machine, `<instance>.<epoch>`, so
that a new machine cannot open its predecessor's keys and a late deletion cannot touch its successor's. Whatever belongs
to a device goes with its row, by foreign keys.
"""

from tomada.machines.database import Database

SCHEMA = "machine"


_EPOCHS = f"""
select split_part(key, '.', 2)::integer as epoch from {SCHEMA}.tomada_session
where split_part(key, '.', 1) = $1 order by 1
"""

_ERASE = f"""
with gone as (
    delete from {SCHEMA}.whatsmeow_device where jid in (
        select jid from {SCHEMA}.tomada_session
        where split_part(key, '.', 1) = $1 and split_part(key, '.', 2)::integer between $2 and $3
    )
    returning jid
)
select count(*) from gone
"""


def store_key(instance_id: str, epoch: int) -> str:
    """The key of a session in the store."""
    return f"{instance_id}.{epoch}"


async def epochs(database: Database, instance_id: str) -> list[int]:
    """The machines of an instance that have keys, oldest first."""
    return [row["epoch"] for row in await database.fetch(_EPOCHS, instance_id)]


async def erase(database: Database, instance_id: str, *, from_epoch: int, to_epoch: int) -> int:
    """Erase the keys of these machines of an instance; how many devices that were."""
    count: int = await database.fetchval(_ERASE, instance_id, from_epoch, to_epoch)
    return count
