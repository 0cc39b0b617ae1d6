"""Create, at once or once only.

With the header Idempotency-Key (ours, optional) a create may be sent again after a broken connection: the same key and
the same bytes give the same instance, other bytes are refused, and while the first is being answered a second one hears
409. Key and instance are of two domains; the promise holds because both are written in one transaction.
"""

from typing import Any

import msgspec

from tomada.accounts import idempotency
from tomada.errors import BadInput, TomadaError
from tomada.instances.create import Execute, create
from tomada.instances.model import NewInstance
from tomada.postgres.group_commit import Statement
from tomada.wire.ports import Ports
from tomada.wire.replies import Created

KEY_LENGTH_MAX = 255
_PATH = "/instances/integrator/on-demand"


async def create_now(ports: Ports, account_id: str, wanted: NewInstance) -> Created:
    """Make an instance in a transaction shared with others."""
    return await _create(ports, ports.committer.execute, account_id, wanted)


async def create_once(ports: Ports, account_id: str, key: str, raw: bytes, wanted: NewInstance) -> Created:
    """Make the instance of this key, or give the reply that was given before.

    Raises Refused (the key was used for another request), Conflict (the first one is being answered), and as create.
    """
    if len(key) > KEY_LENGTH_MAX or not key.isprintable():
        raise BadInput(f"Idempotency-Key: from 1 to {KEY_LENGTH_MAX} printable characters")
    context = f"idempotency:{account_id}:{key}"
    hashed = idempotency.request_hash("POST", _PATH, raw)
    held = await idempotency.claim(ports.pool, account_id, key, hashed)
    if isinstance(held, idempotency.Replay):
        return msgspec.json.decode(ports.sealer.open(held.reply_sealed, context), type=Created)
    try:
        async with ports.pool.acquire() as connection, connection.transaction():

            async def execute(statement: Statement, *arguments: object) -> Any:
                return await connection.fetchrow(statement.sql, *arguments)

            created = await _create(ports, execute, account_id, wanted)
            sealed = ports.sealer.seal(msgspec.json.encode(created).decode(), context)
            await idempotency.complete(connection, held, sealed)
    except TomadaError:
        await idempotency.release(ports.pool, held)
        raise
    return created


async def _create(ports: Ports, execute: Execute, account_id: str, wanted: NewInstance) -> Created:
    made = await create(execute, ports.sealer, ports.check_url, account_id, ports.settings.trial_ms, wanted)
    return Created(made.id, made.token, made.due_ms)
