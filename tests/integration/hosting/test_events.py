"""Events: committed before acknowledged, in order, told again after any death, and never in each other's way."""

import asyncio
import os
import signal

import msgspec
import pytest

from tests.integration.hosting.hosting import Hosting, until
from tomada.engine import port
from tomada.errors import DatabaseUnavailable
from tomada.kit.clock import SystemClock
from tomada.machines import lanes, machine
from tomada.machines.slots import Poisoned


async def test_events_come_in_order_and_are_acknowledged_when_handled(hosting: Hosting) -> None:
    """Two instances tell 200 messages each: each in its order, and the journal is empty afterwards."""
    for name in ("a", "b"):
        await hosting.instance(name, "connected")
    await hosting.host.start()
    await hosting.connected("a", "b")

    await asyncio.gather(hosting.order("a", "!tell 200"), hosting.order("b", "!tell 200"))

    expected = [f"m{number}" for number in range(200)]
    await until(lambda: hosting.events.texts("a") == expected and hosting.events.texts("b") == expected)
    await until(lambda: hosting.journals() == 0)
    assert hosting.host.figures().events_waiting == 0


async def test_what_is_not_handled_is_not_acknowledged_and_told_again(hosting: Hosting) -> None:
    """The machine is killed while the handler waits: all is handled in the end, in order, and the journal empties."""
    await hosting.instance("a", "connected")
    await hosting.host.start()
    await hosting.connected("a")
    hosting.events.gate.clear()
    await hosting.order("a", "!tell 50")
    await until(lambda: hosting.journals() == 50)

    os.kill(hosting.pid_of("a"), signal.SIGKILL)
    await until(lambda: hosting.host.figures().machine_restarts == 1)
    await until(lambda: hosting.host.machines[0].ready)
    assert hosting.journals() == 50
    assert len(hosting.asked("open_session", "a")) == 1  # not opened before the old life's events are committed
    hosting.events.gate.set()

    await hosting.connected("a")
    assert hosting.events.texts("a") == [f"m{number}" for number in range(50)]
    await until(lambda: hosting.journals() == 0)
    numbers = [number for _, event, number in hosting.events.all if isinstance(event, port.MessageReceived)]
    assert len(numbers) == 50  # what was under way was not queued a second time


@pytest.mark.parametrize("down", [False, True], ids=["under way", "done while it is down"])
async def test_what_is_done_is_not_done_again_for_a_new_machine(hosting: Hosting, down: bool) -> None:
    """Done, but behind another's event that was not: told again later, a failure gave back what another machine had."""
    for name in ("a", "b", "c"):
        await hosting.instance(name, "connected")
    await hosting.host.start()
    await hosting.connected("a", "b", "c")
    hosted = [session for session in hosting.host.all_sessions() if session.machine is hosting.host.machines[0]]
    stuck, other = (session.instance_id for session in hosted)
    gate = asyncio.Event()

    async def slow(instance_id: str, event: port.EngineEvent, number: int) -> None:
        if instance_id == stuck and isinstance(event, port.MessageReceived):
            await gate.wait()
        await hosting.events(instance_id, event, number)

    hosting.host._on_event = slow
    await hosting.order(stuck, "!tell 1")
    await hosting.order(other, "!tell 1")
    await until(lambda: hosting.events.texts(other) == ["m0"])

    if down:
        hosting.behave("machine-0", "exit")
    os.kill(hosting.pid_of(stuck), signal.SIGKILL)
    await until(lambda: hosting.host.machines[0].restarts >= (2 if down else 1))
    if down:
        gate.set()
        await until(lambda: hosting.events.texts(stuck) == ["m0"])
        hosting.behave("machine-0", "well")
    await until(lambda: hosting.host.machines[0].ready)
    gate.set()

    await until(lambda: hosting.journals() == 0)
    told = [owner for owner, event, _ in hosting.events.all if isinstance(event, port.MessageReceived)]
    assert sorted(told) == sorted([stuck, other])


async def test_a_killed_hosts_journals_are_told_before_any_session_opens(hosting: Hosting) -> None:
    """A slot with a journal is started though no session needs it, and what it tells is committed before openings."""
    await hosting.instance("a", "connected")
    await hosting.host.start()
    await hosting.connected("a")
    hosting.events.gate.clear()
    await hosting.order("a", "!tell 5")
    await until(lambda: hosting.journals() == 5)
    await hosting.host.stop()
    slot = hosting.data / "machines" / "0"
    slot.rename(slot.with_name("7"))

    await hosting.new_host().start()
    await asyncio.sleep(0.3)
    assert len(hosting.asked("open_session", "a")) == 1
    hosting.events.gate.set()

    await until(lambda: hosting.events.texts("a") == [f"m{number}" for number in range(5)])
    await hosting.connected("a")
    await until(lambda: hosting.journals() == 0)


async def test_a_session_waits_for_a_journal_that_cannot_be_told_and_others_do_not(hosting: Hosting) -> None:
    """However long its slot takes: what it says was sent would be sent again by a session that is opened before."""
    for name in ("a", "b", "c"):
        await hosting.instance(name, "connected")
    await hosting.host.start()
    await hosting.connected("a", "b", "c")
    hosting.events.gate.clear()
    await hosting.order("a", "!tell 5")
    await until(lambda: hosting.journals() == 5)
    await hosting.host.stop()
    slot = next(path.parent for path in hosting.data.glob("machines/*/journal") if '"a"' in path.read_text())
    slot.rename(slot.with_name("7"))
    hosting.events.gate.set()
    hosting.behave("machine-7", "exit")

    await hosting.new_host().start()
    await hosting.connected("c")
    await until(lambda: hosting.host.machines[7].restarts >= 3)
    machine = hosting.host.sessions["a"].machine
    assert machine is not None
    assert machine.ready  # it is not for its own machine that it waits
    assert len(hosting.asked("open_session", "a")) == 1
    assert hosting.events.texts("a") == []
    hosting.behave("machine-7", "well")

    await hosting.connected("a")
    assert hosting.events.texts("a") == [f"m{number}" for number in range(5)]


async def test_a_pairing_that_was_never_written_down_is_found_in_the_journal(hosting: Hosting) -> None:
    """Killed between the phone's scan and our row: the next start makes the session wanted and connects it."""
    await hosting.instance("a")
    await hosting.host.start()
    await hosting.control.qr("a")
    hosting.events.gate.clear()
    await hosting.control.phone_code("a", "5599")
    await until(lambda: hosting.journals() == 1)
    await hosting.host.stop()
    await hosting.pool.execute("delete from session")
    hosting.events.gate.set()

    await hosting.new_host().start()

    await hosting.connected("a")
    assert (await hosting.row("a", "connected"))["wanted"]


async def test_the_database_away_delays_everything_and_loses_nothing(hosting: Hosting) -> None:
    """While the handler says `unavailable` nothing is acknowledged or skipped; then everything follows in order."""
    await hosting.instance("a", "connected")
    await hosting.host.start()
    await hosting.connected("a")
    hosting.events.fail = lambda _event: DatabaseUnavailable()
    await hosting.order("a", "!tell 20")
    await until(lambda: hosting.journals() == 20)
    await asyncio.sleep(0.5)

    assert hosting.journals() == 20
    assert hosting.events.texts("a") == []
    hosting.events.fail = lambda _event: None
    await until(lambda: hosting.events.texts("a") == [f"m{number}" for number in range(20)])
    await until(lambda: hosting.journals() == 0)


class _Still(SystemClock):
    """It is always the same millisecond."""

    def now_ms(self) -> int:
        return 1_800_000_000_000


async def test_two_occurrences_of_one_millisecond_have_two_numbers(hosting: Hosting) -> None:
    """A contact comes online and types at once: with one number the second counted as known and was not told."""
    hosting.host.clock = _Still()
    await hosting.instance("a", "connected")
    await hosting.host.start()
    await hosting.connected("a")
    for status in ("AVAILABLE", "COMPOSING"):
        await hosting.order("a", f'!event {{"type":"chat_presence","chat":"55","status":"{status}"}}')

    await until(lambda: hosting.events.kinds("a").count("ChatPresence") == 2)
    numbers = [number for _owner, _event, number in hosting.events.all]
    assert len(set(numbers)) == len(numbers)


async def test_one_occurrence_keeps_its_number_over_all_tries(hosting: Hosting) -> None:
    """Connected is in no journal: with another number at each try, a commit without an answer gave two callbacks."""
    hosting.events.fail = lambda event: DatabaseUnavailable() if isinstance(event, port.Connected) else None
    await hosting.instance("a", "connected")
    await hosting.host.start()
    await until(lambda: len(hosting.events.failed) >= 3)

    assert len({number for _event, number in hosting.events.failed}) == 1


async def test_one_poisoned_event_is_put_aside_and_the_rest_goes_on(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event that our code cannot handle lies in `poisoned` as it was, without words of the error; others follow."""
    monkeypatch.setattr(lanes, "RETRY_BASE_S", 0.001)
    await hosting.instance("a", "connected")
    await hosting.host.start()
    await hosting.connected("a")
    hosting.events.fail = lambda event: (
        KeyError("secret") if isinstance(event, port.MessageReceived) and event.wa_id == "m3" else None
    )

    await hosting.order("a", "!tell 6")

    await until(lambda: hosting.events.texts("a") == ["m0", "m1", "m2", "m4", "m5"])
    await until(lambda: hosting.journals() == 0)
    path = hosting.data / "machines" / "0" / "poisoned"
    poisoned = msgspec.json.decode(path.read_bytes(), type=Poisoned)
    assert isinstance(poisoned.event, port.MessageReceived)
    assert (poisoned.instance_id, poisoned.event.wa_id, poisoned.error) == ("a", "m3", "KeyError")
    assert path.stat().st_mode & 0o077 == 0
    assert hosting.host.figures().events_put_aside == 1
    await hosting.control.remove("a", 2, force=True)
    assert await hosting.control.erase_files("a", 2) == 1  # the keys went with the session
    assert path.read_bytes() == b""


async def test_a_machine_is_not_read_while_too_many_of_its_events_wait(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound on waiting events holds; what is beyond it waits in the machine and is handled in its turn."""
    monkeypatch.setattr(machine, "PENDING_EVENTS_MAX", 100)
    await hosting.instance("a", "connected")
    await hosting.host.start()
    await hosting.connected("a")
    hosting.events.gate.clear()
    await hosting.order("a", "!tell 600")
    await until(lambda: hosting.host.machines[0].stalled)

    assert hosting.host.figures().events_waiting <= 101
    hosting.events.gate.set()
    await until(lambda: hosting.events.texts("a") == [f"m{number}" for number in range(600)])
    await until(lambda: hosting.journals() == 0)


async def test_a_slow_instance_delays_no_other(hosting: Hosting) -> None:
    """While one instance's event waits in the handler, another's of the same machine is handled."""
    for name in ("a", "b"):
        await hosting.instance(name, "connected")
    await hosting.host.start()
    await hosting.connected("a", "b")
    gate, original = asyncio.Event(), hosting.events.__call__

    async def slow(instance_id: str, event: port.EngineEvent, number: int) -> None:
        if instance_id == "a":
            await gate.wait()
        await original(instance_id, event, number)

    hosting.host._on_event = slow
    await hosting.order("a", "!tell 1")
    await hosting.order("b", "!tell 1")

    await until(lambda: hosting.events.texts("b") == ["m0"])
    assert hosting.events.texts("a") == []
    gate.set()
    await until(lambda: hosting.journals() == 0)
