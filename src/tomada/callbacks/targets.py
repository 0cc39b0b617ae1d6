"""Which URL of an instance an event goes to, by the rules of docs/callbacks.md ("Where an event goes").

`ReceivedCallback` is sent once: to receivedAndDeliveryCallbackUrl if that is set, else to receivedCallbackUrl. What the
number itself sent (`fromMe`) is sent only while notifySentByMe is on, which setting receivedAndDeliveryCallbackUrl by
itself turns on; a client that sets every URL at once and did not ask for it would otherwise answer its own words.
"""

from collections.abc import Mapping
from typing import Any

from tomada.callbacks.types import Target

_COLUMNS = {
    Target.DELIVERY: "delivery_callback_url",
    Target.MESSAGE_STATUS: "message_status_callback_url",
    Target.CONNECTED: "connected_callback_url",
    Target.DISCONNECTED: "disconnected_callback_url",
    Target.PRESENCE_CHAT: "presence_chat_callback_url",
}


def url_for(target: Target, instance: Mapping[str, Any]) -> str | None:
    """The URL for an event; None = nobody wants it. `instance` holds the columns of the instance's row."""
    if target is Target.NOBODY:
        return None
    if target in (Target.RECEIVED, Target.RECEIVED_FROM_ME):
        if target is Target.RECEIVED_FROM_ME and not instance["notify_sent_by_me"]:
            return None
        return instance["received_and_delivery_callback_url"] or instance["received_callback_url"] or None
    return instance[_COLUMNS[target]] or None
