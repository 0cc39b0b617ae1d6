"""What becomes of a session: `decide(state, happening) -> (state, actions)`, without clock, dice or I/O.

The condition is what the `session` table and the wire show; docs/machines.md draws it. Besides the condition a state
holds what the host must remember: whether the session is wanted (paired, so it should be connected), whether the
engine was asked to run it (`running`), whether a round of QR codes is on, and how often it failed since it was last
well.

Four rules run through the table:
- An engine reconnects by itself for a moment; after a grace it is closed and our own backoff takes over, because the
  engine's knows neither jitter nor the other sessions.
- What WhatsApp says for good (logged out, replaced, banned, outdated) is never answered with a blind reconnect.
- A session that was well for a minute and fails is started anew at once; one that fails again waits.
- Unless it says otherwise, a decision leaves standing whatever was planned.
"""

from typing import Any, Literal, TypeAlias

import msgspec

from tomada.engine import port

Condition: TypeAlias = Literal[
    "unpaired", "connecting", "connected", "disconnected", "logged_out", "replaced", "banned", "outdated", "failed"
]

WELL_MS = 60_000  # connected for so long: earlier failures no longer count
SPREAD_MS = 60_000  # openings that are due at a known moment are spread over so much
BAN_UNKNOWN_MS = 3_600_000  # a ban without an end
OUTDATED_RETRY_MS = 3_600_000

WORDS = {
    "logged_out": "The phone removed this device from its linked devices. Read a new QR code to pair it again.",
    "keys_gone": "WhatsApp no longer knows this device. Read a new QR code to pair it again.",
    "unlinked": "Disconnected by request. Read a new QR code to pair a phone.",
    "replaced": "The same device was connected somewhere else. Call restart or restore-session to take it back here.",
    "banned": "WhatsApp refuses this number for a while. It is connected again when that time is over.",
    "outdated": "WhatsApp refuses this version. The operator must upgrade Tomada.",
    "grace": "The connection broke and did not come back by itself. It is tried again.",
    "deaf": "The connection did not answer two probes and is being started anew.",
    "machine": "The process of this instance stopped and is being started again.",
    "pairing_machine": "The process of this instance stopped during pairing. Ask for a new QR code.",
    "not_hosted": "Not connected just now.",
    "restart": "Being restarted by request.",
}


class SessionState(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one session; the first block is its row in the table."""

    wanted: bool = False
    condition: Condition = "unpaired"
    reason: str | None = None
    phone: str | None = None
    lid: str | None = None
    push_name: str | None = None
    is_business: bool = False
    platform: str | None = None
    retry_after_ms: int | None = None

    running: bool = False  # the engine was asked to run it and we did not close it since
    pairing: bool = False
    failures: int = 0
    connected_ms: int | None = None

    @property
    def held(self) -> bool:
        """Paired, but not connected until somebody asks for it."""
        return self.condition == "replaced"


# --- what may happen besides the engine's events ----------------------------------------------------------------------


class Boot(msgspec.Struct, frozen=True, tag="boot"):
    """The program starts and has read this session's row."""


class FoundDevice(msgspec.Struct, frozen=True, tag="found_device"):
    """The program starts, and the session store holds a device for a session whose row says that none is paired."""


class Opening(msgspec.Struct, frozen=True, tag="opening"):
    """The machine is being asked to open it; from here on the engine's events are this session's."""


class Opened(msgspec.Struct, frozen=True, tag="opened"):
    """The machine says that the session runs, and whether the session store holds a device for it."""

    device: bool = True


class NoDevice(msgspec.Struct, frozen=True, tag="no_device"):
    """The session store holds no device, although we took the session for paired."""


class OpenFailed(msgspec.Struct, frozen=True, tag="open_failed"):
    """The machine could not open the session."""

    reason: str


class GraceOver(msgspec.Struct, frozen=True, tag="grace_over"):
    """The engine has had its time to connect by itself."""


class Deaf(msgspec.Struct, frozen=True, tag="deaf"):
    """Two probes in a row were not answered."""


class MachineDied(msgspec.Struct, frozen=True, tag="machine_died"):
    """The process that ran the session is gone; `killed` by us, because it did not do as it was asked."""

    killed: bool = False


class AskedToPair(msgspec.Struct, frozen=True, tag="asked_to_pair"):
    """Somebody asked for a QR code or a pairing code."""


class NoCode(msgspec.Struct, frozen=True, tag="no_code"):
    """A round of QR codes showed none in time."""


class AskedToRestart(msgspec.Struct, frozen=True, tag="asked_to_restart"):
    """Somebody called restart, or restore-session on a session that is not connected."""


class Forgotten(msgspec.Struct, frozen=True, tag="forgotten"):
    """Somebody disconnected the instance: the device was unlinked as far as that could be done."""


Internal = (
    Boot
    | FoundDevice
    | Opening
    | Opened
    | NoDevice
    | OpenFailed
    | GraceOver
    | Deaf
    | MachineDied
    | AskedToPair
    | NoCode
    | AskedToRestart
    | Forgotten
)
Happening = port.EngineEvent | Internal

# --- what to do about it ----------------------------------------------------------------------------------------------


class OpenNow(msgspec.Struct, frozen=True, tag="open_now"):
    """(Re)open at the pace of an orderly start; a running session is closed first."""


class OpenAfterFailure(msgspec.Struct, frozen=True, tag="open_after_failure"):
    """Close, then reopen at the recovery pace: at once for attempt 0, else after full jitter."""

    attempt: int


class OpenAt(msgspec.Struct, frozen=True, tag="open_at"):
    """Close, then reopen a little (random, up to `spread_ms`) after a moment, at the recovery pace."""

    at_ms: int
    spread_ms: int


class Close(msgspec.Struct, frozen=True, tag="close"):
    """Close, and forget any plan to open."""


class Watch(msgspec.Struct, frozen=True, tag="watch"):
    """Say GraceOver if it is not connected in time: `reconnect` (it was), or `connect` (it was just opened)."""

    kind: Literal["reconnect", "connect"]


class EraseKeys(msgspec.Struct, frozen=True, tag="erase_keys"):
    """Remove the session store once closed, so that the next pairing starts clean."""


class LogLoudly(msgspec.Struct, frozen=True, tag="log_loudly"):
    """An operator must know."""

    words: str


Action = OpenNow | OpenAfterFailure | OpenAt | Close | Watch | EraseKeys | LogLoudly
Decision: TypeAlias = tuple[SessionState, tuple[Action, ...]]

_STOPPED: dict[str, Any] = {"running": False, "pairing": False, "connected_ms": None}

# --- the table --------------------------------------------------------------------------------------------------------


def decide(state: SessionState, happening: Happening, now_ms: int) -> Decision:
    """The next state and what to do; `now_ms` is wall-clock time. Total: nothing that can happen raises."""
    if isinstance(happening, Internal):
        return _internal(state, happening, now_ms)
    if not state.running:
        return state, ()  # an echo of a session that is being closed
    return _engine(state, happening, now_ms)


def _engine(state: SessionState, event: port.EngineEvent, now_ms: int) -> Decision:
    match event:
        case port.Connected():
            return _connected(state, event, now_ms), ()
        case port.Named():
            return _change(state, push_name=event.push_name), ()
        case port.Paired():
            return _paired(state, event), (Watch("connect"),)
        case port.PairingEnded() if state.pairing:
            return _change(state, running=False, pairing=False), (Close(),)
        case port.Disconnected() if state.condition == "connected":
            return _change(state, condition="disconnected", reason=event.reason), (Watch("reconnect"),)
        case port.ConnectFailed():
            return _failed(state, event.reason, now_ms)
        case port.LoggedOut():
            return _unpaired(state, "logged_out", WORDS["logged_out"]), (Close(), EraseKeys())
        case port.Replaced():
            return _held(state, "replaced", None), (Close(),)
        case port.Banned():
            until_ms = event.expires_ms if event.expires_ms > now_ms else now_ms + BAN_UNKNOWN_MS
            return _held(state, "banned", until_ms), (OpenAt(until_ms, SPREAD_MS) if state.wanted else Close(),)
        case port.Outdated():
            retry = OpenAt(now_ms + OUTDATED_RETRY_MS, OUTDATED_RETRY_MS) if state.wanted else Close()
            return _held(state, "outdated", None), (LogLoudly(WORDS["outdated"]), retry)
        case _:
            return state, ()


def _internal(state: SessionState, happening: Internal, now_ms: int) -> Decision:
    match happening:
        case Boot():
            return _booted(state, now_ms)
        case Opening():
            condition: Condition = "connecting" if state.wanted else state.condition
            return _change(state, condition=condition, retry_after_ms=None, running=True), ()
        case Opened() if state.running and (state.wanted or happening.device) and state.condition != "connected":
            return _known_as_paired(state), (Watch("connect"),)
        case FoundDevice() if not state.wanted and _is_ended(state):
            return state, (EraseKeys(),)
        case FoundDevice() if not state.wanted:
            return _known_as_paired(state), (OpenNow(),)
        case NoDevice() if state.wanted:
            return _unpaired(state, "logged_out", WORDS["keys_gone"]), (Close(), EraseKeys())
        case NoDevice():  # a round of codes that was asked for meanwhile is still to begin
            return _change(state, running=False), ()
        case OpenFailed() if state.running:
            return _failed(state, happening.reason, now_ms)
        case GraceOver() if state.running and state.condition != "connected":
            return _failed(state, WORDS["grace"], now_ms)
        case Deaf() if state.running and state.condition == "connected":
            return _started_anew(state, "deaf", now_ms)
        case MachineDied() if state.running:
            return _machine_died(state, happening)
        case AskedToPair() if not state.wanted and not state.pairing:
            return _change(state, condition="unpaired", reason=None, retry_after_ms=None, pairing=True), (OpenNow(),)
        case AskedToRestart() if state.running and state.condition == "connecting":
            return state, ()  # it is being started: callers who ask in a loop must not keep it from connecting
        case AskedToRestart() if state.wanted and state.condition != "banned":
            return _change(state, condition="connecting", reason=WORDS["restart"], **_STOPPED), (OpenNow(),)
        case AskedToRestart() if not state.wanted:
            return _change(state, **_STOPPED), (Close(),)
        case NoCode() if state.pairing and state.running:  # else it still waits for its turn to be opened
            return _change(state, **_STOPPED), (Close(),)
        case Forgotten():
            return _unpaired(state, "unpaired", WORDS["unlinked"]), (Close(), EraseKeys())
        case _:
            return state, ()


def _booted(state: SessionState, now_ms: int) -> Decision:
    if not state.wanted or state.held:
        return state, ()
    if state.condition == "banned" and (state.retry_after_ms or 0) > now_ms:
        return state, (OpenAt(state.retry_after_ms or 0, SPREAD_MS),)
    return _change(state, condition="connecting", reason=None, retry_after_ms=None), (OpenNow(),)


def _known_as_paired(state: SessionState) -> SessionState:
    """A device is in the session store: a phone is paired, whether or not anybody told us."""
    if state.wanted:
        return state
    return _change(state, wanted=True, condition="connecting", reason=None, retry_after_ms=None, pairing=False)


def _connected(state: SessionState, event: port.Connected, now_ms: int) -> SessionState:
    return _change(
        state,
        wanted=True,
        condition="connected",
        reason=None,
        phone=event.phone,
        lid=event.lid,
        push_name=event.push_name or state.push_name,
        is_business=event.is_business,
        platform=event.platform or state.platform,
        retry_after_ms=None,
        pairing=False,
        connected_ms=now_ms,
    )


def _paired(state: SessionState, event: port.Paired) -> SessionState:
    return _change(
        state,
        wanted=True,
        condition="connecting",
        reason=None,
        phone=event.phone,
        lid=event.lid,
        push_name=state.push_name if event.phone == state.phone else None,
        is_business=event.is_business,
        platform=event.platform,
        retry_after_ms=None,
        pairing=False,
        failures=0,
    )


def _unpaired(state: SessionState, condition: Condition, words: str) -> SessionState:
    """The keys are worthless; whose they were stays known, for what is still told of the time before."""
    kept = SessionState(condition=condition, reason=words, phone=state.phone, lid=state.lid, push_name=state.push_name)
    return msgspec.structs.replace(kept, is_business=state.is_business, platform=state.platform)


def _held(state: SessionState, condition: Condition, until_ms: int | None) -> SessionState:
    """WhatsApp said no for a while or for good; the keys stay good."""
    return _change(state, condition=condition, reason=WORDS[condition], retry_after_ms=until_ms, **_STOPPED)


def _failed(state: SessionState, reason: str, now_ms: int) -> Decision:
    """Backoff; a round of QR codes that fails just ends, since the next one is somebody's call away."""
    if state.pairing:
        return _change(state, reason=reason, **_STOPPED), (Close(),)
    attempt = _failures(state, now_ms) + 1
    condition: Condition = "failed" if state.wanted else state.condition  # else it is only looked for a device
    return _change(state, condition=condition, reason=reason, failures=attempt, **_STOPPED), (
        OpenAfterFailure(attempt),
    )


def _started_anew(state: SessionState, words: str, now_ms: int) -> Decision:
    """At once the first time (it was well until now), then with backoff."""
    if not state.wanted:
        return _change(state, reason=WORDS[words], **_STOPPED), (Close(),)
    failures = _failures(state, now_ms)
    after = _change(state, condition="disconnected", reason=WORDS[words], failures=failures + 1, **_STOPPED)
    return after, (OpenAfterFailure(failures),)


def _machine_died(state: SessionState, died: MachineDied) -> Decision:
    """It says nothing of WhatsApp, hence the orderly pace; unless we killed it: then the network may be the cause.

    A round of codes ends with it; but a phone may have scanned one in that very moment, which the session store knows.
    """
    if not state.wanted:
        return _change(state, reason=WORDS["pairing_machine"], **_STOPPED), (OpenNow(),)
    after = _change(state, condition="disconnected", reason=WORDS["machine"], **_STOPPED)
    return after, (OpenAfterFailure(0) if died.killed else OpenNow(),)


def _is_ended(state: SessionState) -> bool:
    """Whether a row without a phone says that its keys are worthless, rather than that no phone was paired so far."""
    return state.condition != "unpaired" or state.reason == WORDS["unlinked"]


def _failures(state: SessionState, now_ms: int) -> int:
    well = state.connected_ms is not None and now_ms - state.connected_ms >= WELL_MS
    return 0 if well else state.failures


def _change(state: SessionState, **changes: Any) -> SessionState:
    return msgspec.structs.replace(state, **changes)
