"""Addresses and stanzas."""

import pytest

from tomada.sandbox.node import SERVER, Jid, element, lid_jid, user_jid


@pytest.mark.parametrize(
    ("text", "jid"),
    [
        ("15550001111@s.whatsapp.net", user_jid("15550001111")),
        ("15550001111:7@s.whatsapp.net", user_jid("15550001111", 7)),
        ("123:4@lid", lid_jid("123", 4)),
        ("120363@g.us", Jid("120363", "g.us")),
        ("s.whatsapp.net", SERVER),
    ],
)
def test_an_address_reads_and_writes_the_same_text(text: str, jid: Jid) -> None:
    """Every form of address survives text and back."""
    assert Jid.parse(text) == jid
    assert str(jid) == text


@pytest.mark.parametrize("text", ["", "a:x@lid", "a:999@lid", "1@"])
def test_what_is_no_address_is_refused(text: str) -> None:
    """Reading refuses rather than guesses."""
    with pytest.raises(ValueError, match="not a"):
        Jid.parse(text)


def test_attributes_take_handy_values() -> None:
    """None is left out, numbers and booleans become text, addresses stay addresses."""
    node = element("x", {"a": None, "b": 7, "c": True, "d": SERVER})

    assert node.attrs == {"b": "7", "c": "true", "d": SERVER}


def test_children_are_found_by_path() -> None:
    """`child` walks down tags; a missing step gives None."""
    tree = element("a", {}, [element("b", {}, [element("c", {}, b"data")])])

    found = tree.child("b", "c")
    assert found is not None
    assert found.data == b"data"
    assert tree.child("b", "x") is None


def test_changing_a_node_leaves_the_original_alone() -> None:
    """One node may be queued for many devices."""
    node = element("a", {"x": "1"})

    assert node.with_attrs({"x": None, "y": 2}).attrs == {"y": "2"}
    assert node.attrs == {"x": "1"}
