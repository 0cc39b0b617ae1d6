"""What an answer of a machine means."""

from typing import Any

import msgspec
import pytest

from tomada.engine.port import EngineRefused
from tomada.errors import OutcomeUnknown
from tomada.machines.machine import value_of
from tomada.machines.protocol import Answer


def answer(**fields: Any) -> Answer:
    """As it comes from a machine."""
    return msgspec.convert({"type": "answer", "id": 1, **fields}, Answer)


def test_a_value_is_what_it_is() -> None:
    """Any JSON; null if there is nothing to say."""
    assert value_of(answer(value=msgspec.Raw(b'{"a":1}'))) == msgspec.Raw(b'{"a":1}')
    assert value_of(answer()) == msgspec.Raw(b"null")


@pytest.mark.parametrize(("kind", "retry"), [("refused", False), ("retry", True)])
def test_a_refusal_says_whether_asking_again_helps(kind: str, retry: bool) -> None:
    """Nothing was done, and WhatsApp's own number for it is kept."""
    with pytest.raises(EngineRefused, match="no") as refused:
        value_of(answer(error="no", kind=kind, code=463))
    assert (refused.value.retry, refused.value.code) == (retry, 463)


@pytest.mark.parametrize("kind", ["unknown", ""])
def test_an_error_that_leaves_a_doubt_is_no_success(kind: str) -> None:
    """Also one that does not say its kind: it was taken for a value before."""
    with pytest.raises(OutcomeUnknown, match="perhaps"):
        value_of(answer(error="perhaps", kind=kind))
