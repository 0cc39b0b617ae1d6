"""The machine's journal: what survives, what is told again, what happens when it is full."""

import errno
import os
import threading
from pathlib import Path

import msgspec
import pytest

from tomada.engine.port import MessageSent
from tomada.machines import journal as module
from tomada.machines.journal import Journal, JournalFull
from tomada.machines.protocol import Happened


class FixedClock:
    """A clock that goes on when the test says so."""

    def __init__(self, now_ms: int = 1_000) -> None:
        self.ms = now_ms
        self.s = 0.0

    def now_ms(self) -> int:
        """The time it was given."""
        return self.ms

    def monotonic_s(self) -> float:
        """What passed."""
        return self.s


def line_of(number: int) -> bytes:
    """An event as its line."""
    return msgspec.json.encode(Happened("i", MessageSent(f"z{number}", "wa", 1), number)) + b"\n"


def append(journal: Journal, count: int) -> list[int]:
    """Some events; their numbers."""
    return [journal.append(line_of, lambda _: None, 0.0) for _ in range(count)]


class Disk:
    """Takes the place of os.pwrite: a file grows to `room` bytes, even with a part of a line, then the disk is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = 1 << 30
        self.written = self.refusals = 0
        self._pwrite = os.pwrite
        monkeypatch.setattr(os, "pwrite", self.pwrite)

    def pwrite(self, file: int, data: bytes, at: int) -> int:
        """What has room."""
        part = data[: max(0, self.room - at)]
        if not part:
            self.refusals += 1
            raise OSError(errno.ENOSPC, "No space left on device")
        self.written += len(part)
        return self._pwrite(file, part, at)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """A disk that can be full."""
    return Disk(monkeypatch)


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


@pytest.mark.parametrize("damage", [line_of(99)[:-7], b"\0" * 40, b'{"type":"\xff"}\n'])
def test_a_torn_last_line_is_cut_off(tmp_path: Path, damage: bytes) -> None:
    """What kill -9 cut short, or a power cut turned into nonsense, is dropped; the next event does not run into it."""
    path = tmp_path / "journal"
    numbers = append(Journal(path, FixedClock()), 2)
    with path.open("ab") as file:
        file.write(damage)
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


def test_what_is_acknowledged_does_not_lie_there_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind an event that is still open, a small front goes too: not at each acknowledgement, but within seconds."""
    path, clock = tmp_path / "journal", FixedClock()
    journal = Journal(path, clock)
    numbers = append(journal, 4)
    journal.acknowledge(numbers[0])
    assert line_of(numbers[0]) in path.read_bytes()
    clock.s = module.REWRITE_S
    journal.acknowledge(numbers[1])
    assert path.read_bytes().splitlines(keepends=True)[1:] == [line_of(number) for number in numbers[2:]]
    journal.acknowledge(numbers[2])
    assert line_of(numbers[2]) in path.read_bytes()

    monkeypatch.setattr(module, "REWRITE_BYTES", 1)  # what is left is too much to be copied every time
    clock.s += module.REWRITE_S
    append(journal, 8)
    journal.acknowledge(numbers[2])
    assert line_of(numbers[2]) in path.read_bytes()


def test_shrinking_costs_no_more_than_was_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: Disk
) -> None:
    """Acknowledging a long journal bit by bit copies what is left a few times, not once for each bit."""
    monkeypatch.setattr(module, "REWRITE_BYTES", 500)
    journal = Journal(tmp_path / "journal", FixedClock())
    numbers = append(journal, 500)
    told_bytes, disk.written = disk.written, 0
    for number in numbers:
        journal.acknowledge(number)
    assert disk.written - 500 * 21 < 2 * told_bytes  # each writes the head, of 21 bytes


def test_a_full_disk_while_writing(tmp_path: Path, disk: Disk) -> None:
    """What was written in part is not there, whether the process dies then or writes on."""
    path = tmp_path / "journal"
    journal = Journal(path, FixedClock())
    numbers = append(journal, 2)
    disk.room = path.stat().st_size + 30
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            append(journal, 1)
    assert path.stat().st_size == disk.room
    copy = tmp_path / "copy"
    copy.write_bytes(path.read_bytes())
    disk.room = 1 << 30
    assert Journal(copy, FixedClock()).lines() == [line_of(number) for number in numbers]
    numbers += append(journal, 1)
    assert Journal(path, FixedClock()).lines() == journal.lines() == [line_of(number) for number in numbers]


def test_a_full_disk_while_shrinking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: Disk) -> None:
    """Acknowledging needs no room: the file stays as long as it is, is right, and shrinks once there is room."""
    monkeypatch.setattr(module, "REWRITE_BYTES", 500)
    path = tmp_path / "journal"
    journal = Journal(path, FixedClock())
    numbers = append(journal, 20)
    full_bytes, handles = path.stat().st_size, len(list(Path("/dev/fd").iterdir()))
    disk.room = 300
    journal.acknowledge(numbers[12])
    assert path.stat().st_size == full_bytes
    assert len(list(Path("/dev/fd").iterdir())) <= handles
    assert list(tmp_path.iterdir()) == [path]
    assert Journal(path, FixedClock()).lines() == journal.lines() == [line_of(number) for number in numbers[13:]]
    disk.room = 1 << 30
    journal.acknowledge(numbers[13])
    assert path.stat().st_size < full_bytes / 2
    assert Journal(path, FixedClock()).lines() == journal.lines() == [line_of(number) for number in numbers[14:]]


def test_an_acknowledgement_that_cannot_be_written(tmp_path: Path, disk: Disk) -> None:
    """It makes room all the same; only the next process tells once more what was acknowledged."""
    path = tmp_path / "journal"
    journal = Journal(path, FixedClock(), bytes_max=300)
    numbers = append(journal, 3)
    disk.room = 0
    journal.acknowledge(numbers[-1])
    assert journal.lines() == []
    disk.room = 1 << 30
    assert Journal(path, FixedClock()).lines() == [line_of(number) for number in numbers]
    more = append(journal, 1)
    journal.acknowledge(more[0])
    assert Journal(path, FixedClock()).lines() == []


def test_a_power_cut_finds_the_old_file_or_the_whole_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new file is on the disk before it takes the place of the old one."""
    monkeypatch.setattr(module, "REWRITE_BYTES", 500)
    path = tmp_path / "journal"
    journal = Journal(path, FixedClock())
    numbers = append(journal, 20)
    old, synced = path.stat(), []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append((os.fstat(file), path.stat().st_ino)))
    journal.acknowledge(numbers[15])
    new = path.stat()
    assert [(was.st_ino, was.st_size, in_place) for was, in_place in synced] == [(new.st_ino, new.st_size, old.st_ino)]


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
