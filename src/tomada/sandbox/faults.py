"""Misbehaviour on request: what a network does on a bad day, switched on and off by the control routes.

Two sorts. *Standing* faults stay until they are cleared, run out (`until`, seconds) or are used up (`count`), and are
asked for where they act (log-in, acknowledgement, delivery). *Single* faults (`drop`, `replaced`, `stream-error`,
`server-error-receipt`) act on the connections that exist now; `network_faults` carries them out. Each may be limited
to one number. The count of connects per second shows whether clients storm back after an outage.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

import msgspec

from tomada.kit.clock import Clock

STANDING = ("refuse", "ban", "outdated", "no-ack", "delay", "corrupt", "redeliver", "deaf")
SINGLE = ("drop", "replaced", "stream-error", "server-error-receipt")
CONNECTS_KEPT = 2_000
_UNTIL_S_MAX = 86_400.0
_COUNTED = ("corrupt", "redeliver")


class FaultSpec(msgspec.Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """A fault as the control route takes it; unused fields keep their defaults."""

    kind: str
    number: str | None = None
    """Only for this phone number (digits)."""
    until: float | None = None
    """Seconds until it ends by itself."""
    code: int | None = None
    """ban: reason code (default 101); stream-error: the code (default 503)."""
    expire: int | None = None
    """ban: seconds until the ban ends, as told to the client (default 3600)."""
    ms: int | None = None
    """delay: milliseconds (default 1000)."""
    count: int | None = None
    """corrupt, redeliver: how many messages (default 1)."""


class StandingFault(msgspec.Struct):
    """A fault in force: `since_s` and `ends_s` on the monotonic clock, `left` uses; None = no end."""

    spec: FaultSpec
    since_s: float
    ends_s: float | None
    left: int | None


class FaultError(ValueError):
    """The request for a fault makes no sense; the text says why."""


class Faults:
    """The faults in force and the log of connects."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._standing: list[StandingFault] = []
        self._connects: deque[int] = deque(maxlen=CONNECTS_KEPT)
        self._connects_total = 0

    def add(self, spec: FaultSpec) -> None:
        """Put a standing fault in force, in place of one of the same kind for the same number."""
        self._standing = [
            fault for fault in self._standing if (fault.spec.kind, fault.spec.number) != (spec.kind, spec.number)
        ]
        now = self._clock.monotonic_s()
        ends = None if spec.until is None else now + spec.until
        left = (spec.count or 1) if spec.kind in _COUNTED else None
        self._standing.append(StandingFault(spec, now, ends, left))

    def clear(self) -> None:
        """End all standing faults."""
        self._standing.clear()

    def find(self, kind: str, number: str | None) -> FaultSpec | None:
        """The fault of this kind that holds for a number (None = before the number is known)."""
        if not self._standing:
            return None
        fault = self._find(kind, number)
        return fault.spec if fault else None

    def use(self, kind: str, number: str) -> bool:
        """Whether a counted fault strikes now; one use of it is gone then."""
        fault = self._find(kind, number) if self._standing else None
        if fault is None or fault.left is None:
            return False
        fault.left -= 1
        if fault.left <= 0:
            self._standing.remove(fault)
        return True

    def deaf(self, number: str, opened_s: float) -> bool:
        """Whether a connection is deaf: only those are that were open when the fault began.

        So a client that notices, and connects anew, is heard again.
        """
        fault = self._find("deaf", number) if self._standing else None
        return fault is not None and opened_s <= fault.since_s

    def delay_s(self, number: str) -> float:
        """Seconds by which everything sent to a number is late."""
        spec = self.find("delay", number)
        return 0.0 if spec is None else (1000 if spec.ms is None else spec.ms) / 1000

    def connected(self) -> None:
        """Count one attempt to connect."""
        self._connects.append(self._clock.now_ms())
        self._connects_total += 1

    def report(self, connections: int) -> dict[str, Any]:
        """What is in force, and the connects: total, per second, and the times (epoch ms) of the last 2,000."""
        now = self._clock.monotonic_s()
        self._expire()
        per_second = Counter(at // 1000 for at in self._connects)
        return {
            "faults": [
                {
                    **msgspec.to_builtins(fault.spec),
                    "endsInSeconds": None if fault.ends_s is None else round(fault.ends_s - now, 3),
                    "left": fault.left,
                }
                for fault in self._standing
            ],
            "connections": connections,
            "connects": {
                "total": self._connects_total,
                "maxPerSecond": max(per_second.values(), default=0),
                "perSecond": {str(second): count for second, count in sorted(per_second.items())},
                "timesMs": list(self._connects),
            },
        }

    def _find(self, kind: str, number: str | None) -> StandingFault | None:
        self._expire()
        for fault in self._standing:
            if fault.spec.kind == kind and fault.spec.number in (None, number):
                return fault
        return None

    def _expire(self) -> None:
        now = self._clock.monotonic_s()
        self._standing = [fault for fault in self._standing if fault.ends_s is None or fault.ends_s > now]


def parse_fault(body: Any) -> FaultSpec:
    """Read a fault from decoded JSON; `FaultError` with a reason if it is not one."""
    try:
        spec = msgspec.convert(body, FaultSpec)
    except msgspec.ValidationError as error:
        raise FaultError(str(error)) from error
    if spec.kind not in STANDING + SINGLE:
        raise FaultError(f"unknown kind; known are {', '.join(STANDING + SINGLE)}")
    if spec.number is not None and not spec.number.isdigit():
        raise FaultError("number must be digits")
    if spec.until is not None and not 0 < spec.until <= _UNTIL_S_MAX:
        raise FaultError(f"until must be between 0 and {_UNTIL_S_MAX:.0f} seconds")
    for name in ("code", "expire", "ms", "count"):
        value = getattr(spec, name)
        if value is not None and not 0 <= value <= 1_000_000:
            raise FaultError(f"{name} must be between 0 and 1000000")
    return spec
