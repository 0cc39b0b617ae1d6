"""Where one part's port meets another part: small classes that fit what exists to what is asked for. No decisions."""

from collections.abc import Callable

from tomada.accounts import audit
from tomada.callbacks import events
from tomada.callbacks.shapes import Facts
from tomada.callbacks.store.quoting import last_connection_event
from tomada.callbacks.store.recording import write_events
from tomada.engine.port import Content
from tomada.errors import NotFound
from tomada.instances.store import InstanceStore
from tomada.machines.control import AlreadyConnected, SessionControl
from tomada.messages import store as messages
from tomada.messages.accept import Accepted, accept
from tomada.postgres.group_commit import GroupCommit
from tomada.postgres.pool import Connection
from tomada.wire.ports import SessionStatus


class WireSessions:
    """The machines, as wire.ports.Sessions wants them."""

    def __init__(self, control: SessionControl) -> None:
        self._control = control
        self.phone_code = control.phone_code
        self.restart = control.restart
        self.restore = control.restore

    async def qr(self, instance_id: str) -> str | None:
        """The QR text to scan now; None when connected."""
        code = await self._control.qr(instance_id)
        return None if isinstance(code, AlreadyConnected) else code.code

    async def logout(self, instance_id: str) -> None:
        """Unlink from WhatsApp."""
        await self._control.logout(instance_id)

    async def status(self, instance_id: str) -> SessionStatus:
        """What the wire shows of a session."""
        status = await self._control.status(instance_id)
        return SessionStatus(**{name: getattr(status, name) for name in SessionStatus.__struct_fields__})


class WireMessages:
    """messages.accept, as wire.ports.Messages wants it; the sender is woken after the commit."""

    def __init__(self, committer: GroupCommit, queue_max: int, wake: Callable[[str], None]) -> None:
        self._committer = committer
        self._queue_max = queue_max
        self._wake = wake

    async def accept(self, instance_id: str, chat: str, content: Content, delay_s: float | None) -> Accepted:
        """Queue a message durably."""
        accepted = await accept(self._committer, instance_id, chat, content, delay_s, self._queue_max)
        self._wake(instance_id)
        return accepted


class HostSpecs:
    """What the host must know of an instance to open its session, as machines.host.SpecSource wants it."""

    def __init__(self, instances: InstanceStore) -> None:
        self._instances = instances

    async def session_name(self, instance_id: str) -> str:
        """Its session name. A deleted one's too: it is opened once more, to log out."""
        name = await self._instances.session_name(instance_id)
        if name is None:
            raise NotFound
        return name


class LifecycleNeighbours:
    """What other domains do inside the lifecycle's transactions, as instances.lifecycle_store.Neighbours wants it."""

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
                    at_ms=message.settled_ms,
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
