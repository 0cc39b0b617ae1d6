"""The engine port over neonize 0.5.2: one per machine process.

neonize is Go (whatsmeow) behind a thin glue that is unsafe in thirteen known ways; docs/engine.md lists them and where
each is lived with. The layers, from the bottom:

    gate.py               who may be inside Go, and when
    neonize_library.py    the C functions
    neonize_client.py     one client's life, and when it may be stopped
    neonize_session.py    the port's session over one client
    neonize_names.py      what its chats are called
    neonize_failures.py   what its error texts mean
    neonize_received.py, neonize_events.py, neonize_content.py, neonize_addresses.py   translation, pure
"""

from concurrent.futures import ThreadPoolExecutor

from tomada.engine import neonize_library
from tomada.engine.neonize_client import Clients
from tomada.engine.neonize_session import Limits, NeonizeSession
from tomada.engine.port import Emit, SessionSpec
from tomada.kit.clock import Clock

THREADS_MAX = 512  # calls block; a session has at most a send, a probe and a start or stop under way


class NeonizeEngine:
    """See `Engine` in port.py."""

    name = "neonize"
    version = neonize_library.VERSION

    def __init__(self, clock: Clock, limits: Limits) -> None:
        """Load the library; raises EngineRefused if it is missing or of another version."""
        self._clock = clock
        self._limits = limits
        self._pool = ThreadPoolExecutor(THREADS_MAX, "engine-call")
        self._clients = Clients()

    def open(self, spec: SessionSpec, emit: Emit) -> NeonizeSession:
        """The session of one instance; nothing runs until start()."""
        return NeonizeSession(self._clients, spec, emit, self._clock, self._pool, self._limits)

    def recycle_due(self) -> str | None:
        """Why this process should be replaced when convenient, or None."""
        left, started = self._clients.left_behind(), self._clients.counters.started
        if left >= self._limits.abandoned_max:
            return f"{left} rounds of QR codes or connects left a thread each"
        if started >= self._limits.started_max:
            return f"{started} starts left file handles open"
        return None
