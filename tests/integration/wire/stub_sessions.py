"""Stand-ins for what lies behind the wire, where a test is about the wire alone."""

import asyncio

import msgspec

from tomada.engine.port import Content
from tomada.kit import ids
from tomada.messages.accept import Accepted
from tomada.messages.store import Listed, Outgoing
from tomada.wire.ports import SessionStatus

QR_TEXT = "2@" + "q1W2e3R4" * 25 + ",c2FtcGxl,a2V5,aWRlbnRpdHk="


class StubSessions:
    """Sessions that remember what they were asked; `known` holds what status answers."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.known: dict[str, SessionStatus] = {}
        self.asked: list[tuple[str, ...]] = []
        self.fails: Exception | None = None

    async def qr(self, instance_id: str) -> str | None:
        """A code, or None when connected."""
        self._note("qr", instance_id)
        return None if (await self.status(instance_id)).condition == "connected" else QR_TEXT

    async def phone_code(self, instance_id: str, phone: str) -> str:
        """A fixed code."""
        self._note("phone_code", instance_id, phone)
        return "ABCD-1234"

    async def logout(self, instance_id: str) -> None:
        """Note it."""
        self._note("logout", instance_id)

    async def restart(self, instance_id: str) -> None:
        """Note it."""
        self._note("restart", instance_id)

    async def restore(self, instance_id: str) -> None:
        """Note it."""
        self._note("restore", instance_id)

    async def status(self, instance_id: str) -> SessionStatus:
        """What the test put there."""
        return self.known.get(instance_id, SessionStatus())

    def _note(self, *call: str) -> None:
        if self.fails is not None:
            raise self.fails
        self.asked.append(call)


class StubMessages:
    """A queue in memory, in the shape of the messages domain."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.rows: list[tuple[str, Outgoing]] = []
        self.fails: Exception | None = None
        self.texts_max = 1000

    async def accept(self, instance_id: str, chat: str, content: Content, delay_s: float | None) -> Accepted:
        """Keep it."""
        await asyncio.sleep(0)
        if self.fails is not None:
            raise self.fails
        accepted = Accepted(ids.zaap_id(), ids.message_id())
        row = Outgoing(
            instance_id=instance_id,
            number=len(self.rows) + 1,
            zaap_id=accepted.zaap_id,
            message_id=accepted.message_id,
            chat=chat,
            content=content,
            delay_s=delay_s,
            state="queued",
            attempts=0,
            created_ms=1_767_225_600_000,
        )
        self.rows.append((instance_id, row))
        return accepted

    async def page(
        self, _account_id: str, instance_id: str, size: int, *, after_number: int = 0, skip: int = 0
    ) -> list[Listed]:
        """In order; a page has room for `texts_max` texts."""
        rows = [row for owner, row in self.rows if owner == instance_id and row.number > after_number]
        return [
            Listed(
                number=row.number,
                zaap_id=row.zaap_id,
                message_id=row.message_id,
                chat=row.chat,
                message=row.content.message if place < self.texts_max else None,
                delay_s=row.delay_s,
                typing_s=row.content.typing_s,
                created_ms=row.created_ms,
            )
            for place, row in enumerate(rows[skip : skip + size])
        ]

    async def count(self, _account_id: str, instance_id: str) -> int:
        """Of this instance."""
        return sum(owner == instance_id for owner, _ in self.rows)

    async def cancel(self, _account_id: str, instance_id: str, either_id: str | None) -> list[str]:
        """Drop them."""
        mine = [row for owner, row in self.rows if owner == instance_id]
        gone = [row for row in mine if either_id in (None, row.zaap_id, row.message_id)]
        self.rows = [(owner, row) for owner, row in self.rows if row not in gone]
        return [row.zaap_id for row in gone]

    def sent(self) -> list[dict[str, object]]:
        """What was accepted, as plain values."""
        return [msgspec.to_builtins(row.content) | {"chat": row.chat, "delay": row.delay_s} for _, row in self.rows]
