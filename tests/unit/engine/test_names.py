"""Names of chats: a group's subject is asked for once, and nobody waits long for it."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.unit.engine.builders import GROUP, LID, PHONE, hidden, jid, person
from tomada.engine.neonize_names import ASKED_MAX, SUBJECTS_MAX, Names
from tomada.engine.neonize_protos import glue

LIMIT_S = 10.0  # of what must happen


class Engine:
    """A client and its library in one: answers when it is let."""

    def __init__(self) -> None:
        self.library = self
        self.uuid = b"1"
        self.running = self.paired = True
        self.subjects: dict[str, str] = {}
        self.contacts: dict[str, glue.ContactInfo] = {}
        self.asked: list[str] = []
        self.answers = threading.Event()
        self.answers.set()

    def group_subject(self, _uuid: bytes, group: Any) -> str:
        """What WhatsApp says, once it answers."""
        self.asked.append(group.User)
        assert self.answers.wait(LIMIT_S)
        return self.subjects.get(group.User, "")

    def contact(self, _uuid: bytes, who: Any) -> Any:
        """What the store knows."""
        return self.contacts.get(who.User, glue.ContactInfo())


class Scene:
    """Names over that engine."""

    def __init__(self, wait_s: float) -> None:
        self.engine = Engine()
        self.pool = ThreadPoolExecutor(16)
        self.names = Names(self.engine, self.pool, wait_s)  # type: ignore[arg-type]

    def subject(self, group: str = GROUP) -> str:
        """The name of a group."""
        return self.names.of(jid(group, "g.us"))

    def aside(self, group: str = GROUP) -> "Future[str]":
        """The same, asked on another thread; returns when the question is on its way."""
        before = len(self.engine.asked)
        future = self.pool.submit(self.subject, group)
        until(lambda: len(self.engine.asked) > before)
        return future


def until(condition: Any) -> None:
    """Wait for what another thread does."""
    deadline_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline_s, "it did not become true in time"
        time.sleep(0.001)


@pytest.fixture
def patient() -> Iterator[Scene]:
    """Waits as long as it takes."""
    scene = Scene(LIMIT_S)
    yield scene
    scene.engine.answers.set()
    scene.pool.shutdown()


@pytest.fixture
def hurried() -> Iterator[Scene]:
    """Waits for no time that matters."""
    scene = Scene(0.01)
    yield scene
    scene.engine.answers.set()
    scene.pool.shutdown()


def test_a_group_is_asked_about_once(patient: Scene) -> None:
    """The first message waits for the subject, the others know it."""
    patient.engine.subjects[GROUP] = "Team"
    assert [patient.subject() for _ in range(3)] == ["Team"] * 3
    assert patient.engine.asked == [GROUP]


def test_a_new_subject_counts_at_once(patient: Scene) -> None:
    """A change that is told takes the old subject's place, and wins over an answer that is still under way."""
    patient.engine.answers.clear()
    asked = patient.aside()
    patient.names.renamed(jid(GROUP, "g.us"), "New")
    patient.engine.subjects[GROUP] = "Old"
    patient.engine.answers.set()

    assert asked.result(LIMIT_S) == "New"
    assert patient.subject() == "New"
    patient.names.renamed(jid(GROUP, "g.us"), "Newer")
    assert patient.subject() == "Newer"


def test_a_whatsapp_that_does_not_answer_holds_nothing_up(hurried: Scene) -> None:
    """The message goes without the name; the questions under way are few, and the answer counts when it comes."""
    hurried.engine.subjects[GROUP] = "Team"
    hurried.engine.answers.clear()
    assert [hurried.subject(group) for group in (GROUP, *map(str, range(ASKED_MAX + 3)))] == [""] * (ASKED_MAX + 4)
    until(lambda: len(hurried.engine.asked) == ASKED_MAX)

    hurried.engine.answers.set()
    until(lambda: hurried.subject() == "Team")
    assert hurried.engine.asked.count(GROUP) == 1


def test_nobody_waits_again_before_a_slow_whatsapp_has_answered(hurried: Scene) -> None:
    """One wait is spent on it; afterwards messages of other groups pass at once."""
    hurried.engine.answers.clear()
    assert hurried.subject() == ""
    hurried.names._wait_s = LIMIT_S  # would be felt

    started_s = time.monotonic()
    assert hurried.subject("1") == ""
    assert time.monotonic() - started_s < LIMIT_S / 2


def test_what_whatsapp_would_not_say_is_asked_again_after_the_next_login(patient: Scene) -> None:
    """Not at every message; and what is known stays known."""
    patient.engine.subjects["1"] = "Known"
    for _ in range(3):
        assert (patient.subject(), patient.subject("1")) == ("", "Known")
    assert patient.engine.asked == [GROUP, "1"]

    patient.engine.subjects[GROUP] = "Team"
    patient.names.login()
    assert (patient.subject(), patient.subject("1")) == ("Team", "Known")
    assert patient.engine.asked == [GROUP, "1", GROUP]


def test_a_session_that_ends_waits_for_nothing(patient: Scene) -> None:
    """Whoever waits is let go, and nobody asks any more: what the engine still holds must come out in time."""
    patient.engine.answers.clear()
    asked = patient.aside()
    patient.names.stop()
    assert asked.result(LIMIT_S / 2) == ""
    assert patient.subject("1") == ""
    assert patient.engine.asked == [GROUP]


def test_an_unpaired_client_is_asked_nothing(patient: Scene) -> None:
    """A call on a client that is gone ends the process."""
    patient.engine.running = patient.engine.paired = False
    patient.engine.contacts[PHONE] = glue.ContactInfo(PushName="Ana")
    assert (patient.subject(), patient.names.of(person())) == ("", "")
    assert patient.engine.asked == []


def test_the_oldest_subjects_make_room(patient: Scene) -> None:
    """Bounded, whatever the number of groups."""
    for number in range(SUBJECTS_MAX + 10):
        patient.names.renamed(jid(str(number), "g.us"), "x")
    assert len(patient.names._subjects) == SUBJECTS_MAX
    assert "9" not in patient.names._subjects


def test_a_person_goes_by_their_own_name_under_either_id(patient: Scene) -> None:
    """The name they gave themselves, else the one in the phone's contacts, else a business's; nobody: empty."""
    known = patient.engine.contacts
    assert patient.names.of(hidden(), person()) == ""
    known[PHONE] = glue.ContactInfo(BusinessName="Shop")
    assert patient.names.of(hidden(), person(device=3)) == "Shop"
    known[PHONE] = glue.ContactInfo(BusinessName="Shop", FullName="Ana from work")
    assert patient.names.of(person()) == "Ana from work"
    known[LID] = glue.ContactInfo(PushName="Ana", FullName="Ana from work")
    assert patient.names.of(hidden(), person()) == "Ana"
    assert patient.names.of(jid("777", "newsletter")) == ""


def test_a_library_that_fails_costs_no_message(patient: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is empty then."""

    def broken(*_: object) -> str:
        raise ValueError("broken")

    monkeypatch.setattr(patient.engine, "contact", broken)
    monkeypatch.setattr(patient.engine, "group_subject", broken)
    assert (patient.names.of(person()), patient.subject()) == ("", "")
