"""What the library's words mean for a send, and for a session whose pump has ended."""

import pytest

from tomada.engine.neonize_failures import NotConnected, ended, send_failure, was_answered
from tomada.engine.port import Banned, ConnectFailed, EngineRefused, OutcomeUnknown, SessionEnded


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("failed to send message node: websocket not connected", NotConnected),
        ("failed to send message node: frame socket is closed", NotConnected),
        ("failed to get device list: failed to send usync query: frame socket is closed", NotConnected),
        ("websocket not connected", OutcomeUnknown),
        ("frame socket is closed", OutcomeUnknown),
        ("the store doesn't contain a device JID", NotConnected),
        ("timed out waiting for message send response", OutcomeUnknown),
        ("websocket disconnected before message send returned response", OutcomeUnknown),
        ("server returned error 479", EngineRefused),
        ("no LID found for 1@s.whatsapp.net from server", EngineRefused),
    ],
)
def test_what_a_failed_send_means(words: str, kind: type[Exception]) -> None:
    """Surely not sent, perhaps sent, refused: the library tells them apart by words only.

    What it says bare is of its second try, after a break: the first try may have arrived.
    """
    assert type(send_failure(words, "s.whatsapp.net")) is kind


@pytest.mark.parametrize(
    ("words", "server", "told"),
    [
        ("no LID found for 1@s.whatsapp.net from server", "s.whatsapp.net", "Phone number does not exist"),
        ("server returned error 404", "lid", "Phone number does not exist"),
        ("failed to get group members: that group does not exist", "g.us", "Group does not exist"),
        ("server returned error 404", "newsletter", "Newsletter does not exist"),
    ],
)
def test_an_address_without_anybody_is_told_in_the_wires_words(words: str, server: str, told: str) -> None:
    """Clients look for the first; the library's words speak of its own affairs."""
    failure = send_failure(words, server)
    assert (type(failure), str(failure)) == (EngineRefused, told)


def test_what_the_end_of_a_pump_means() -> None:
    """An event that cannot be encoded ends the pump; where its name says what happened, that is told."""
    words = "proto: required field neonize.{}.{} not set"
    assert isinstance(ended(words.format("Receipt", "Type")), SessionEnded)
    assert isinstance(ended(words.format("TemporaryBan", "Code")), Banned)
    assert isinstance(ended(words.format("ConnectFailure", "Reason")), ConnectFailed)
    assert isinstance(ended(""), SessionEnded)


@pytest.mark.parametrize(
    ("words", "answered"),
    [
        ("", True),
        ("server returned error 400", True),
        ("info query timed out", False),
        ("websocket not connected", False),
        ("failed to send IQ: frame socket is closed", False),
    ],
)
def test_a_refusal_is_an_answer_and_silence_is_none(words: str, answered: bool) -> None:
    """A probe asks whether anybody is there, not whether they agree."""
    assert was_answered(words) is answered
