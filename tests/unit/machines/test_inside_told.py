"""What a machine tells: whole where it fits into a line, cut or divided where it does not."""

import threading
import time
from pathlib import Path

import msgspec
import pytest

from tests.unit.machines.test_journal import Disk
from tomada.engine.port import EngineEvent, MessageReceived, ReceiptReceived, TextReceived
from tomada.kit.clock import SystemClock
from tomada.machines import inside_told
from tomada.machines.inside_pipe import CUT, LinesOut, line_of
from tomada.machines.inside_told import RECEIPT_IDS_MAX, Told
from tomada.machines.journal import Journal
from tomada.machines.protocol import LINE_BYTES_MAX, Answer, Happened


class Lines(LinesOut):
    """Keeps the lines instead of writing them."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, line: bytes) -> None:
        """Keep it."""
        self.written.append(line)


def text_of(event: EngineEvent) -> str:
    """The text of a message, with nothing else about it changed."""
    assert isinstance(event, MessageReceived)
    assert isinstance(event.content, TextReceived)
    changed = event != message(event.content.message)
    assert not changed
    return event.content.message


def message(text: str) -> MessageReceived:
    """A message received."""
    return MessageReceived("3A", "55", None, "55", None, False, False, 1, "Ana", TextReceived(text))


def event_of(line: bytes) -> EngineEvent:
    """The event in a line, which must be one that the host takes."""
    size = len(line)  # pytest would print the line
    assert size <= LINE_BYTES_MAX
    return msgspec.json.decode(line, type=Happened).event


def test_a_full_disk_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that cannot be written is tried until it can: it is neither dropped nor told unwritten."""
    monkeypatch.setattr(inside_told, "DISK_PAUSE_S", 0.01)
    journal = Journal(tmp_path / "journal", SystemClock())
    disk, lines = Disk(monkeypatch), Lines()
    disk.room = 50
    telling = threading.Thread(target=Told(journal, lines).tell, args=("i", message("oi")))
    telling.start()
    deadline_s = time.monotonic() + 10
    while disk.refusals < 5 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert (telling.is_alive(), lines.written, journal.lines()) == (True, [], [])
    disk.room = 1 << 30
    telling.join(10)
    assert lines.written == journal.lines()
    assert [text_of(event_of(line)) for line in lines.written] == ["oi"]


def test_what_fits_is_told_as_it_is() -> None:
    """A text is left alone up to the last byte of a line."""
    rest = len(line_of(Happened("i", message(""), 1)))
    lengths = []
    for more in (0, 1):
        event = message("x" * (LINE_BYTES_MAX - rest + more))
        lengths.append(len(text_of(event_of(line_of(Happened("i", event, 1))))))
    assert lengths == [LINE_BYTES_MAX - rest, LINE_BYTES_MAX // 2 + len(CUT)]


@pytest.mark.parametrize("character", ["x", "ã", "😀", "\x01", '"'])
def test_a_text_that_is_too_long_is_cut(character: str) -> None:
    """Only the long text is cut, whatever its characters take in a line; the cut is marked."""
    text = text_of(event_of(line_of(Happened("i", message(character * (2 << 20)), 1))))
    assert text.lstrip(character) == CUT
    assert len(text) > LINE_BYTES_MAX / 16


def test_no_field_can_make_a_line_too_long() -> None:
    """Whatever the other side puts into a name, an id or a preview: the line fits, and the message is told."""
    huge = "x" * (1 << 20)
    everywhere = MessageReceived(
        *(huge, huge, huge, huge, huge, False, True, 1, huge, TextReceived(huge, huge, huge, huge)),
        quoted_wa_id=huge,
        quoted_sender=huge,
    )
    assert isinstance(event_of(line_of(Happened("i", everywhere, 1))), MessageReceived)
    line = line_of(Answer(1, error=huge))
    size = len(line)
    assert size <= LINE_BYTES_MAX
    assert msgspec.json.decode(line, type=Answer).id == 1


def test_a_receipt_for_very_many_messages_is_divided(tmp_path: Path) -> None:
    """Receipts are told for all of them, in lines that fit."""
    wa_ids = tuple(f"3EB0{number:028}" for number in range(40_000))
    receipt = ReceiptReceived("read", wa_ids, "55", None, is_group=False, at_ms=1)
    journal = Journal(tmp_path / "journal", SystemClock())
    Told(journal, Lines()).tell("i", receipt)
    events = [event_of(line) for line in journal.lines()]
    told = [event for event in events if isinstance(event, ReceiptReceived)]
    assert len(told) == len(events) == 40_000 / RECEIPT_IDS_MAX
    complete = tuple(wa_id for event in told for wa_id in event.wa_ids) == wa_ids
    assert complete
    assert told[0] == msgspec.structs.replace(receipt, wa_ids=wa_ids[:RECEIPT_IDS_MAX])
