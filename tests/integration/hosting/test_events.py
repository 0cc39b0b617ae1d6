"""Events: committed before acknowledged, in order, told again after any death, and never in each other's way.

WhatsApp's part, to bring again what it was not acknowledged, is played by the scripted machine.
"""

import asyncio
import base64
import os
import signal
from pathlib import Path

import msgspec
import pytest

from tests.integration.hosting.hosting import Hosting, until
from tomada.engine import port
from tomada.errors import DatabaseUnavailable
from tomada.kit.clock import SystemClock
from tomada.kit.protobufs import Package
from tomada.machines import lanes, machine
from tomada.postgres.pool import Pool

_e2e = Package("WAWebProtobufsE2E")

PERSON = "55@s.whatsapp.net"
MESSAGE: dict[str, object] = {"type": "message", "wa_id": "m", "chat": PERSON, "sender": PERSON, "at_ms": 1}


async def quarantined(pool: Pool) -> list[tuple[str, str, dict[str, object]]]:
    """What lies in quarantine: instance, kind of error, the event."""
    rows = await pool.fetch("select instance_id, error, event from quarantined_event order by id")
    return [(row["instance_id"], row["error"], msgspec.json.decode(row["event"])) for row in rows]


def in_one_machine(hosting: Hosting) -> None:
    """Two instances share a machine."""
    hosting.settings = msgspec.structs.replace(hosting.settings, instances_per_machine=3)
    hosting.new_host()


async def test_events_come_in_order_and_are_acknowledged_when_handled(hosting: Hosting) -> None:
    """Two instances tell 200 messages each: each in its order, and all of them are acknowledged afterwards."""
    for name in ("a", "b"):
        await hosting.instance(name, "connected")
    await hosting.host.start()
    await hosting.connected("a", "b")

    await asyncio.gather(hosting.order("a", "!tell 200"), hosting.order("b", "!tell 200"))

    expected = [f"m{number}" for number in range(200)]
    await until(lambda: hosting.events.texts("a") == expected and hosting.events.texts("b") == expected)
    await until(lambda: hosting.waiting() == 0)
    assert hosting.host.figures().events_waiting == 0


async def test_what_is_not_handled_is_not_acknowledged_and_told_again(hosting: Hosting) -> None:
    """The machine is killed while the handler waits: all is handled in the end, in order, and acknowledged."""
    await hosting.instance("a", "connected")
    await hosting.host.start()
    await hosting.connected("a")
    hosting.events.gate.clear()
    await hosting.order("a", "!tell 50")
    await until(lambda: hosting.host.figures().events_waiting == 50)

    os.kill(hosting.pid_of("a"), signal.SIGKILL)
    await until(lambda: hosting.host.figures().machine_restarts == 1)
    await until(lambda: hosting.host.machines[0].ready)
    assert hosting.waiting() == 50
    assert len(hosting.asked("open_session", "a")) == 1  # not opened before the old life's events are committed
    hosting.events.gate.set()

    await hosting.connected("a")
    assert hosting.events.texts("a") == [f"m{number}" for number in range(50)]
    await until(lambda: hosting.waiting() == 0)


async def test_a_late_commit_does_not_acknowledge_what_another_process_told(hosting: Hosting) -> None:
    """Each process counts from one: a number of the dead one must not be said to its successor."""
    in_one_machine(hosting)
    for name in ("a", "b"):
        await hosting.instance(name, "connected")
    await hosting.host.start()
    await hosting.connected("a", "b")
    gates = {"a": asyncio.Event(), "b": asyncio.Event()}

    async def slow(instance_id: str, event: port.EngineEvent, number: int) -> None:
        if isinstance(event, port.MessageReceived):
            await gates[instance_id].wait()
        await hosting.events(instance_id, event, number)

    hosting.host._on_event = slow
    await hosting.order("a", "!tell 1")
    await until(lambda: hosting.host.figures().events_waiting == 1)
    os.kill(hosting.pid_of("a"), signal.SIGKILL)
    await until(lambda: len(hosting.asked("open_session", "b")) == 2)
    await hosting.connected("b")
    await hosting.order("b", "!tell 1")  # number one again
    await until(lambda: hosting.host.figures().events_waiting == 2)

    gates["a"].set()

    await hosting.connected("a")
    assert hosting.events.texts("a") == ["m0"]
    assert (hosting.script / "waiting" / "b").read_text() != ""
    gates["b"].set()
    await until(lambda: hosting.waiting() == 0)
    assert hosting.events.texts("b") == ["m0"]


async def test_a_killed_hosts_events_are_told_again(hosting: Hosting) -> None:
    """Nothing of ours remembers them: WhatsApp does, since it was not acknowledged."""
    await hosting.instance("a", "connected")
    await hosting.host.start()
    await hosting.connected("a")
    hosting.events.fail = lambda event: DatabaseUnavailable() if isinstance(event, port.MessageReceived) else None
    await hosting.order("a", "!tell 5")
    await until(lambda: hosting.events.failed != [])
    await hosting.host.stop()
    assert hosting.events.texts("a") == []
    hosting.events.fail = lambda _event: None

    await hosting.new_host().start()

    await until(lambda: hosting.events.texts("a") == [f"m{number}" for number in range(5)])
    await until(lambda: hosting.waiting() == 0)


async def test_a_stop_commits_what_was_told_before_it(hosting: Hosting) -> None:
    """The outcome of a send is told once: dropped at an orderly stop, the message would be sent a second time."""
    await hosting.instance("a", "connected")
    await hosting.host.start()
    await hosting.connected("a")
    hosting.events.gate.clear()
    await hosting.order("a", "hello")
    await until(lambda: hosting.host.figures().events_waiting == 1)

    stopping = asyncio.create_task(hosting.host.stop())
    await until(lambda: all(one.pid is None for one in hosting.host.machines.values()))
    hosting.events.gate.set()
    await stopping

    assert hosting.events.kinds("a") == ["Connected", "MessageSent"]


async def test_the_database_away_delays_everything_and_loses_nothing(hosting: Hosting) -> None:
    """While the handler says `unavailable` nothing is acknowledged or skipped; then everything follows in order."""
    await hosting.instance("a", "connected")
    await hosting.host.start()
    await hosting.connected("a")
    hosting.events.fail = lambda _event: DatabaseUnavailable()
    await hosting.order("a", "!tell 20")
    await until(lambda: len(hosting.events.failed) > lanes.TRIES_MAX)

    assert hosting.waiting() == 20
    assert hosting.events.texts("a") == []
    hosting.events.fail = lambda _event: None
    await until(lambda: hosting.events.texts("a") == [f"m{number}" for number in range(20)])
    await until(lambda: hosting.waiting() == 0)


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
    for state in ("available", "composing"):
        await hosting.order(
            "a", f'!event {{"type":"presence","chat":"{PERSON}","sender":"{PERSON}","state":"{state}"}}'
        )

    await until(lambda: hosting.events.kinds("a").count("ChatPresence") == 2)
    numbers = [number for _owner, _event, number in hosting.events.all]
    assert len(set(numbers)) == len(numbers)


async def test_one_occurrence_keeps_its_number_over_all_tries(hosting: Hosting) -> None:
    """With another number at each try, a commit without an answer gave two callbacks of one Connected."""
    hosting.events.fail = lambda event: DatabaseUnavailable() if isinstance(event, port.Connected) else None
    await hosting.instance("a", "connected")
    await hosting.host.start()
    await until(lambda: len(hosting.events.failed) >= 3)

    assert len({number for _event, number in hosting.events.failed}) == 1


async def test_an_event_that_cannot_be_handled_is_quarantined_and_the_rest_goes_on(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After five tries it lies in its table as it was told, without words of the error; others follow."""
    monkeypatch.setattr(lanes, "RETRY_BASE_S", 0.001)
    await hosting.instance("a", "connected")
    await hosting.host.start()
    await hosting.connected("a")
    hosting.events.fail = lambda event: (
        KeyError("secret") if isinstance(event, port.MessageReceived) and event.wa_id == "m3" else None
    )

    await hosting.order("a", "!tell 6")

    await until(lambda: hosting.events.texts("a") == ["m0", "m1", "m2", "m4", "m5"])
    await until(lambda: hosting.waiting() == 0)
    assert len(hosting.events.failed) == lanes.TRIES_MAX
    [(instance_id, error, event)] = await quarantined(hosting.pool)
    assert (instance_id, error) == ("a", "KeyError")
    assert event == {**MESSAGE, "wa_id": "m3", "raw": base64.b64encode(b"\x0a\x02m3").decode()}
    assert hosting.host.figures().events_quarantined == 1


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ({"type": "from_the_future", "x": 1}, "NotUnderstood"),
        ({"type": "message", "wa_id": 7}, "NotUnderstood"),
        ({**MESSAGE, "raw": base64.b64encode(b"\x0a\x7fshort").decode()}, "DecodeError"),
    ],
    ids=["unknown type", "wrong field", "not a message of WhatsApp's"],
)
async def test_what_cannot_be_read_is_quarantined_and_nothing_dies_of_it(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch, event: dict[str, object], error: str
) -> None:
    """A newer machine's event, or one that our translation cannot take: kept, acknowledged, in order."""
    monkeypatch.setattr(lanes, "RETRY_BASE_S", 0.001)
    await hosting.instance("a", "connected")
    await hosting.host.start()
    await hosting.connected("a")

    await hosting.tell("a", event)
    await hosting.order("a", "!tell 1")

    await until(lambda: hosting.events.texts("a") == ["m0"])
    await until(lambda: hosting.waiting() == 0)
    assert await quarantined(hosting.pool) == [("a", error, event)]
    assert hosting.host.figures().events_quarantined == 1
    assert hosting.host.figures().machine_restarts == 0


async def test_what_cannot_be_quarantined_now_waits(hosting: Hosting, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that is unknown, while its table refuses: it is not acknowledged, however often that was tried."""
    monkeypatch.setattr(lanes, "RETRY_BASE_S", 0.001)
    monkeypatch.setattr(lanes, "RETRY_MAX_S", 0.01)
    await hosting.instance("a", "connected")
    await hosting.host.start()
    await hosting.connected("a")
    await hosting.pool.execute("alter table quarantined_event add constraint refuses check (id < 0)")
    event: dict[str, object] = {"type": "from_the_future"}

    await hosting.tell("a", event)

    async with asyncio.timeout(10):  # each try takes a number of the table's
        while await hosting.pool.fetchval("select last_value from quarantined_event_id_seq") < 3 * lanes.TRIES_MAX:
            await asyncio.sleep(0.01)
    assert hosting.waiting() == 1
    await hosting.pool.execute("alter table quarantined_event drop constraint refuses")
    await until(lambda: hosting.waiting() == 0)
    assert await quarantined(hosting.pool) == [("a", "NotUnderstood", event)]


async def test_an_event_too_long_for_a_line_comes_in_a_file(hosting: Hosting, tmp_path: Path) -> None:
    """The host takes it in and removes the file at once: the next machine of that slot would remove it anyway."""
    await hosting.instance("a", "connected")
    await hosting.host.start()
    await hosting.connected("a")
    spilt = tmp_path / "spilt"
    spilt.write_bytes(b"\x0a\x02hi")
    hosting.events.gate.clear()

    await hosting.tell("a", {**MESSAGE, "file": str(spilt)})
    await until(lambda: not spilt.exists())
    assert hosting.waiting() == 1
    hosting.events.gate.set()

    await until(lambda: hosting.waiting() == 0)
    [content] = [event.content for _, event, _ in hosting.events.all if isinstance(event, port.MessageReceived)]
    assert content == port.TextReceived("hi")


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
    await until(lambda: hosting.waiting() == 0)


async def test_a_slow_commit_holds_up_no_other_instances_acknowledgement(hosting: Hosting) -> None:
    """Numbers are single: what was told after an event that waits is handled, and WhatsApp is acknowledged it."""
    in_one_machine(hosting)
    for name in ("a", "b"):
        await hosting.instance(name, "connected")
    await hosting.host.start()
    await hosting.connected("a", "b")
    gate = asyncio.Event()

    async def slow(instance_id: str, event: port.EngineEvent, number: int) -> None:
        if instance_id == "a":
            await gate.wait()
        await hosting.events(instance_id, event, number)

    hosting.host._on_event = slow
    await hosting.order("a", "!tell 1")
    await hosting.order("b", "!tell 3")

    await until(lambda: hosting.events.texts("b") == ["m0", "m1", "m2"])
    await until(lambda: hosting.waiting() == 1)
    assert hosting.events.texts("a") == []
    gate.set()
    await until(lambda: hosting.waiting() == 0)


async def test_a_number_that_is_not_told_in_time_is_left_out(hosting: Hosting, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message quotes a hidden number, and the machine does not say whose: it is told without, and nobody dies."""
    monkeypatch.setattr("tomada.machines.host.NUMBERS_S", 0.2)
    await hosting.instance("a", "connected")
    await hosting.host.start()
    await hosting.connected("a")
    hosting.behave("a", "silent")
    quote = _e2e.ContextInfo(stanzaID="Q1", participant="99@lid")
    message = _e2e.Message(extendedTextMessage=_e2e.ExtendedTextMessage(text="hi", contextInfo=quote))

    await hosting.tell("a", {**MESSAGE, "raw": base64.b64encode(message.SerializeToString()).decode()})

    await until(lambda: hosting.waiting() == 0)
    [event] = [event for _, event, _ in hosting.events.all if isinstance(event, port.MessageReceived)]
    assert (event.quoted_wa_id, event.quoted_sender) == ("Q1", "99@lid")
    assert len(hosting.asked("ask", "a")) == 1
    assert hosting.host.figures().machine_restarts == 0
