"""The integrator's side: which callbacks came, by the receiver's own record.

Each instance of a test gets a key; its hooks are `<receiver>/ok/<key>/...`, so one receiver serves many tests.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.acceptance.product import WAIT_S, wait_for
from tests.receiver import Receiver


@dataclass(frozen=True)
class Callback:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class Hooks:
    """The callbacks at one receiver."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def url(self, key: str) -> str:
        """Base URL for the hooks of one instance."""
        return self._receiver.url(f"ok/{key}")

    def of(self, key: str, kind: str | None = None) -> list[Callback]:
        """The callbacks under this key, in order of arrival; `kind` is their type."""
        prefix = f"/ok/{key}/"
        callbacks = [
            Callback(request["target"].removeprefix("/ok"), request["headers"], json.loads(request["body"]))
            for request in self._receiver.requests()
            if request["target"].startswith(prefix)
        ]
        return [callback for callback in callbacks if kind is None or callback.body["type"] == kind]

    def wait(
        self,
        key: str,
        kind: str,
        matches: Callable[[dict[str, Any]], bool] = lambda _: True,
        timeout_s: float = WAIT_S,
    ) -> Callback:
        """The first callback of this kind that matches."""

        def first() -> Callback | None:
            return next((callback for callback in self.of(key, kind) if matches(callback.body)), None)

        found: Callback = wait_for(f"{kind} at {key}; came: {[it.body for it in self.of(key)]}", first, timeout_s)
        return found

    def wait_text(self, key: str, text: str, timeout_s: float = WAIT_S) -> dict[str, Any]:
        """ReceivedCallback with this text."""
        return self.wait(key, "ReceivedCallback", lambda it: it.get("text", {}).get("message") == text, timeout_s).body

    def wait_delivery(self, key: str, message_id: str) -> dict[str, Any]:
        """DeliveryCallback of this message."""
        return self.wait(key, "DeliveryCallback", lambda it: it["messageId"] == message_id).body

    def wait_status(self, key: str, message_id: str, status: str) -> None:
        """MessageStatusCallback with this status for this message."""
        self.wait(key, "MessageStatusCallback", lambda it: it["status"] == status and message_id in it["ids"])
