"""One client of the library, from its start to its end, without ever giving Go a reason to abort.

A client lives on a thread of its own, because the library's start call blocks for the client's whole life:

    connecting ──first QR──▶ pairing ──phone──▶ pumping ──stop or fault──▶ ended
        └────────keys known, handshake done────────▲
        └────────first connect failed──────────────────────────────────────▲

When it may be stopped follows from how the library works inside:
- *pumping*: at will. Its connection is closed first and the events it still holds are let out, then it is stopped.
- *connecting*: only once that is over, because a stop would pull the client from under its own thread.
- *pairing*: never. Its thread waits for a phone in a way that nothing ends, and if it does go on after a stop, it
  dereferences nil. So it is disconnected and abandoned: a thread, some memory and two or three file handles stay until
  the process ends. They are counted (`Counters`), and the machine asks to be recycled when there are many.

Nothing ends a connect that the network leaves without an answer but the library itself, after a minute, and behind some
proxies not even that. A stop waits for it, and whoever waits for the stop gives it `stop_wait_s` and lets it go on
alone. For a first connect that is short: it is a round of codes, or it was given its minute before. For a later one it
is DIAL_MAX_S: left earlier, it could log in beside its successor.

Every start uses an id of its own, so an old client can never be mistaken for a new one.
"""

import contextlib
import itertools
import re
import time
from collections.abc import Callable, Iterator
from threading import Event, Lock, Thread
from typing import Protocol

import structlog

from tomada.engine import neonize_library
from tomada.engine.gate import Gate
from tomada.engine.neonize_library import Library
from tomada.engine.neonize_protos import glue
from tomada.engine.port import EngineRefused

log = structlog.get_logger("tomada.engine")

CALLS_WAIT_S = 1.0  # how long calls of other sessions wait at most for a start's first sign of life
STARTS_WAIT_S = 5.0  # how long other starts wait for it
DIAL_MAX_S = 65.0  # the library gives a connect up after 60 s through a proxy, sooner without
DRAIN_QUIET_S = 0.05
DRAIN_MAX_S = 2.0
STOP_WAIT_S = 5.0
ABANDON_WAIT_S = 0.5
_NUMBERS = re.compile(r"\d{6,}")


class Listener(Protocol):
    """Who hears what a client tells; called on threads of the library."""

    def on_qr(self, code: str) -> None:
        """A QR text to show."""

    def on_round_ended(self, reason: str) -> None:
        """The round of QR codes is over without a phone; the client is of no use any more."""

    def on_event(self, code: int, data: bytes) -> None:
        """An event of the pump, serialized."""

    def on_connect_failed(self, reason: str) -> None:
        """The first connect failed, after `start` had returned."""

    def on_ended(self, reason: str) -> None:
        """The client ended without being asked to."""


class Counters:
    """What this process has used up and only its end gives back."""

    def __init__(self) -> None:
        self.started = 0  # clients started: each leaves two or three file handles open for good
        self.abandoned = 0  # rounds of QR codes given up: each leaves a thread


class Clients:
    """All clients of this process: the way from the library's callbacks to the client they are for."""

    def __init__(self, load: Callable[..., Library] = Library) -> None:
        """Load the library; raises EngineRefused if it is missing or of another version."""
        self.counters = Counters()
        self._clients: dict[bytes, Client] = {}
        self._numbers = itertools.count(1)
        self.library = load(Gate(), self._on_qr, self._on_status, self._on_event, _on_log)

    def new(self, name: str, listener: Listener) -> "Client":
        """A client that is not started yet; `name` is for logs only."""
        client = Client(self, f"{name}/{next(self._numbers)}".encode(), listener)
        self._clients[client.uuid] = client
        return client

    def left_behind(self) -> int:
        """Rounds of QR codes and connects that were given up and keep a thread each."""
        return self.counters.abandoned + sum(client.disconnecting for client in list(self._clients.values()))

    def forget(self, client: "Client") -> None:
        """Its callbacks go nowhere from now on."""
        self._clients.pop(client.uuid, None)

    def _on_qr(self, uuid: bytes, code: str) -> None:
        with _logged():
            if client := self._clients.get(uuid):
                client.heard_qr(code)

    def _on_status(self, uuid: bytes, status: str) -> None:
        with _logged():
            if client := self._clients.get(uuid):
                client.heard_status(status)

    def _on_event(self, uuid: bytes, code: int, data: bytes) -> None:
        with _logged():
            if client := self._clients.get(uuid):
                client.heard_event(code, data)


class Client:
    """One life. `start`, `stop` and `abandon` block; call them from worker threads."""

    def __init__(self, clients: Clients, uuid: bytes, listener: Listener) -> None:
        self.uuid = uuid
        self.library = clients.library
        self.disconnecting = False
        self._clients = clients
        self._listener = listener
        self._alive = Event()  # a first sign of life, or the end
        self._pumping = Event()
        self._ended = Event()
        self._outcome = Lock()  # between the end of `start` and the end of the client: one of the two tells a failure
        self._started = self._refused = False
        self._stopping = Lock()
        self._asked_to_stop = False
        self._abandoned = False
        self._removed = False
        self._name_number = 0
        self._reason = ""
        self._heard_s = 0.0

    @property
    def running(self) -> bool:
        """May calls be made on it? Only while the library surely knows it."""
        return self._alive.is_set() and not self._ended.is_set() and not self._asked_to_stop

    @property
    def paired(self) -> bool:
        """It has the keys of an account and its pump runs."""
        return self.running and self._pumping.is_set()

    @property
    def stop_wait_s(self) -> float:
        """How long to wait for `stop`; then it goes on alone."""
        return STARTS_WAIT_S + 2 * ABANDON_WAIT_S + (DIAL_MAX_S if self._alive.is_set() else 0.0)

    def start(self, store: str, session_name: str, proxy_url: str | None) -> None:
        """Start and wait for a QR code, a handshake or the end; raises EngineRefused if it ended at once.

        Returns without any of them after STARTS_WAIT_S: the network is slow, and the client goes on trying; should it
        fail after all, its listener is told.
        """
        thread = Thread(target=self._live, args=(store, session_name, proxy_url), name=self.uuid.decode(), daemon=True)
        with self.library.gate.change() as change:
            self._clients.counters.started += 1
            self._name_number = self.library.names_given + 1
            thread.start()
            if not self._alive.wait(CALLS_WAIT_S):
                change.open()
                self._alive.wait(STARTS_WAIT_S - CALLS_WAIT_S)
        with self._outcome:
            self._started = True
        if self._refused:
            self._remove()
            raise EngineRefused(self._reason or "the engine ended at once")

    def stop(self) -> None:
        """End it and wait until it is over: some seconds, and a connect under way; harmless when it is."""
        with self._stopping:
            self._asked_to_stop = True
            if self._removed:
                return
            self._alive.wait(STARTS_WAIT_S)  # until its connect has begun, else it would connect after the disconnect
            if not self._ended.is_set():
                self.disconnecting = True
                self.library.disconnect(self.uuid)  # waits for a connect under way
                self.disconnecting = False
                self._alive.wait(ABANDON_WAIT_S)
                if not self._pumping.wait(ABANDON_WAIT_S) and not self._ended.is_set():
                    self._abandon()
                    return
                self._drain()
            self._remove()
            if not self._ended.wait(STOP_WAIT_S):
                log.warning("client_did_not_end", client=self.uuid.decode())

    # --- heard from the library, on its threads ---

    def heard_qr(self, code: str) -> None:
        """A QR code; a first one that came too late may carry another session's name, so it is not shown."""
        first = not self._alive.is_set()
        self._alive.set()
        if first and self.library.names_given != self._name_number:
            self._listener.on_round_ended("the round began too slowly and was given up")
        elif not self._asked_to_stop:
            self._listener.on_qr(code)

    def heard_status(self, status: str) -> None:
        """The round of QR codes is over; after `success` the pump starts."""
        self._alive.set()
        if status != "success" and not self._asked_to_stop:
            self._listener.on_round_ended(status)

    def heard_event(self, code: int, data: bytes) -> None:
        """An event of the pump. Events that come while it is being stopped are passed on too: WhatsApp was told."""
        self._heard_s = time.monotonic()
        self._pumping.set()
        self._alive.set()
        if self._abandoned:  # a phone was quicker than the end of its round
            self._abandoned = False
            Thread(target=self.stop, name="stop-late-pairing", daemon=True).start()
        if code != neonize_library.DEVICE:
            self._listener.on_event(code, data)

    # --- inside ---

    def _live(self, store: str, session_name: str, proxy_url: str | None) -> None:
        self._reason = self.library.run(self.uuid, store, session_name, proxy_url)
        with self._outcome:
            alive = self._alive.is_set()
            self._refused = not alive and not self._started
            self._ended.set()
            self._alive.set()
        if not self._refused and not self._asked_to_stop:
            tell = self._listener.on_ended if alive else self._listener.on_connect_failed
            with _logged():
                tell(self._reason)

    def _drain(self) -> None:
        """Let the pump hand out what it holds: WhatsApp believes that these events arrived."""
        deadline_s = time.monotonic() + DRAIN_MAX_S
        self._heard_s = max(self._heard_s, time.monotonic() - DRAIN_QUIET_S / 2)
        while (now_s := time.monotonic()) < deadline_s and now_s - self._heard_s < DRAIN_QUIET_S:
            if self._ended.wait(DRAIN_QUIET_S / 4):
                return

    def _remove(self) -> None:
        with self.library.gate.change() as change:
            self.library.stop(change, self.uuid)
        self._removed = True
        self._clients.forget(self)

    def _abandon(self) -> None:
        if not self._abandoned:
            self._abandoned = True
            self._clients.counters.abandoned += 1


@contextlib.contextmanager
def _logged() -> Iterator[None]:
    """Nothing may be raised into Go: log it."""
    try:
        yield
    except Exception:
        log.exception("engine_callback_failed")


def _on_log(data: bytes) -> None:
    """Pass on a warning of the library, without phone numbers and other long figures."""
    with _logged():
        entry = glue.LogEntry.FromString(data)
        words = _NUMBERS.sub("…", entry.Message)[:500]
        log.warning("engine_says", level=entry.Level, part=entry.Name, words=words)
