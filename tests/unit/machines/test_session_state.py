"""The session's table: one row a rule. A row that is not here is `nothing changes`."""

from random import Random  # noqa: TID251 - seeded
from typing import Any

import msgspec
import pytest

from tomada.engine import port
from tomada.machines import session_state as sm
from tomada.machines.session_state import Action, Condition, SessionState, decide

NOW = 1_700_000_000_000
CONNECTED = port.Connected("5511999", "77", "Ana", True, "android")
PAIRED = port.Paired("5511999", "77", True, "android")


def paired(condition: Condition = "connected", **more: Any) -> SessionState:
    """A paired session whose engine runs, well for long."""
    values: dict[str, Any] = {"running": True, "phone": "5511999", "connected_ms": NOW - 600_000, **more}
    return SessionState(wanted=True, condition=condition, **values)


PAIRING = SessionState(running=True, pairing=True)
LOOKING = SessionState(running=True)  # for a phone that may have scanned a code just before the machine died
LOGGED_OUT = SessionState(condition="logged_out", reason=sm.WORDS["logged_out"])
FORGOTTEN = SessionState(reason=sm.WORDS["unlinked"])
WAITING = paired("failed", running=False, failures=3, connected_ms=None)
FRESH = paired(connected_ms=NOW - 5_000, failures=4)

# state, what happens, condition after, wanted after, actions
TABLE: list[tuple[str, SessionState, sm.Happening, Condition, bool, tuple[Action, ...]]] = [
    # pairing
    ("asked", SessionState(), sm.AskedToPair(), "unpaired", False, (sm.OpenNow(),)),
    ("asked again", PAIRING, sm.AskedToPair(), "unpaired", False, ()),
    ("asked when paired", paired(), sm.AskedToPair(), "connected", True, ()),
    ("a code", PAIRING, port.QrIssued("x", NOW), "unpaired", False, ()),
    ("round over", PAIRING, port.PairingEnded("timeout"), "unpaired", False, (sm.Close(),)),
    ("paired", PAIRING, PAIRED, "connecting", True, (sm.Watch("connect"),)),
    ("515 after pairing", paired("connecting"), port.Disconnected("515"), "connecting", True, ()),
    ("connected", paired("connecting"), CONNECTED, "connected", True, ()),
    ("named", paired(), port.Named("Ana"), "connected", True, ()),
    ("round refused", PAIRING, sm.OpenFailed("no network"), "unpaired", False, (sm.Close(),)),
    ("machine dies in it", PAIRING, sm.MachineDied(), "unpaired", False, (sm.OpenNow(),)),
    ("and a phone had scanned", LOOKING, sm.Opened(), "connecting", True, (sm.Watch("connect"),)),
    ("which connects at once", LOOKING, CONNECTED, "connected", True, ()),
    ("and no phone had", LOOKING, sm.NoDevice(), "unpaired", False, ()),
    ("and it cannot be seen now", LOOKING, sm.OpenFailed("away"), "unpaired", False, (sm.OpenAfterFailure(1),)),
    ("a code is asked for meanwhile", LOOKING, sm.AskedToPair(), "unpaired", False, (sm.OpenNow(),)),
    ("machine dies again", LOOKING, sm.MachineDied(), "unpaired", False, (sm.OpenNow(),)),
    ("restart ends the looking", LOOKING, sm.AskedToRestart(), "unpaired", False, (sm.Close(),)),
    ("a round begins", PAIRING, sm.Opened(device=False), "unpaired", False, ()),
    ("a round with a device", PAIRING, sm.Opened(), "connecting", True, (sm.Watch("connect"),)),
    ("restart ends the round", PAIRING, sm.AskedToRestart(), "unpaired", False, (sm.Close(),)),
    ("no code in time", PAIRING, sm.NoCode(), "unpaired", False, (sm.Close(),)),
    ("no code as it is not open yet", SessionState(pairing=True), sm.NoCode(), "unpaired", False, ()),
    ("no code, for a phone was quicker", paired("connecting"), sm.NoCode(), "connecting", True, ()),
    # boot
    ("boot", paired("connected", running=False), sm.Boot(), "connecting", True, (sm.OpenNow(),)),
    ("boot unpaired", SessionState(), sm.Boot(), "unpaired", False, ()),
    ("boot replaced", paired("replaced", running=False), sm.Boot(), "replaced", True, ()),
    ("boot outdated", paired("outdated", running=False), sm.Boot(), "connecting", True, (sm.OpenNow(),)),
    (
        "boot banned",
        paired("banned", running=False, retry_after_ms=NOW + 9),
        sm.Boot(),
        "banned",
        True,
        (sm.OpenAt(NOW + 9, sm.SPREAD_MS),),
    ),
    (
        "boot after a ban",
        paired("banned", running=False, retry_after_ms=NOW - 9),
        sm.Boot(),
        "connecting",
        True,
        (sm.OpenNow(),),
    ),
    ("found", SessionState(reason="x"), sm.FoundDevice(), "connecting", True, (sm.OpenNow(),)),
    ("found after a log-out", LOGGED_OUT, sm.FoundDevice(), "logged_out", False, (sm.EraseKeys(),)),
    ("found after a request", FORGOTTEN, sm.FoundDevice(), "unpaired", False, (sm.EraseKeys(),)),
    ("found what is known", paired(), sm.FoundDevice(), "connected", True, ()),
    # the connection comes and goes
    ("opening", WAITING, sm.Opening(), "connecting", True, ()),
    ("opened", paired("connecting"), sm.Opened(), "connecting", True, (sm.Watch("connect"),)),
    ("opened late", paired(), sm.Opened(), "connected", True, ()),
    ("breaks", paired(), port.Disconnected("x"), "disconnected", True, (sm.Watch("reconnect"),)),
    ("breaks twice", paired("disconnected"), port.Disconnected("x"), "disconnected", True, ()),
    ("engine mends it", paired("disconnected"), CONNECTED, "connected", True, ()),
    ("grace over", paired("disconnected"), sm.GraceOver(), "failed", True, (sm.OpenAfterFailure(1),)),
    ("grace over late", paired(), sm.GraceOver(), "connected", True, ()),
    ("never connects", FRESH_CONNECTING := paired("connecting", connected_ms=None, failures=3), sm.GraceOver(),
     "failed", True, (sm.OpenAfterFailure(4),)),
    ("refused", FRESH_CONNECTING, port.ConnectFailed(503, "busy"), "failed", True, (sm.OpenAfterFailure(4),)),
    ("cannot open", FRESH_CONNECTING, sm.OpenFailed("busy"), "failed", True, (sm.OpenAfterFailure(4),)),
    ("deaf", paired(), sm.Deaf(), "disconnected", True, (sm.OpenAfterFailure(0),)),
    ("deaf again", FRESH, sm.Deaf(), "disconnected", True, (sm.OpenAfterFailure(4),)),
    ("machine dies", paired(), sm.MachineDied(), "disconnected", True, (sm.OpenNow(),)),
    ("machine killed by us", paired(), sm.MachineDied(killed=True), "disconnected", True, (sm.OpenAfterFailure(0),)),
    ("machine dies meanwhile", WAITING, sm.MachineDied(), "failed", True, ()),
    # WhatsApp's last words
    ("logged out", paired(), port.LoggedOut("unlinked"), "logged_out", False, (sm.Close(), sm.EraseKeys())),
    ("keys gone", paired("connecting"), sm.NoDevice(), "logged_out", False, (sm.Close(), sm.EraseKeys())),
    ("replaced", paired(), port.Replaced(), "replaced", True, (sm.Close(),)),
    ("banned", paired(), port.Banned(101, NOW + 50), "banned", True, (sm.OpenAt(NOW + 50, sm.SPREAD_MS),)),
    ("banned for ever", paired(), port.Banned(0, 0), "banned", True,
     (sm.OpenAt(NOW + sm.BAN_UNKNOWN_MS, sm.SPREAD_MS),)),
    ("banned in pairing", PAIRING, port.Banned(101, NOW + 50), "banned", False, (sm.Close(),)),
    ("outdated", paired(), port.Outdated(), "outdated", True,
     (sm.LogLoudly(sm.WORDS["outdated"]), sm.OpenAt(NOW + sm.OUTDATED_RETRY_MS, sm.OUTDATED_RETRY_MS))),
    # what people ask for
    ("restart", paired(), sm.AskedToRestart(), "connecting", True, (sm.OpenNow(),)),
    ("restart while starting", paired("connecting"), sm.AskedToRestart(), "connecting", True, ()),
    ("restart replaced", paired("replaced", running=False), sm.AskedToRestart(), "connecting", True, (sm.OpenNow(),)),
    ("restart waiting", WAITING, sm.AskedToRestart(), "connecting", True, (sm.OpenNow(),)),
    ("restart banned", paired("banned", running=False), sm.AskedToRestart(), "banned", True, ()),
    ("restart unpaired", SessionState(), sm.AskedToRestart(), "unpaired", False, (sm.Close(),)),
    ("forgotten", paired(), sm.Forgotten(), "unpaired", False, (sm.Close(), sm.EraseKeys())),
    # echoes of a session that we close
    ("echo connected", WAITING, CONNECTED, "failed", True, ()),
    ("echo disconnected", WAITING, port.Disconnected("x"), "failed", True, ()),
    ("echo refused", paired("replaced", running=False), port.ConnectFailed(1, "x"), "replaced", True, ()),
]  # fmt: skip


@pytest.mark.parametrize(("state", "happening", "condition", "wanted", "actions"), [row[1:] for row in TABLE],
                         ids=[row[0] for row in TABLE])  # fmt: skip
def test_the_table(
    state: SessionState, happening: sm.Happening, condition: Condition, wanted: bool, actions: tuple[Action, ...]
) -> None:
    """Each row: a state, what happens, the condition after it, whether it stays paired, and what is to be done."""
    after, done = decide(state, happening, NOW)

    assert (after.condition, after.wanted, done) == (condition, wanted, actions)


def test_every_condition_that_is_not_well_has_words() -> None:
    """A person who looks at the status reads why it is so; when connected there is nothing to say."""
    for _, state, happening, condition, _, _ in TABLE:
        after, _ = decide(state, happening, NOW)
        if after is not state and condition in (
            "disconnected",
            "logged_out",
            "replaced",
            "banned",
            "outdated",
            "failed",
        ):
            assert after.reason, (state, happening)
    assert decide(paired("disconnected"), CONNECTED, NOW)[0].reason is None


def test_our_own_name_is_kept_while_the_phone_is_the_same() -> None:
    """A fresh pairing tells no name: the known one stands until another is told, unless it was another phone's."""

    def story(state: SessionState, *happenings: sm.Happening) -> str | None:
        for happening in happenings:
            state, _ = decide(state, happening, NOW)
        return state.push_name

    nameless = port.Connected("5511999", "77", "", True)
    named = decide(paired("connecting"), CONNECTED, NOW)[0]
    assert story(paired("connecting"), nameless) is None
    assert story(paired("connecting"), nameless, port.Named("Ana")) == "Ana"
    assert story(named, port.Named("Ana Maria")) == "Ana Maria"
    again = (port.LoggedOut("unlinked"), sm.AskedToPair(), sm.Opening())
    assert story(named, *again, PAIRED, nameless) == "Ana"
    assert story(named, *again, port.Paired("5511888", "78", True, "android")) is None


def test_a_ban_shows_its_end_until_it_is_over() -> None:
    """`retry_after_ms` is the ban's end, and gone once the session is opened again."""
    banned, _ = decide(paired(), port.Banned(101, NOW + 50), NOW)
    opening, _ = decide(banned, sm.Opening(), NOW + 60)

    assert banned.retry_after_ms == NOW + 50
    assert opening.retry_after_ms is None


def test_failures_count_until_it_was_well_for_a_minute() -> None:
    """A session that connects and breaks at once keeps its growing backoff; one that was well starts anew."""
    shaky, _ = decide(FRESH, port.ConnectFailed(503, "x"), NOW)
    well, _ = decide(paired(failures=4), port.ConnectFailed(503, "x"), NOW)

    assert (shaky.failures, well.failures) == (5, 1)


def test_a_round_that_is_asked_for_while_it_is_looked_for_a_device_takes_place() -> None:
    """The answer that there is none belongs to the opening before it."""
    state = LOOKING
    for happening in (sm.AskedToPair(), sm.NoDevice()):
        state, _ = decide(state, happening, NOW)
    assert (state.pairing, state.running) == (True, False)


def test_any_story_keeps_the_invariants() -> None:
    """Random stories: an unpaired session is opened to look for a device only, a connected one runs, nothing raises."""
    looks = (sm.MachineDied, sm.OpenFailed, sm.GraceOver, port.ConnectFailed)
    happenings: list[sm.Happening] = [row[2] for row in TABLE]
    for seed in range(300):
        rng, state, planned = Random(seed), SessionState(), None
        for _ in range(60):
            happening = rng.choice(happenings)
            state, actions = decide(state, happening, NOW + rng.randrange(200_000))
            for action in actions:
                planned = planned if isinstance(action, sm.Watch | sm.LogLoudly | sm.EraseKeys) else happening
                planned = None if isinstance(action, sm.Close) else planned
            if planned is not None:
                assert state.wanted or state.pairing or state.running or isinstance(planned, looks)
            if state.condition == "connected":
                assert state.running
                assert state.wanted
            assert not (state.pairing and state.wanted)
            assert msgspec.json.encode(state)
