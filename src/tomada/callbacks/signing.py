"""The headers of a callback: what today's receivers check, and a signature that new ones can verify.

`z-api-token` carries the instance's token, because deployed receivers authenticate by it (it goes to the integrator's
own URL only). Beside it stands the signature of the Standard Webhooks specification 1.0.0 (standardwebhooks.com):
HMAC-SHA256 over `id.timestamp.body` under the account's secret, `v1,<base64>`; during a rotation the account has two
secrets, the older one with its end (`<secret>@<epoch ms>`, written by accounts/manage.py), and the header has two
signatures until then. `webhook-id` is the same on every attempt, `webhook-timestamp` is the attempt's.
"""

import base64
import hmac
from importlib.metadata import version

from tomada.callbacks.types import Lane, Waiting
from tomada.kit.sealing import Sealer

USER_AGENT = f"Tomada/{version('tomada')} (+callbacks)"

ATTEMPT_HEADER = "tomada-attempt"
ORDER_HEADER = "tomada-order"


class Credentials:
    """What a lane's requests are signed with, opened once per lane taken. Not for logs: no repr, no comparison."""

    __slots__ = ("_begun", "token")

    def __init__(self, token: str, secrets: str) -> None:
        self.token = token
        self._begun = tuple(_begun(secret) for secret in secrets.split())

    def begun(self, now_ms: int) -> list[hmac.HMAC]:
        """The signatures to give at this time, each begun with its key: a copy costs half of beginning anew."""
        return [begun for begun, until_ms in self._begun if until_ms is None or now_ms < until_ms]


def open_credentials(sealer: Sealer, lane: Lane) -> Credentials:
    """The instance's token and the account's signing secrets (one, or during a rotation two, separated by a space)."""
    return Credentials(
        sealer.open(lane.token_sealed, f"instance:{lane.instance_id}"),
        sealer.open(lane.secrets_sealed, f"account:{lane.account_id}"),
    )


def signature(begun: list[hmac.HMAC], event_id: str, timestamp_s: int, body: bytes) -> str:
    """The value of `webhook-signature`: one `v1` signature per key, separated by spaces."""
    signed = b"%s.%d.%s" % (event_id.encode(), timestamp_s, body)
    given = []
    for one in begun:
        mac = one.copy()
        mac.update(signed)
        given.append(f"v1,{base64.b64encode(mac.digest()).decode()}")
    return " ".join(given)


def headers(
    credentials: Credentials, callback: Waiting, body: bytes, now_ms: int, overtaken: str | None, origin: str
) -> dict[str, str]:
    """All headers of one attempt. `overtaken`: the event that this one overtakes, if one was set aside before it.

    `origin`: this server's public URL, empty if it has none.
    """
    timestamp_s = now_ms // 1000
    result = {
        "content-type": "application/json",
        "user-agent": USER_AGENT,
        "z-api-token": credentials.token,
        "webhook-id": callback.event_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": signature(credentials.begun(now_ms), callback.event_id, timestamp_s, body),
        ATTEMPT_HEADER: str(callback.attempts + 1),
    }
    if origin:
        result["origin"] = origin
    order = _order(callback, overtaken)
    if order:
        result[ORDER_HEADER] = order
    return result


def _order(callback: Waiting, overtaken: str | None) -> str | None:
    """Says so when an event is out of order; absent when it is in order."""
    if callback.replay:
        return "replayed"
    if callback.aside:
        return "gave-way"
    return f"overtakes {overtaken}" if overtaken else None


def _begun(secret: str) -> tuple[hmac.HMAC, int | None]:
    """Of a `whsec_...` secret, and its end; missing base64 padding is forgiven, as the reference library does."""
    value, _, until_ms = secret.partition("@")
    key = base64.b64decode(value.removeprefix("whsec_") + "==")
    return hmac.new(key, digestmod="sha256"), int(until_ms) if until_ms else None
