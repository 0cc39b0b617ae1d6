"""Receipts wait for the outcome of the send they may belong to.

The engine tells a message's id only after WhatsApp has acknowledged it, and the receipt of a quick phone can overtake
that. The host could not place such a receipt. So while a send is under way, receipts for ids that we have not told yet
wait here, and follow the outcome. Receipts for messages that this session has told before pass at once.

They wait in memory, from when the engine is given the message until its outcome is told: a fraction of a second, or up
to 90 when WhatsApp does not answer. kill -9 in that time loses them. They cannot lie in the journal meanwhile: what is
acknowledged there is a number and all before it, so what is told later must be written later. Lost is then that some
message was delivered or read, never a message.
"""

from collections import OrderedDict
from collections.abc import Callable

from tomada.engine.port import EngineEvent, ReceiptReceived

TOLD_MAX = 1024
HELD_MAX = 1000  # beyond that they are told out of order rather than lost; no phone writes so many during one send


class ReceiptHold:
    """Of one session. The caller locks, so that what is told keeps its order, but for `send_begins`."""

    def __init__(self, tell: Callable[[EngineEvent], None]) -> None:
        self._tell = tell
        self._sending = False
        self._told: OrderedDict[str, None] = OrderedDict()
        self._held: list[ReceiptReceived] = []

    def send_begins(self) -> None:
        """From now on receipts for unknown ids wait. Needs no lock: nothing else changes this before the outcome."""
        self._sending = True

    def outcome_told(self, wa_id: str | None) -> None:
        """The outcome was told (with this id, if it was sent): what waited may follow."""
        self._sending = False
        if wa_id is not None:
            self._told[wa_id] = None
            if len(self._told) > TOLD_MAX:
                self._told.popitem(last=False)
        held, self._held = self._held, []
        for receipt in held:
            self._tell(receipt)

    def hear(self, event: EngineEvent) -> None:
        """Tell an event, now or after the outcome."""
        if self._must_wait(event) and len(self._held) < HELD_MAX:
            assert isinstance(event, ReceiptReceived)
            self._held.append(event)
        else:
            self._tell(event)

    def _must_wait(self, event: EngineEvent) -> bool:
        if not self._sending or not isinstance(event, ReceiptReceived) or event.kind == "read_self":
            return False
        return any(wa_id not in self._told for wa_id in event.wa_ids)
