"""When a session is probed again."""

import asyncio
from random import Random  # noqa: TID251 - seeded
from typing import Any

import msgspec

from tomada.engine import port
from tomada.kit.clock import SystemClock
from tomada.machines import probing
from tomada.machines.session import HostedSession
from tomada.machines.session_state import SessionState
from tomada.machines.settings import HostSettings

CONNECTED = port.Connected("5511", "77", "Ana", False)


class OneSession:
    """As much of a host as the prober sees, and a machine whose answer brings something with it."""

    stalled = False
    probes_failed = deaf_restarts = 0

    def __init__(self, meanwhile: port.EngineEvent) -> None:
        self.settings, self.clock, self.rng = HostSettings(probe_interval_s=0.2), SystemClock(), Random(1)
        state = SessionState(wanted=True, running=True, condition="connected", connected_ms=1)
        around: Any = self
        self.session = HostedSession("a", 0, state, around)
        self.session.machine = around
        self.session.probe_due_s = 0.001  # now
        self.asked = asyncio.Queue[None]()
        self._meanwhile = meanwhile

    def all_sessions(self) -> list[HostedSession]:
        """The one."""
        return [self.session]

    def save(self, session: HostedSession) -> None:
        """Its row is of no interest."""

    async def request(self, _command: object, _timeout_s: float) -> msgspec.Raw:
        """The answer to a probe."""
        self.session.happen(self._meanwhile)
        self.asked.put_nowait(None)
        return msgspec.Raw(b"true")


async def test_a_login_during_a_probe_does_not_end_the_probing() -> None:
    """The engine tells Connected again without a Disconnected before it: the probe is void, and there are others."""
    host = OneSession(CONNECTED)
    probed: Any = host
    task = asyncio.create_task(probing.probe_for_ever(probed))

    async with asyncio.timeout(20):
        for _ in range(3):
            await host.asked.get()

    task.cancel()
