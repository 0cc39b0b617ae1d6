"""Prometheus metrics of the callbacks; docs/callbacks.md ("Measures") says what each is good for.

Counters are kept where things happen. Gauges of what waits are read from the database now and then (`Gauges.set`), so
they are right whichever dispatcher is asked.
"""

from collections.abc import Sequence

import msgspec
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_WAITS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 60.0, 600.0, 3600.0, 36_000.0)

OUTCOMES = ("delivered", "refused", "blocked", "failed")


class AccountFigures(msgspec.Struct, frozen=True):
    """What waits for one account."""

    account_id: str
    waiting: int
    oldest_age_s: float
    lanes_failing: int
    lanes_disabled: int
    dead_letters: int


class Metrics:
    """All metrics of one dispatcher; give tests a registry of their own."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        attempts = Counter("tomada_callback_attempts", "Requests made, by outcome", ["outcome"], registry=registry)
        self.attempts = {outcome: attempts.labels(outcome) for outcome in OUTCOMES}
        self.duration = Histogram(
            "tomada_callback_attempt_seconds", "From dial to the answer's end", buckets=_SECONDS, registry=registry
        )
        self.wait = Histogram(
            "tomada_callback_wait_seconds", "From the event's commit to its delivery", buckets=_WAITS, registry=registry
        )
        self.given_up = Counter("tomada_callback_given_up", "Events whose attempts were used up", registry=registry)
        self.disabled = Counter("tomada_callback_urls_disabled", "URLs switched off", registry=registry)
        self.lost = Counter("tomada_callback_leases_lost", "Lanes lost to another dispatcher", registry=registry)
        self.lanes_held = Gauge("tomada_callback_lanes_held", "Lanes being worked on here", registry=registry)
        self._by_account = [
            Gauge(f"tomada_callback_{name}", words, ["account"], registry=registry)
            for name, words in (
                ("waiting", "Callbacks to be delivered"),
                ("oldest_age_seconds", "Age of the oldest callback to be delivered"),
                ("lanes_failing", "Lanes whose last attempt failed"),
                ("lanes_disabled", "Lanes whose URL is switched off"),
                ("dead_letters_kept", "Dead letters kept, those of disabled URLs included"),
            )
        ]

    def set_accounts(self, figures: Sequence[AccountFigures]) -> None:
        """Replace the gauges of all accounts."""
        for gauge in self._by_account:
            gauge.clear()
        for row in figures:
            values = (row.waiting, row.oldest_age_s, row.lanes_failing, row.lanes_disabled, row.dead_letters)
            for gauge, value in zip(self._by_account, values, strict=True):
                gauge.labels(row.account_id).set(value)


def outcome(status: int | None, error: str | None) -> str:
    """Which of OUTCOMES an attempt had: refused is any status but 2xx, failed is no answer."""
    if error is None:
        return "delivered"
    if status is not None:
        return "refused"
    return "blocked" if error == "blocked address" else "failed"
