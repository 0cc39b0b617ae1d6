"""S2 in virtual time: the real decisions, backoff and pace of 500 sessions through an outage, a histogram per second.

What is simulated is WhatsApp and time alone: during the outage every connect fails after a moment, the engine tries by
itself at 0 and 2 s (whatsmeow's delays 0, 2, 4 ...) until it is closed, and afterwards every connect works.
"""

import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from random import Random  # noqa: TID251 - seeded

import msgspec
import pytest

from tomada.engine import port
from tomada.machines import session_state as sm
from tomada.machines.backoff import Pace, full_jitter_s, recovery_rate
from tomada.machines.session_state import SessionState, decide
from tomada.machines.settings import HostSettings

SETTINGS = HostSettings()
CONNECTED = port.Connected("551199", "1", "x", False)


class Node:
    """The host's part of one node, without processes: states, the two paces, and a heap of things to come."""

    def __init__(self, seed: int, sessions: int, outage_s: tuple[float, float]) -> None:
        self.now_s = 0.0
        self.rng = Random(seed)
        self.states = [SessionState(wanted=True, condition="connected") for _ in range(sessions)]
        self.generation = [0] * sessions  # a plan is void once there is a newer one
        self.outage_s = outage_s
        self.orderly, self.recovery = Pace(SETTINGS.orderly_burst), Pace()
        self.attempts: Counter[int] = Counter()  # connects of ours per second
        self.connected_s: dict[int, float] = {}
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def at(self, when_s: float, what: Callable[[], None]) -> None:
        """Do something later."""
        heapq.heappush(self._heap, (when_s, next(self._order), what))

    def run(self, until_s: float) -> None:
        """Let time pass."""
        while self._heap and self._heap[0][0] <= until_s:
            self.now_s, _, what = heapq.heappop(self._heap)
            what()
        self.now_s = until_s

    def happen(self, number: int, happening: sm.Happening) -> None:
        """As HostedSession.happen does."""
        self.states[number], actions = decide(self.states[number], happening, int(self.now_s * 1000))
        for action in actions:
            self._plan(number, action)
        if self.states[number].condition == "connected":
            self.connected_s.setdefault(number, self.now_s)

    def cut(self) -> None:
        """Every connection breaks at the same instant."""
        for number in range(len(self.states)):
            self.connected_s.pop(number, None)
            self.states[number] = msgspec.structs.replace(self.states[number], running=True)
            self.happen(number, port.Disconnected("cut"))

    def _plan(self, number: int, action: sm.Action) -> None:
        self.generation[number] += 1
        match action:
            case sm.Watch():
                wait_s = SETTINGS.reconnect_grace_s if action.kind == "reconnect" else SETTINGS.connect_timeout_s
                self._later(number, wait_s, lambda: self.happen(number, sm.GraceOver()))
            case sm.OpenNow():
                wait_s = self.orderly.reserve(self.now_s, SETTINGS.orderly_rate)
                self._later(number, wait_s, lambda: self._connect(number))
            case sm.OpenAfterFailure():
                wait_s = full_jitter_s(action.attempt, self.rng) if action.attempt else 0.0
                self._later(number, wait_s, lambda: self._in_line(number))

    def _later(self, number: int, wait_s: float, what: Callable[[], None]) -> None:
        generation = self.generation[number]
        self.at(self.now_s + wait_s, lambda: what() if self.generation[number] == generation else None)

    def _in_line(self, number: int) -> None:
        wait_s = self.recovery.reserve(self.now_s, recovery_rate(len(self.states)))
        self._later(number, wait_s, lambda: self._connect(number))

    def _connect(self, number: int) -> None:
        self.attempts[int(self.now_s)] += 1
        self.happen(number, sm.Opening())
        down = self.outage_s[0] <= self.now_s < self.outage_s[1]
        answer: sm.Happening = sm.OpenFailed("refused") if down else CONNECTED
        self._later(number, self.rng.uniform(0.05, 0.3), lambda: self.happen(number, answer))


@pytest.mark.parametrize(("sessions", "share"), [(500, 25), (200, 10), (6, 6)])
@pytest.mark.parametrize("outage_s", [6, 20, 300, 3600])
@pytest.mark.parametrize("seed", range(5))
def test_s2_no_reconnect_storm(seed: int, outage_s: int, sessions: int, share: int) -> None:
    """After an outage: no second with more than 5 % of them, all back within the cap, nobody gives up.

    A small node takes five a second, and one that was in line.
    """
    node = Node(seed, sessions, (0.0, outage_s))
    node.cut()

    node.run(outage_s + SETTINGS.backoff_cap_s + 30)

    assert max(node.attempts.values()) <= share
    assert len(node.connected_s) == sessions
    assert max(node.connected_s.values()) <= outage_s + SETTINGS.backoff_cap_s + 10


def test_a_day_of_outage_is_no_reason_to_give_up() -> None:
    """After 24 hours every session is still trying, and all are back within minutes."""
    node = Node(7, 100, (0.0, 86_400.0))
    node.cut()

    node.run(86_400 + SETTINGS.backoff_cap_s + 10)

    assert len(node.connected_s) == 100


def test_an_orderly_start_is_not_slowed_by_the_backoff() -> None:
    """200 sessions are asked to connect within five seconds of a start, for nothing has failed."""
    node = Node(3, 200, (-1.0, -1.0))
    for number in range(200):
        node.states[number] = SessionState(wanted=True, condition="connected")
        node.happen(number, sm.Boot())

    node.run(10.0)

    assert len(node.connected_s) == 200
    assert max(node.connected_s.values()) < 5.0
