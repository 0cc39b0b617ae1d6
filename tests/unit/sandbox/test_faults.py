"""Standing faults: in force, limited to a number, used up, run out, cleared."""

import pytest

from tomada.sandbox.faults import FaultError, Faults, parse_fault


class HandClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.s = 1000.0

    def now_ms(self) -> int:
        """Epoch milliseconds."""
        return int(self.s * 1000)

    def monotonic_s(self) -> float:
        """Monotonic seconds."""
        return self.s


def test_a_fault_holds_for_its_number_until_it_is_cleared() -> None:
    """Others are not struck; without a number everybody is."""
    faults = Faults(HandClock())
    faults.add(parse_fault({"kind": "no-ack", "number": "1"}))

    assert faults.find("no-ack", "1")
    assert not faults.find("no-ack", "2")
    assert not faults.find("refuse", "1")
    faults.add(parse_fault({"kind": "refuse"}))
    assert faults.find("refuse", "2")
    assert faults.find("refuse", None)
    faults.clear()
    assert not faults.find("no-ack", "1")


def test_until_ends_a_fault() -> None:
    """After so many seconds it is over by itself."""
    clock = HandClock()
    faults = Faults(clock)
    faults.add(parse_fault({"kind": "refuse", "until": 5}))
    clock.s += 4.9
    assert faults.find("refuse", None)
    clock.s += 0.2

    assert not faults.find("refuse", None)


def test_counted_faults_are_used_up() -> None:
    """`corrupt` with count 2 strikes twice."""
    faults = Faults(HandClock())
    faults.add(parse_fault({"kind": "corrupt", "count": 2}))

    assert [faults.use("corrupt", "1") for _ in range(3)] == [True, True, False]


def test_delay_is_given_in_milliseconds() -> None:
    """Default one second; zero is zero; nothing without the fault."""
    faults = Faults(HandClock())
    assert faults.delay_s("1") == 0
    faults.add(parse_fault({"kind": "delay", "ms": 250}))
    assert faults.delay_s("1") == 0.25
    faults.add(parse_fault({"kind": "delay"}))
    assert faults.delay_s("1") == 1.0


def test_only_connections_that_were_open_are_deaf() -> None:
    """A client that connects anew is heard."""
    clock = HandClock()
    faults = Faults(clock)
    clock.s += 1
    faults.add(parse_fault({"kind": "deaf", "number": "1"}))

    assert faults.deaf("1", opened_s=1000.5)
    assert not faults.deaf("2", opened_s=1000.5)
    assert not faults.deaf("1", opened_s=1001.5)


def test_connects_are_counted_per_second() -> None:
    """The report shows the peak: a storm of reconnects cannot hide."""
    clock = HandClock()
    faults = Faults(clock)
    for step in (0, 0.1, 0.2, 5):
        clock.s = 1000 + step
        faults.connected()

    report = faults.report(connections=3)
    assert report["connections"] == 3
    assert report["connects"]["total"] == 4
    assert report["connects"]["maxPerSecond"] == 3
    assert report["connects"]["perSecond"] == {"1000": 3, "1005": 1}
    assert len(report["connects"]["timesMs"]) == 4


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"kind": "nonsense"},
        {"kind": "drop", "number": 5},
        {"kind": "drop", "number": "abc"},
        {"kind": "refuse", "until": -1},
        {"kind": "refuse", "until": "soon"},
        {"kind": "delay", "ms": -5},
        {"kind": "delay", "surprise": 1},
    ],
)
def test_a_request_that_makes_no_sense_is_refused(body: object) -> None:
    """Each with a reason, never by another error."""
    with pytest.raises(FaultError):
        parse_fault(body)
