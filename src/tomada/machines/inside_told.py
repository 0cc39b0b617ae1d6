"""What a machine tells: journaled what must not be lost, the rest as it comes.

Volatile events (QR codes, presence, connection changes) are not journaled: after a crash they are stale, and the host
learns the state anew. When the host is slow they are dropped beyond VOLATILE_WAITING_MAX lines; presence is the only
kind that can come in such numbers.
"""

import time

import structlog

from tomada.engine.port import (
    ChatPresence,
    EngineEvent,
    LoggedOut,
    MessageFailed,
    MessageReceived,
    MessageSent,
    Paired,
    ReceiptReceived,
)
from tomada.machines.inside_pipe import LinesOut, line_of
from tomada.machines.journal import Journal
from tomada.machines.protocol import Happened

log = structlog.get_logger("tomada.machine")

JOURNALED = (MessageReceived, ReceiptReceived, LoggedOut, MessageSent, MessageFailed, Paired)
VOLATILE_WAITING_MAX = 10_000
DISK_PAUSE_S = 1.0


class Told:
    """The way out for events; may be called from any thread."""

    def __init__(self, journal: Journal, out: LinesOut) -> None:
        self._journal = journal
        self._out = out

    def tell(self, instance_id: str, event: EngineEvent) -> None:
        """Tell the host; returns when a journaled event is in the journal (waits while that is full)."""
        if isinstance(event, JOURNALED):
            self._tell_journaled(instance_id, event)
        elif not isinstance(event, ChatPresence) or self._out.waiting() < VOLATILE_WAITING_MAX:
            self._out.write(line_of(Happened(instance_id, event)))

    def _tell_journaled(self, instance_id: str, event: EngineEvent) -> None:
        """A full disk is waited out like a full journal: what WhatsApp believes delivered must not be dropped."""
        while True:
            try:
                self._journal.append(lambda number: line_of(Happened(instance_id, event, number)), self._out.write)
            except OSError as error:
                log.error("journal_cannot_be_written", error=str(error))
                time.sleep(DISK_PAUSE_S)
            else:
                return

    def tell_again(self) -> None:
        """Tell every event that the host has not acknowledged, as it was told."""
        for line in self._journal.lines():
            self._out.write(line)
