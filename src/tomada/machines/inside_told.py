"""What a machine tells: journaled what must not be lost, the rest as it comes.

Volatile events (QR codes, presence, connection changes) are not journaled: after a crash they are stale, and the host
learns the state anew. When the host is slow they are dropped beyond VOLATILE_WAITING_MAX lines; presence is the only
kind that can come in such numbers.

A receipt can be for any number of messages: more than RECEIPT_IDS_MAX are told as several. With that, any event fits
into a line (inside_pipe.py).
"""

import time
from collections.abc import Iterator

import msgspec
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
from tomada.machines.protocol import LINE_BYTES_MAX, Happened

log = structlog.get_logger("tomada.machine")

JOURNALED = (MessageReceived, ReceiptReceived, LoggedOut, MessageSent, MessageFailed, Paired)
VOLATILE_WAITING_MAX = 10_000
RECEIPT_IDS_MAX = 1000
DISK_PAUSE_S = 1.0


class Told:
    """The way out for events; may be called from any thread."""

    def __init__(self, journal: Journal, out: LinesOut) -> None:
        self._journal = journal
        self._out = out

    def tell(self, instance_id: str, event: EngineEvent) -> None:
        """Tell the host; returns when a journaled event is in the journal (waits while that is full)."""
        if isinstance(event, JOURNALED):
            for part in _parts(event):
                self._tell_journaled(instance_id, part)
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
        """Tell every event that the host has not acknowledged, as it was told.

        A line that is too long was written by a version that did not cut.
        """
        for line in self._journal.lines():
            self._out.write(line if len(line) <= LINE_BYTES_MAX else line_of(msgspec.json.decode(line, type=Happened)))


def _parts(event: EngineEvent) -> Iterator[EngineEvent]:
    if isinstance(event, ReceiptReceived):
        for at in range(0, len(event.wa_ids), RECEIPT_IDS_MAX):
            yield msgspec.structs.replace(event, wa_ids=event.wa_ids[at : at + RECEIPT_IDS_MAX])
    else:
        yield event
