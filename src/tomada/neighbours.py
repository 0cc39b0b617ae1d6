"""What other domains do inside the lifecycle's transactions: the audit log, the queue, the last callback."""

from tomada.accounts import audit
from tomada.callbacks import events
from tomada.callbacks.shapes import Facts
from tomada.callbacks.store.quoting import last_connection_event
from tomada.callbacks.store.recording import write_events
from tomada.messages import store as messages
from tomada.postgres.pool import Connection


class LifecycleNeighbours:
    """Implements instances.lifecycle_store.Neighbours."""

    async def audit(
        self, connection: Connection, account_id: str, actor: str, action: str, subject: str, detail: object = None
    ) -> None:
        """Appends to the account's audit log."""
        await audit.append(connection, account_id, actor, action, subject, detail)

    async def cancel_queue(self, connection: Connection, instance_id: str) -> int:
        """Fails every message that waits, each reported by DeliveryCallback; returns how many."""
        failed = await messages.fail_all(connection, instance_id, messages.DELETED_WORDS)
        facts = Facts(instance_id, "")
        await write_events(
            connection,
            [
                events.delivery(
                    facts,
                    phone=message.chat,
                    zaap_id=message.zaap_id,
                    message_id=message.message_id,
                    at_ms=message.settled_ms or 0,
                    error=messages.DELETED_WORDS,
                )
                for message in failed
            ],
        )
        return len(failed)

    async def record_disconnected(self, connection: Connection, instance_id: str, dedupe_key: str) -> None:
        """Records a DisconnectedCallback under this occurrence, unless the integrator knows: the log-out was told."""
        if await last_connection_event(connection, instance_id) != "ConnectedCallback":
            return
        now_ms: int = await connection.fetchval("select real_now_ms()")
        await write_events(connection, [events.disconnected(Facts(instance_id, ""), now_ms, dedupe_key)])
