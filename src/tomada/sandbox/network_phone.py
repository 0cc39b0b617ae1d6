"""The link to a simulated phone: its stored stanzas, handed over one at a time.

The queue is the store itself: `push` only wakes the worker, which reads the oldest stanzas, hands them over and
forgets them after the phone took them. So nothing piles up in memory, and a crash in between hands one over twice.
Stanzas that count only now (presence, typing) go through a small queue beside it.
"""

from __future__ import annotations

import asyncio
from collections import deque

from tomada.sandbox.codec import decode
from tomada.sandbox.network_ports import AttachedDevice
from tomada.sandbox.network_state import World, log
from tomada.sandbox.node import Node

_BATCH = 100
_PASSING_MAX = 1_000


class PhoneLink:
    """A `Link` whose other end is a Python object; `stop` ends its worker."""

    def __init__(self, world: World, owner: str, phone: AttachedDevice) -> None:
        self.active = True
        self.phone = phone
        self._world, self._owner = world, owner
        self._passing: deque[Node] = deque(maxlen=_PASSING_MAX)
        self._wake = asyncio.Event()
        self._wake.set()
        self._worker = asyncio.create_task(self._work())

    def push(self, node: Node, seq: int = 0) -> None:
        """Wake the worker; a stanza that is not stored is kept beside the store."""
        if seq == 0:
            self._passing.append(node)
        self._wake.set()

    def close(self, last: Node | None = None) -> None:
        """Phones do not log out; nothing happens."""

    def abort(self) -> None:
        """Phones have no connection to cut; nothing happens."""

    async def stop(self) -> None:
        """End the worker; what it did not hand over stays stored."""
        self._worker.cancel()
        await asyncio.gather(self._worker, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._passing:
                await self._hand_over(self._passing.popleft())
            while stored := self._world.storage.queued(self._owner, _BATCH):
                for seq, body in stored:
                    await self._hand_over(decode(body))
                    self._world.storage.settle_seq(seq)

    async def _hand_over(self, node: Node) -> None:
        try:
            await self.phone.deliver(node)
        except Exception:  # noqa: BLE001 - a phone's bug must not stop the network: it is logged, with the stanza
            log.exception("phone %s failed on %s", self._owner, node)
