"""From bytes to a body: the words of refusals, and what is let pass."""

from typing import Any

import pytest

from tomada.errors import BadInput
from tomada.wire.bodies import CreateBody, EveryUrl, QueuePageBody, SendText, SwitchValue
from tomada.wire.reading import decode


@pytest.mark.parametrize(
    ("raw", "kind", "words"),
    [
        (b"{}", CreateBody, "name is required"),
        (b"", CreateBody, "name is required"),
        (b"[]", CreateBody, "Expected object, got list"),
        (b'"x"', CreateBody, "Expected object, got string"),
        (b'{"name": 1}', CreateBody, "name: expected string, got number"),
        (b'{"name": null}', CreateBody, "name: expected string, got null"),
        (b'{"value": "sim"}', SwitchValue, "value: expected boolean, got string"),
        (b'{"phone": [], "message": "x"}', SendText, "phone: expected number or string, got list"),
        (b'{"pageSize": "ten"}', QueuePageBody, "pageSize: expected whole number, got string"),
        (b'{"pageSize": 1.5}', QueuePageBody, "pageSize: expected whole number, got number"),
        (b'{"phone": "1", "message": "x", "groupMentioned": [{}]}', SendText, "groupMentioned[0].phone is required"),
        (b'{"value": "x", "notifySentByMe": 7}', EveryUrl, "notifySentByMe: expected boolean, got number"),
        (b"{", CreateBody, "The body is not valid JSON: Input data was truncated"),
    ],
)
def test_words(raw: bytes, kind: Any, words: str) -> None:
    """Refusals name the field and the types in JSON's words."""
    with pytest.raises(BadInput) as refused:
        decode(raw, kind)
    assert refused.value.message == words


def test_nul_is_refused_only_where_it_is() -> None:
    """The character U+0000 is refused; a text that merely spells its escape is not."""
    with pytest.raises(BadInput, match="U\\+0000"):
        decode(b'{"phone": "1", "message": "a\\u0000b"}', SendText)
    assert decode(b'{"phone": "1", "message": "a\\\\u0000b"}', SendText).message == "a\\u0000b"


def test_large_number() -> None:
    """A number with thousands of digits is refused, not an error of ours."""
    with pytest.raises(BadInput):
        decode(b'{"phone": ' + b"9" * 10_000 + b', "message": {}}', SendText)


def test_unknown_and_null_fields() -> None:
    """Unknown fields are ignored, null counts as not given."""
    body = decode(b'{"name": "x", "sessionName": null, "other": {"a": [1]}, "name2": 3}', CreateBody)
    assert (body.name, body.session_name) == ("x", None)
