"""A client's life: when it is stopped, when only abandoned, and what is told meanwhile (faults 2, 4, 6, 7)."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tomada.engine import neonize_client, neonize_library
from tomada.engine.gate import Change, Gate
from tomada.engine.neonize_client import Client, Clients
from tomada.engine.neonize_library import OnEvent, OnLog, OnText
from tomada.engine.port import EngineRefused


class FakeLibrary:
    """The library as its clients see it: `script` runs on the client's thread and ends when it returns."""

    def __init__(self, gate: Gate, on_qr: OnText, on_status: OnText, on_event: OnEvent, _on_log: OnLog) -> None:
        self.gate = Gate(settle_s=0.01)
        self.names_given = 0
        self.on_qr, self.on_status, self.on_event = on_qr, on_status, on_event
        self.calls: list[str] = []
        self.stopped, self.disconnected = threading.Event(), threading.Event()
        self.dialing = threading.Lock()  # held by a connect under way
        self.script: Callable[[bytes], str] = lambda _: ""

    def run(self, uuid: bytes, store: str, session_name: str, proxy_url: str | None) -> str:
        """Live as the script says."""
        self.names_given += 1
        return self.script(uuid)

    def stop(self, _: Change, uuid: bytes) -> None:
        """Taken out of the maps."""
        self.calls.append("stop")
        self.stopped.set()

    def disconnect(self, uuid: bytes) -> None:
        """The connection is closed, after a connect under way."""
        with self.dialing:
            self.calls.append("disconnect")
        self.disconnected.set()


class Heard:
    """What a client told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def on_qr(self, code: str) -> None:
        """A code."""
        self.told.append(f"qr {code}")

    def on_round_ended(self, reason: str) -> None:
        """The end of a round."""
        self.told.append(f"round {reason}")

    def on_event(self, code: int, data: bytes) -> None:
        """An event."""
        self.told.append(f"event {code} {data.decode()}")

    def on_connect_failed(self, reason: str) -> None:
        """A first connect that failed late."""
        self.told.append(f"failed {reason}")

    def on_ended(self, reason: str) -> None:
        """The end."""
        self.told.append(f"ended {reason}")


@pytest.fixture
def clients() -> Iterator[Clients]:
    """Clients over the fake library; threads that wait are let go at the end."""
    made = Clients(FakeLibrary)  # type: ignore[arg-type]
    yield made
    library_of(made).stopped.set()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start waits for a fraction of a second."""
    monkeypatch.setattr(neonize_client, "STARTS_WAIT_S", 0.05)
    monkeypatch.setattr(neonize_client, "CALLS_WAIT_S", 0.02)


def library_of(clients: Clients) -> FakeLibrary:
    """The fake."""
    library = clients.library
    assert isinstance(library, FakeLibrary)
    return library


def started(clients: Clients, heard: Heard) -> Client:
    """A started client."""
    client = clients.new("i", heard)
    client.start("store", "name", None)
    return client


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    deadline_s = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def test_stopped_while_it_pumps(clients: Clients) -> None:
    """It is disconnected, what it still holds is told, and only then it is stopped."""
    library, heard = library_of(clients), Heard()

    def script(uuid: bytes) -> str:
        library.on_event(uuid, neonize_library.DEVICE, b"")
        library.disconnected.wait(5)
        library.on_event(uuid, 17, b"held")
        library.stopped.wait(5)
        return ""

    library.script = script
    client = started(clients, heard)
    wait_for(lambda: client.paired)
    client.stop()
    client.stop()
    assert library.calls == ["disconnect", "stop"]
    assert heard.told == ["event 17 held"]
    assert not client.running


def test_a_round_of_codes_is_abandoned_not_stopped(clients: Clients) -> None:
    """In a round of QR codes a stop would let the library dereference nil: it is disconnected, left and counted."""
    library, heard = library_of(clients), Heard()

    def script(uuid: bytes) -> str:
        library.on_qr(uuid, "1")
        library.stopped.wait(5)
        return ""

    library.script = script
    client = started(clients, heard)
    client.stop()
    client.stop()
    assert "stop" not in library.calls
    assert clients.counters.abandoned == 1
    assert not client.running
    assert heard.told == ["qr 1"]


def test_a_phone_quicker_than_the_end_of_its_round(clients: Clients) -> None:
    """If a phone pairs with an abandoned round after all, that client is stopped: two would fight over the account."""
    library, heard = library_of(clients), Heard()
    pair = threading.Event()

    def script(uuid: bytes) -> str:
        library.on_qr(uuid, "1")
        pair.wait(5)
        library.on_event(uuid, neonize_library.DEVICE, b"")
        library.stopped.wait(5)
        return ""

    library.script = script
    client = started(clients, heard)
    client.stop()
    pair.set()
    wait_for(library.stopped.is_set)
    wait_for(client._ended.is_set)


def test_a_first_connect_that_fails(clients: Clients) -> None:
    """The start is refused with the library's words, and the client taken out of its maps."""
    library, heard = library_of(clients), Heard()
    library.script = lambda _: "no route"
    with pytest.raises(EngineRefused, match="no route"):
        started(clients, heard)
    assert library.calls == ["stop"]
    assert heard.told == []


@pytest.mark.usefixtures("quick")
def test_a_first_connect_that_fails_late(clients: Clients) -> None:
    """When the start had to return before its connect failed, the failure is told: nobody would hear of it else."""
    library, heard = library_of(clients), Heard()
    fail = threading.Event()

    def script(_: bytes) -> str:
        fail.wait(5)
        return "i/o timeout"

    library.script = script
    client = started(clients, heard)
    fail.set()
    wait_for(lambda: bool(heard.told))
    assert heard.told == ["failed i/o timeout"]
    client.stop()
    assert library.calls == ["stop"]


@pytest.mark.usefixtures("quick")
def test_a_stop_goes_on_until_a_connect_that_hangs_has_failed(clients: Clients) -> None:
    """Whoever waits for it need not wait long; until then it counts as left behind, and then all is given back."""
    library, heard = library_of(clients), Heard()
    fail = threading.Event()

    def script(_: bytes) -> str:
        with library.dialing:
            fail.wait(5)
        return "i/o timeout"

    library.script = script
    client = started(clients, heard)
    assert client.stop_wait_s < 2
    stopping = threading.Thread(target=client.stop)
    stopping.start()
    wait_for(lambda: clients.left_behind() == 1)
    fail.set()
    stopping.join(5)
    assert library.calls[-1] == "stop"
    assert clients.left_behind() == 0
    assert heard.told == []


def test_a_session_that_is_being_connected_again_is_stopped_after_that(clients: Clients) -> None:
    """Were it left before its connect is over, it could log in beside its successor, and one would lose."""
    library, heard = library_of(clients), Heard()
    dialing = threading.Event()

    def script(uuid: bytes) -> str:
        library.on_event(uuid, neonize_library.DEVICE, b"")
        with library.dialing:
            dialing.set()
            time.sleep(0.2)
            assert not library.stopped.is_set()
        library.stopped.wait(5)
        return ""

    library.script = script
    client = started(clients, heard)
    dialing.wait(5)
    assert client.stop_wait_s > neonize_client.DIAL_MAX_S
    client.stop()
    assert library.calls == ["disconnect", "stop"]
    assert clients.left_behind() == 0


def test_a_pump_that_ends_by_itself(clients: Clients) -> None:
    """The end of the thread without a stop is told, and no call is made on the client any more."""
    library, heard = library_of(clients), Heard()

    def script(uuid: bytes) -> str:
        library.on_event(uuid, neonize_library.DEVICE, b"")
        time.sleep(0.05)
        return "required field not set"

    library.script = script
    client = started(clients, heard)
    wait_for(lambda: heard.told == ["ended required field not set"])
    assert not client.running
    client.stop()
    assert library.calls == ["stop"]


@pytest.mark.usefixtures("quick")
def test_codes_under_another_name_are_not_shown(clients: Clients) -> None:
    """A round that began so slowly that another start came between may carry that one's name: it is given up."""
    library, slow, quick = library_of(clients), Heard(), Heard()
    go_on = threading.Event()

    def script(uuid: bytes) -> str:
        if uuid.endswith(b"/1"):
            go_on.wait(5)
        library.on_qr(uuid, uuid.decode())
        library.stopped.wait(5)
        return ""

    library.script = script
    started(clients, slow)
    started(clients, quick)
    go_on.set()
    wait_for(lambda: bool(slow.told))
    assert slow.told == ["round the round began too slowly and was given up"]
    assert quick.told == ["qr i/2"]
