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
        (b'{"phone": "1", "message": true}', SendText, "message: expected number or string, got boolean"),
        (
            b'{"phone": "1", "message": "x", "delayMessage": "", "mentioned": {}}',
            SendText,
            "mentioned: expected list, got object",
        ),
        (b"{", CreateBody, "The body is not valid JSON: it is cut off"),
        (b'{"name": "x"} y', CreateBody, "The body is not valid JSON: near byte 15"),
        ('{"name": "São Paulo"}'.encode("latin-1"), CreateBody, "The body must be UTF-8"),
        ('{"name": "São Paulo"}'.encode("utf-16"), CreateBody, "The body must be UTF-8"),
    ],
)
def test_words(raw: bytes, kind: Any, words: str) -> None:
    """Refusals name the field and the types in JSON's words."""
    with pytest.raises(BadInput) as refused:
        decode(raw, kind)
    assert refused.value.message == words


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (rb"x\ud83d", "x\ufffd"),
        (rb"\uD83D, \uDE00", "\ufffd, \ufffd"),
        (rb"\ude00\ud83d", "\ufffd\ufffd"),
        (rb"\ud83d\ud83d\ude00\ude00", "\ufffd😀\ufffd"),
        (rb"\ud83d\ude00\uD83D\uDE00", "😀😀"),
        (rb"\\ud83d", r"\ud83d"),
        (rb"\\\ud83d\n", "\\\ufffd\n"),
        (rb"\\\\ud83d\\\ud83d\ude00", "\\\\ud83d\\😀"),
        (rb"Jos\u00e9", "José"),
    ],
)
def test_half_of_an_emoji(written: bytes, read: str) -> None:
    """A text that was cut within an emoji is read with U+FFFD in its place; whole ones and spelt-out escapes stay."""
    assert decode(b'{"phone": "1", "message": "' + written + b'"}', SendText).message == read


def test_an_empty_text_says_that_an_option_is_not_given() -> None:
    """For switches, numbers and lists, as null does; what is required stays required."""
    options = ("delayMessage", "delayTyping", "messageId", "privateAnswer", "mentioned", "groupMentioned")
    empty = "".join(f', "{name}": ""' for name in options).encode()
    assert decode(b'{"phone": "1", "message": "x"' + empty + b"}", SendText) == SendText(phone="1", message="x")
    assert decode(b'{"name": "x", "autoReadMessage": "", "isDevice": ""}', CreateBody) == CreateBody(name="x")
    with pytest.raises(BadInput, match=r"^value: expected boolean, got string$"):
        decode(b'{"value": ""}', SwitchValue)


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
