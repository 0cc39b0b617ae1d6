"""The gate before the engine's library: who may be inside Go, and when.

The library keeps its clients in plain Go maps without a lock. A call reads such a map in its first microseconds; a
start or a stop writes one. Go aborts the whole process when it sees both at once, and no handler can catch that. So:

- starts and stops are serial: one at a time in this process (`change`);
- they are exclusive against calls *entering*: `change` closes the gate, then waits until each call that is inside has
  been there for `settle_s`, long enough to be past its look into the map. It does not wait for calls to finish,
  because one may wait a minute for WhatsApp;
- calls that come meanwhile wait at the gate (`call`), a fraction of a second as a rule.

Plain threads, no asyncio: calls into Go block, so they come from worker threads and from the engine's own threads.
What remains: a thread that the operating system holds for longer than `settle_s` between the gate and the map. It
costs one machine, which is started again; docs/engine.md, fault 1.
"""

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, Lock

SETTLE_S = 0.1


class Gate:
    """Lets calls in together, and one change at a time between them."""

    def __init__(self, settle_s: float = SETTLE_S) -> None:
        """`settle_s`: after so long inside, a call is surely past the maps."""
        self._settle_s = settle_s
        self._changing = Lock()
        self._condition = Condition()
        self._closed = False
        self._entered: dict[int, float] = {}  # call number -> monotonic time of entry
        self._numbers = itertools.count()

    @contextmanager
    def call(self) -> Iterator[None]:
        """Be inside for one ordinary call; waits while a start or stop is under way."""
        with self._condition:
            while self._closed:
                self._condition.wait()
            number = next(self._numbers)
            self._entered[number] = time.monotonic()
        try:
            yield
        finally:
            with self._condition:
                del self._entered[number]
                self._condition.notify_all()

    @contextmanager
    def change(self) -> Iterator["Change"]:
        """Be the only start or stop, with the gate closed until `Change.open` or the end."""
        with self._changing:
            change = Change(self)
            self._close()
            try:
                yield change
            finally:
                change.open()

    def _close(self) -> None:
        with self._condition:
            self._closed = True
            while self._entered:
                youngest_s = time.monotonic() - max(self._entered.values())
                if youngest_s >= self._settle_s:
                    return
                self._condition.wait(self._settle_s - youngest_s)

    def _open(self) -> None:
        with self._condition:
            self._closed = False
            self._condition.notify_all()


class Change:
    """A start or stop under way."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def open(self) -> None:
        """Let calls in again, while other starts and stops still wait."""
        self._gate._open()  # noqa: SLF001 - two halves of one thing
