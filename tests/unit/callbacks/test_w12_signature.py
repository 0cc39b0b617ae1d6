"""W12: the signature beside z-api-token, checked by the reference library of Standard Webhooks."""

import time

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tomada.callbacks.signing import Credentials, headers
from tomada.callbacks.types import Waiting
from tomada.kit import ids

BODY = '{"text":{"message":"ol\u00e1 \U0001f600"}}'


def callback(attempts: int = 0) -> Waiting:
    """An event to sign."""
    return Waiting(1, ids.event_id(), 1, BODY, 0, attempts, 0, False, False)


def signed(secrets: str, waiting: Waiting, now_ms: int | None = None) -> dict[str, str]:
    """Its headers now."""
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    return headers(Credentials("TOKEN", secrets), waiting, BODY.encode(), now_ms, None, "http://o.example")


def test_the_reference_library_accepts_it() -> None:
    """Verified with the account's secret; refused with another, with another body, and when old."""
    secret = ids.signing_secret()
    result = signed(secret, callback())
    assert Webhook(secret).verify(BODY, result) == {"text": {"message": "ol\u00e1 \U0001f600"}}
    with pytest.raises(WebhookVerificationError):
        Webhook(ids.signing_secret()).verify(BODY, result)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY + " ", result)
    old = signed(secret, callback(), time.time_ns() // 1_000_000 - 600_000)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY, old)


def test_two_secrets_during_a_rotation() -> None:
    """Receivers with the old and with the new secret both accept the same request."""
    old, new = ids.signing_secret(), ids.signing_secret()
    result = signed(f"{new} {old}", callback())
    Webhook(old).verify(BODY, result)
    Webhook(new).verify(BODY, result)
    assert len(result["webhook-signature"].split(" ")) == 2


def test_the_old_secret_ends_when_its_overlap_does() -> None:
    """Written `<new> <old>@<end>`: two signatures before the end, from then on one."""
    old, new, end_ms = ids.signing_secret(), ids.signing_secret(), 1_800_000_000_000
    before = signed(f"{new} {old}@{end_ms}", callback(), end_ms - 1)["webhook-signature"]
    after = signed(f"{new} {old}@{end_ms}", callback(), end_ms)["webhook-signature"]
    assert (len(before.split()), len(after.split())) == (2, 1)


def test_the_same_id_and_a_new_timestamp_on_every_attempt() -> None:
    """What a receiver dedupes by stays; what proves freshness does not; the attempt is numbered."""
    secret = ids.signing_secret()
    first, again = callback(), None
    again = Waiting(1, first.event_id, 1, BODY, 0, 3, 9000, False, False)
    one, two = signed(secret, first, 1_800_000_000_000), signed(secret, again, 1_800_000_009_000)
    assert one["webhook-id"] == two["webhook-id"]
    assert (one["webhook-timestamp"], two["webhook-timestamp"]) == ("1800000000", "1800000009")
    assert one["webhook-signature"] != two["webhook-signature"]
    assert (one["tomada-attempt"], two["tomada-attempt"]) == ("1", "4")
