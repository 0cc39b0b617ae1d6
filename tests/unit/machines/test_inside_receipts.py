"""Receipts that overtake their message's outcome."""

from tomada.engine.port import Disconnected, EngineEvent, ReceiptReceived
from tomada.machines import inside_receipts
from tomada.machines.inside_receipts import ReceiptHold


def receipt(*wa_ids: str, kind: str = "delivered") -> ReceiptReceived:
    """A receipt for these messages."""
    return ReceiptReceived(kind, wa_ids, "1", None, is_group=False, at_ms=1)


def test_a_receipt_waits_for_its_outcome() -> None:
    """During a send a receipt for an unknown id waits, and is told right after the outcome."""
    told: list[EngineEvent] = []
    hold = ReceiptHold(told.append)
    hold.send_begins()
    hold.hear(receipt("NEW"))
    assert told == []
    hold.outcome_told("NEW")
    assert told == [receipt("NEW")]


def test_others_do_not_wait() -> None:
    """Receipts for messages told before, our own reading, and every other event pass at once; so does all when idle."""
    told: list[EngineEvent] = []
    hold = ReceiptHold(told.append)
    hold.hear(receipt("OLD"))
    hold.send_begins()
    hold.outcome_told("OLD")
    hold.send_begins()
    passing: list[EngineEvent] = [receipt("OLD"), receipt("THEIRS", kind="read_self"), Disconnected("x")]
    for event in passing:
        hold.hear(event)
    assert told == [receipt("OLD"), *passing]
    hold.hear(receipt("OLD", "NEW"))
    assert len(told) == 4


def test_nothing_is_lost_when_too_many_wait() -> None:
    """Beyond the bound receipts are told early rather than dropped; a failed send frees those that wait."""
    told: list[EngineEvent] = []
    hold = ReceiptHold(told.append)
    hold.send_begins()
    for n in range(inside_receipts.HELD_MAX + 1):
        hold.hear(receipt(str(n)))
    assert told == [receipt(str(inside_receipts.HELD_MAX))]
    hold.outcome_told(None)
    assert len(told) == inside_receipts.HELD_MAX + 1
