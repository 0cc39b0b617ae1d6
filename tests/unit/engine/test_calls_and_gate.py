"""Fault 1, without luck: every call into Go passes the gate, so none can enter while a start or stop is under way."""

import threading
from collections.abc import Callable

import pytest

from tomada.engine.gate import Gate
from tomada.engine.neonize_addresses import jid
from tomada.engine.neonize_library import Library
from tomada.engine.neonize_protos import e2e


class RecordingGo:
    """Stands for the C library; every function returns nothing and is written down."""

    def __init__(self) -> None:
        self.called = threading.Event()

    def __getattr__(self, name: str) -> Callable[..., bytes]:
        def function(*_: object) -> bytes:
            self.called.set()
            return b""

        return function


CALLS: dict[str, Callable[[Library], object]] = {
    "disconnect": lambda library: library.disconnect(b"u"),
    "me": lambda library: library.me(b"u"),
    "phone_jid": lambda library: library.phone_jid(b"u", jid("1", "lid")),
    "hidden_jid": lambda library: library.hidden_jid(b"u", jid("1", "s.whatsapp.net")),
    "contact": lambda library: library.contact(b"u", jid("1", "lid")),
    "group_subject": lambda library: library.group_subject(b"u", jid("1", "g.us")),
    "send": lambda library: library.send(b"u", jid("1", "lid"), e2e.Message(conversation="x")),
    "show_typing": lambda library: library.show_typing(b"u", jid("1", "lid")),
    "pair_phone": lambda library: library.pair_phone(b"u", "1"),
    "logout": lambda library: library.logout(b"u"),
    "round_trip": lambda library: library.round_trip(b"u"),
}


def test_no_call_is_forgotten() -> None:
    """The list above is all that the library offers, besides what a start or stop does itself."""
    offered = {name for name in vars(Library) if not name.startswith("_")}
    assert offered == set(CALLS) | {"run", "stop"}


@pytest.mark.parametrize("name", CALLS)
def test_calls_wait_at_the_gate(name: str) -> None:
    """A call that comes during a change enters Go only when the gate opens."""
    go = RecordingGo()
    library = object.__new__(Library)
    library.gate = Gate(settle_s=0.01)
    library._go = go

    def call() -> None:
        try:
            CALLS[name](library)
        except Exception:  # noqa: BLE001 - the empty answer of this stand-in is no message
            assert go.called.is_set()

    with library.gate.change():
        thread = threading.Thread(target=call)
        thread.start()
        assert not go.called.wait(0.05)
    assert go.called.wait(5)
    thread.join(5)
