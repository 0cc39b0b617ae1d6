"""Which URL an event goes to."""

from typing import Any

import pytest

from tomada.callbacks.targets import url_for
from tomada.callbacks.types import Target

BOTH, IN = "https://both.example", "https://in.example"


def row(**values: Any) -> dict[str, Any]:
    """An instance's row without URLs, but for those given."""
    empty = {
        "delivery_callback_url": None,
        "received_callback_url": None,
        "received_and_delivery_callback_url": None,
        "disconnected_callback_url": None,
        "connected_callback_url": None,
        "message_status_callback_url": None,
        "presence_chat_callback_url": None,
        "notify_sent_by_me": False,
    }
    return {**empty, **values}


@pytest.mark.parametrize(
    ("both", "received", "sent_by_me", "inbound", "from_me"),
    [
        (None, None, False, None, None),
        (None, None, True, None, None),
        (None, IN, False, IN, None),
        (None, IN, True, IN, IN),
        (BOTH, None, False, BOTH, None),
        (BOTH, None, True, BOTH, BOTH),
        (BOTH, IN, False, BOTH, None),
        (BOTH, IN, True, BOTH, BOTH),
    ],
)
def test_received_goes_out_once(
    both: str | None, received: str | None, sent_by_me: bool, inbound: str | None, from_me: str | None
) -> None:
    """To receivedAndDelivery if set, else to received; our own messages only while the switch is on."""
    instance = row(
        received_and_delivery_callback_url=both, received_callback_url=received, notify_sent_by_me=sent_by_me
    )
    assert url_for(Target.RECEIVED, instance) == inbound
    assert url_for(Target.RECEIVED_FROM_ME, instance) == from_me


@pytest.mark.parametrize(
    ("target", "column"),
    [
        (Target.DELIVERY, "delivery_callback_url"),
        (Target.MESSAGE_STATUS, "message_status_callback_url"),
        (Target.CONNECTED, "connected_callback_url"),
        (Target.DISCONNECTED, "disconnected_callback_url"),
        (Target.PRESENCE_CHAT, "presence_chat_callback_url"),
    ],
)
def test_each_other_event_has_its_own_url(target: Target, column: str) -> None:
    """No other setting stands in for it; an empty one is none."""
    assert url_for(target, row(**{column: "https://x.example"})) == "https://x.example"
    assert url_for(target, row(received_and_delivery_callback_url=BOTH, received_callback_url=IN)) is None
    assert url_for(target, row(**{column: ""})) is None


def test_nobody_is_nobody() -> None:
    """An entry for the history alone."""
    everything = row(received_callback_url=IN, received_and_delivery_callback_url=BOTH)
    assert url_for(Target.NOBODY, everything) is None
