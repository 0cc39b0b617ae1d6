"""Keeps the machines in shape: one place free, surplus machines ended, idle sessions let go.

A place is kept free so that the next QR code does not wait for a process to start.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Protocol

import structlog

from tomada.machines.lanes import Lanes
from tomada.machines.machine import Machine
from tomada.machines.session import HostedSession
from tomada.machines.settings import HostSettings

log = structlog.get_logger(__name__)


class Tended(Protocol):
    """What tending needs of the host."""

    settings: HostSettings
    lanes: Lanes
    machines: dict[int, Machine]

    def all_sessions(self) -> Iterable[HostedSession]:
        """Every hosted session."""

    def hosted_by_slot(self) -> Counter[int]:
        """How many sessions each machine has."""

    def start_machine(self) -> Machine:
        """In the lowest free slot."""

    async def let_go(self, session: HostedSession) -> None:
        """Host this session no longer."""

    async def retire(self, machine: Machine) -> None:
        """End a machine that hosts nobody."""


async def tend_for_ever(host: Tended) -> None:
    """Every tend_s, until cancelled."""
    while True:
        await asyncio.sleep(host.settings.tend_s)
        try:
            await tend(host)
        except Exception:  # tending must go on
            log.exception("host.tend_failed")


async def tend(host: Tended) -> None:
    """Look once, and do what there is to do."""
    for session in host.all_sessions():
        idle = session.at_rest and session.machine is None and not session.state.wanted
        if idle and not host.lanes.busy(session.instance_id):
            await host.let_go(session)  # unpaired, nobody is at it, and its row is written: that says all there is
    hosted = host.hosted_by_slot()
    surplus = sorted((m for m in host.machines.values() if _is_empty(m, hosted)), key=lambda machine: machine.slot)[1:]
    if all(hosted[machine.slot] >= host.settings.instances_per_machine for machine in host.machines.values()):
        host.start_machine()
    for machine in surplus:  # ends take seconds: it may have been given something to do meanwhile
        if machine.ready and _is_empty(machine, host.hosted_by_slot()):
            await host.retire(machine)


def _is_empty(machine: Machine, hosted: Counter[int]) -> bool:
    return not hosted[machine.slot] and not machine.pending
