"""What the wire needs of the rest of Tomada. The wire defines these; app.py gives it what fits."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from tomada.accounts.limits import Buckets
from tomada.accounts.store import AccountStore
from tomada.engine.port import Content
from tomada.instances.create import CheckUrl
from tomada.instances.store import InstanceStore
from tomada.kit.sealing import Sealer
from tomada.messages.accept import Accepted
from tomada.messages.store import Listed
from tomada.postgres.group_commit import GroupCommit
from tomada.postgres.pool import Pool
from tomada.wire.failed_logins import FailedLogins


class SessionStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of an instance's session; `condition` as in the table `session`, `reason` in words."""

    condition: str = "unpaired"
    reason: str | None = None
    phone: str | None = None
    push_name: str | None = None
    is_business: bool = False
    platform: str | None = None


class Sessions(Protocol):
    """The machines. Every call may raise Unavailable, MachineTimeout or NotConnected."""

    async def qr(self, instance_id: str) -> str | None:
        """The QR text to scan now, starting a machine and a round of codes if none is on; None when connected."""

    async def phone_code(self, instance_id: str, phone: str) -> str:
        """A pairing code (`ABCD-1234`) for this number."""

    async def logout(self, instance_id: str) -> None:
        """Unlink from WhatsApp; harmless when there is nothing to unlink."""

    async def restart(self, instance_id: str) -> None:
        """Stop the session and start it again with its keys."""

    async def restore(self, instance_id: str) -> None:
        """Bring a session that rests (replaced, failed) back; harmless when it is connected."""

    async def status(self, instance_id: str) -> SessionStatus:
        """The session as it is now; reads only, never starts anything."""


class Messages(Protocol):
    """Accepting messages to send."""

    async def accept(self, instance_id: str, chat: str, content: Content, delay_s: float | None) -> Accepted:
        """Queue a message durably. Quotes and edits carry the wire's own message ids. Raises QueueFull."""


class Queue(Protocol):
    """The messages that wait; see messages.store.MessageStore."""

    async def page(
        self, account_id: str, instance_id: str, size: int, *, after_number: int = 0, skip: int = 0
    ) -> list[Listed]:
        """Waiting messages in order, after a number, without the first `skip`; texts as far as there is room."""

    async def count(self, account_id: str, instance_id: str) -> int:
        """How many wait."""

    async def cancel(self, account_id: str, instance_id: str, either_id: str | None) -> list[str]:
        """Remove one, or (None) all; returns the removed zaap ids."""


class WireSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The wire's own figures."""

    trial_ms: int = 48 * 3600 * 1000
    body_bytes_max: int = 1 << 20  # no JSON of today's calls comes near; media by URL has calls of its own
    public_url: str | None = None  # shown in the OpenAPI document


class Ports(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the routes use. `database_trouble` says why it takes no writes, if so (GET /ready)."""

    accounts: AccountStore
    instances: InstanceStore
    sealer: Sealer
    committer: GroupCommit
    pool: Pool  # for what must share one transaction across domains
    check_url: CheckUrl
    sessions: Sessions
    messages: Messages
    queue: Queue
    logins: FailedLogins
    rates: Buckets  # messages per minute, by account
    database_trouble: Callable[[], str | None]
    settings: WireSettings = WireSettings()
