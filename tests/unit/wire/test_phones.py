"""Every writing of a phone that clients send, in the one form we keep."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomada.errors import BadInput
from tomada.wire.phones import chat_of, person_of


@pytest.mark.parametrize(
    ("sent", "chat"),
    [
        ("5511988887777", "5511988887777"),
        (5511988887777, "5511988887777"),
        ("+55 (11) 98888-7777", "5511988887777"),
        (" 55.11.98888.7777 ", "5511988887777"),
        ("55 11 98888‑7777", "5511988887777"),
        ("005511988887777", "5511988887777"),
        ("5511988887777@c.us", "5511988887777"),
        ("5511988887777@s.whatsapp.net", "5511988887777"),
        ("+1 212 555 0100", "12125550100"),
        ("120363012345678901-group", "120363012345678901-group"),
        ("120363012345678901@g.us", "120363012345678901-group"),
        ("5511988887777-1623281429", "5511988887777-1623281429-group"),
        ("5511988887777-1623281429-group", "5511988887777-1623281429-group"),
        ("123456789012345@lid", "123456789012345@lid"),
        ("120363012345678901@newsletter", "120363012345678901@newsletter"),
    ],
)
def test_chat_of(sent: str | int, chat: str) -> None:
    """Persons become digits, groups `<id>-group`, hidden numbers and newsletters stay."""
    assert chat_of(sent) == chat
    assert chat_of(chat) == chat


@pytest.mark.parametrize(
    "sent",
    ["abc", "12", "0", "1" * 16, "5511988887777x", "a@lid", "@lid", "-group", "x-group", "5511@broadcast", -5, 10**70,
     "٥٥١١٩٨٨٨٨٧٧٧٧", "5511988887777\x00", "5511988887777;drop", "1" * 100],
)  # fmt: skip
def test_invalid(sent: str | int) -> None:
    """What is no address is refused with the wire's words."""
    with pytest.raises(BadInput, match="Invalid phone"):
        chat_of(sent)


def test_empty_names_the_field() -> None:
    """An empty value says which field is empty."""
    with pytest.raises(BadInput, match="mentioned must not be empty"):
        chat_of(" ", "mentioned")


@pytest.mark.parametrize("sent", ["120363012345678901-group", "123456789012345@lid"])
def test_person_of(sent: str) -> None:
    """Where a person's number is needed, other addresses are refused."""
    with pytest.raises(BadInput, match="Invalid phone"):
        person_of(sent)


@given(st.text(max_size=80) | st.integers())
def test_anything(sent: str | int) -> None:
    """Any value is either brought into one of the four forms, where it stays, or refused."""
    try:
        chat = chat_of(sent)
    except BadInput:
        return
    assert chat_of(chat) == chat
    assert chat.isascii()
