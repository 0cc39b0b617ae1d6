"""The machine's journal: what survives, what is told again, what happens when it is full."""

import threading
from pathlib import Path

import msgspec
import pytest

from tomada.engine.port import MessageSent
from tomada.machines import journal as module
from tomada.machines.journal import Journal, JournalFull
from tomada.machines.protocol import Happened


class FixedClock:
    """A clock that stands still."""

    def __init__(self, now_ms: int = 1_000) -> None:
        self.ms = now_ms

    def now_ms(self) -> int:
        """The time it was given."""
        return self.ms

    def monotonic_s(self) -> float:
        """Never asked for."""
        return 0.0


def line_of(number: int) -> bytes:
    """An event as its line."""
    return msgspec.json.encode(Happened("i", MessageSent(f"z{number}", "wa", 1), number)) + b"\n"


def append(journal: Journal, count: int) -> list[int]:
    """Some events; their numbers."""
    return [journal.append(line_of, lambda _: None, 0.0) for _ in range(count)]


def test_unacknowledged_events_survive_reopening(tmp_path: Path) -> None:
    """A new process finds every event that was not acknowledged, in the very bytes, and no other."""
    first = Journal(tmp_path / "journal", FixedClock())
    numbers = append(first, 5)
    first.acknowledge(numbers[1])
    second = Journal(tmp_path / "journal", FixedClock())
    assert second.lines() == [line_of(number) for number in numbers[2:]]


def test_numbers_grow_across_lives_whatever_the_clock_does(tmp_path: Path) -> None:
    """Numbers grow though everything was acknowledged and the clock stepped back."""
    first = Journal(tmp_path / "journal", FixedClock(5_000))
    numbers = append(first, 3)
    first.acknowledge(numbers[-1])
    assert append(Journal(tmp_path / "journal", FixedClock(1)), 1)[0] > numbers[-1]


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    """A line that was cut short by kill -9 is dropped, and the next event does not run into it."""
    path = tmp_path / "journal"
    numbers = append(Journal(path, FixedClock()), 2)
    with path.open("ab") as file:
        file.write(line_of(99)[:-7])
    second = Journal(path, FixedClock())
    more = append(second, 1)
    assert Journal(path, FixedClock()).lines() == [line_of(number) for number in [*numbers, *more]]


@pytest.mark.parametrize("damage", [b"", b"12", b"not a head at all, but long enough\n"])
def test_a_head_that_was_never_finished(tmp_path: Path, damage: bytes) -> None:
    """A file whose first line is torn or foreign is started anew."""
    path = tmp_path / "journal"
    path.write_bytes(damage)
    journal = Journal(path, FixedClock())
    assert journal.lines() == []
    numbers = append(journal, 1)
    assert Journal(path, FixedClock()).lines() == [line_of(numbers[0])]


def test_the_file_shrinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An acknowledged front is dropped when it is large, a fully acknowledged file at once; what is open stays."""
    monkeypatch.setattr(module, "REWRITE_BYTES", 500)
    path = tmp_path / "journal"
    journal = Journal(path, FixedClock())
    numbers = append(journal, 20)
    full_bytes = path.stat().st_size
    journal.acknowledge(numbers[15])
    assert path.stat().st_size < full_bytes / 3
    more = append(journal, 1)
    assert Journal(path, FixedClock()).lines() == [line_of(number) for number in [*numbers[16:], *more]]
    journal.acknowledge(more[0])
    assert path.stat().st_size < 30
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_journal_makes_the_writer_wait(tmp_path: Path) -> None:
    """Nothing is dropped when it is full: the writer waits until the host acknowledges."""
    journal = Journal(tmp_path / "journal", FixedClock(), bytes_max=300)
    numbers = append(journal, 3)
    with pytest.raises(JournalFull):
        append(journal, 1)
    thread = threading.Thread(target=lambda: journal.append(line_of, lambda _: None, 5.0))
    thread.start()
    journal.acknowledge(numbers[-1])
    thread.join(5)
    assert journal.lines() == [line_of(numbers[-1] + 1)]


def test_lines_are_passed_on_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """Many threads write at once; what is passed on is in the order of the numbers, whole."""
    journal = Journal(tmp_path / "journal", FixedClock())
    passed: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: [journal.append(line_of, passed.append) for _ in range(50)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = [msgspec.json.decode(line, type=Happened).journal or 0 for line in passed]
    assert len(numbers) == 400
    assert numbers == sorted(numbers)
    assert journal.lines() == passed


def test_acknowledging_what_was_never_told_is_refused(tmp_path: Path) -> None:
    """A host that acknowledges the future is mistaken, and must not make later events vanish."""
    journal = Journal(tmp_path / "journal", FixedClock())
    numbers = append(journal, 1)
    with pytest.raises(ValueError, match="never told"):
        journal.acknowledge(numbers[-1] + 1)
