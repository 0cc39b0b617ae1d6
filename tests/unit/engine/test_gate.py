"""The gate: calls together, changes alone, and calls that wait inside do not hold up a change."""

import threading
import time

from tomada.engine.gate import Gate


def test_a_change_waits_until_calls_have_settled() -> None:
    """A change begins only when every call inside has been there for the settling time, not when they end."""
    gate = Gate(settle_s=0.2)
    inside, leave, changed = threading.Event(), threading.Event(), threading.Event()

    def call() -> None:
        with gate.call():
            inside.set()
            leave.wait(10)

    def change() -> None:
        with gate.change():
            changed.set()

    threading.Thread(target=call).start()
    assert inside.wait(5)
    started_s = time.monotonic()
    threading.Thread(target=change).start()
    assert changed.wait(5)
    assert 0.1 < time.monotonic() - started_s < 2
    leave.set()


def test_calls_wait_for_a_change_until_it_opens() -> None:
    """No call enters while a change is under way; `open` lets calls in, but no other change."""
    gate = Gate(settle_s=0.01)
    entered, changed_too = threading.Event(), threading.Event()

    def call() -> None:
        with gate.call():
            entered.set()

    def change_too() -> None:
        with gate.change():
            changed_too.set()

    with gate.change() as change:
        threading.Thread(target=call).start()
        threading.Thread(target=change_too).start()
        assert not entered.wait(0.1)
        change.open()
        assert entered.wait(5)
        assert not changed_too.wait(0.1)
    assert changed_too.wait(5)


def test_nothing_meets_a_change() -> None:
    """Many calls and changes at random: while a change has the gate closed, no call is younger than the settling."""
    gate = Gate(settle_s=0.005)
    over = threading.Event()
    young: list[float] = []
    entries: dict[int, float] = {}

    def calls(key: int) -> None:
        while not over.is_set():
            with gate.call():
                entries[key] = time.monotonic()
                time.sleep(0.001 * (key % 5))
                entries.pop(key)

    threads = [threading.Thread(target=calls, args=(key,)) for key in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        with gate.change():
            now_s = time.monotonic()
            young += [now_s - at_s for at_s in list(entries.values()) if now_s - at_s < 0.004]
    over.set()
    for thread in threads:
        thread.join(5)
    assert young == []
