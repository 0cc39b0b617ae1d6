"""Finds deaf sessions: connected by every sign, but nothing arrives any more. The commonest fault in the field.

Each connected session is asked `alive?` every probe_interval_s (+-25 %, so that they do not march in step). A `no`, an
error or silence is a failed probe; it is repeated after probe_retry_s, and the second in a row restarts the session.
A machine whose output we leave unread ourselves (its events wait for the database) is not probed: that silence is ours.
"""

import asyncio
from collections.abc import Iterable
from typing import Protocol

import structlog

from tomada.engine.port import EngineRefused
from tomada.errors import Unavailable
from tomada.machines import protocol
from tomada.machines import session_state as state_machine
from tomada.machines.session import Around, HostedSession

log = structlog.get_logger(__name__)

TICK_S = 0.5
CONCURRENT_MAX = 16
FAILED_MAX = 2


class Probed(Around, Protocol):
    """What the prober needs of the host."""

    probes_failed: int
    deaf_restarts: int

    def all_sessions(self) -> Iterable[HostedSession]:
        """Every hosted session."""


async def probe_for_ever(host: Probed) -> None:
    """Look for sessions whose probe is due, until cancelled."""
    running: set[asyncio.Task[None]] = set()
    try:
        while True:
            for session in host.all_sessions():
                if len(running) < CONCURRENT_MAX and _due(session, host):
                    session.probe_due_s = float("inf")
                    task = asyncio.create_task(_probe(session, host), name=f"probe {session.instance_id}")
                    running.add(task)
                    task.add_done_callback(running.discard)
            await asyncio.sleep(min(TICK_S, host.settings.probe_interval_s / 10))
    finally:
        for task in list(running):
            task.cancel()


def _due(session: HostedSession, host: Probed) -> bool:
    """Whether to probe now; a session that has just connected gets its first date."""
    if session.state.condition != "connected":
        return False
    if session.probe_due_s == 0.0:
        session.probe_due_s = host.clock.monotonic_s() + _interval_s(host)
    return session.probe_due_s <= host.clock.monotonic_s()


async def _probe(session: HostedSession, host: Probed) -> None:
    state, machine = session.state, session.machine
    alive = machine is None or machine.stalled or await _alive(session, host)
    if session.state.connected_ms != state.connected_ms:
        session.probe_due_s = 0.0
        return  # it is another connection by now, with a first date of its own
    if alive:
        session.probes_failed = 0
        session.probe_due_s = host.clock.monotonic_s() + _interval_s(host)
        return
    host.probes_failed += 1
    session.probes_failed += 1
    if session.probes_failed < FAILED_MAX:
        session.probe_due_s = host.clock.monotonic_s() + host.settings.probe_retry_s
        return
    log.warning("session.deaf", instance=session.instance_id)
    host.deaf_restarts += 1
    session.happen(state_machine.Deaf())


async def _alive(session: HostedSession, host: Probed) -> bool:
    assert session.machine is not None
    try:
        answer = await session.machine.request(protocol.Probe(session.instance_id), host.settings.probe_timeout_s)
    except (Unavailable, EngineRefused):
        return False
    return bytes(answer) == b"true"


def _interval_s(host: Probed) -> float:
    interval_s = host.settings.probe_interval_s
    return host.rng.uniform(0.75 * interval_s, 1.25 * interval_s)
