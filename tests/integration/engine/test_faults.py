"""The thirteen faults of the engine's library, each provoked, and what we see of it: as little as can be.

The numbers are those of docs/engine.md. The engine runs in machine processes only: were one of these lived with badly,
it would take pytest with it.
"""

import asyncio
import time
from pathlib import Path

import psutil
import pytest

from tests.integration.machines.bench import Bench
from tests.integration.machines.driven import Driven, until
from tomada.engine import port
from tomada.machines.protocol import CloseSession, Probe, RequestPhoneCode, Send


async def test_fault_1_starts_and_stops_among_calls(bench: Bench) -> None:
    """Sessions start and stop at once, while others call without pause: the unlocked maps never meet."""
    async with bench.machine("fault-1") as driven:
        names = [f"f1-{n}" for n in range(6)]
        for name in names:
            await bench.paired(driven, name)
        calm = ["f1-calm-0", "f1-calm-1", "f1-calm-2"]
        for name in calm:
            await bench.paired(driven, name)
        over = asyncio.Event()

        async def call(name: str) -> int:
            count = 0
            while not over.is_set():
                assert (await driven.ask(Probe(name))).value == "yes"
                count += 1
            return count

        async def cycle(name: str) -> None:
            for _ in range(8):
                assert (await driven.ask(CloseSession(name))).error is None
                await bench.open(driven, name)

        callers = [asyncio.create_task(call(name)) for name in calm * 2]
        await asyncio.gather(*(cycle(name) for name in names))
        over.set()
        assert sum(await asyncio.gather(*callers)) > 50
        assert driven.process.returncode is None


async def test_fault_2_calls_on_a_session_that_stops(bench: Bench, well: Driven) -> None:
    """Calls that meet a stopping or stopped session are refused; none reaches a client that is gone."""
    number = await bench.paired(well, "f2")
    closing = asyncio.create_task(well.ask(CloseSession("f2")))
    commands = (Probe("f2"), RequestPhoneCode("f2", number), Send("f2", "z", number, port.Text("x")))
    answers = await asyncio.gather(*(well.ask(command) for command in commands * 20))
    assert (await closing).error is None
    assert all(answer.error or answer.value in {"no", "yes", None} for answer in answers)
    for command in commands:
        assert (await well.ask(command)).error
    assert well.process.returncode is None


async def test_fault_3_a_pump_that_ends(bench: Bench, well: Driven) -> None:
    """A receipt the library cannot encode ends its event pump: SessionEnded says so, and a new opening hears again."""
    number = await bench.paired(well, "f3")
    await bench.fault("server-error-receipt", number=number)
    await well.event("f3", port.SessionEnded)
    assert (await well.ask(Probe("f3"))).value != "yes"
    assert (await well.ask(CloseSession("f3"))).error is None
    await bench.open(well, "f3")
    other = await bench.phone()
    await bench.call("POST", f"phones/{other}/send", {"to": number, "text": "do you hear?"})
    await well.event("f3", port.MessageReceived, lambda e: e.content == port.TextReceived("do you hear?"))


async def test_fault_4_abandoned_rounds_are_counted(bench: Bench) -> None:
    """A round of QR codes that is given up leaves a thread; the machine counts and asks to be recycled in time."""
    async with bench.machine("fault-4", "--abandoned-max", "3") as driven:
        await bench.paired(driven, "f4")
        threads = psutil.Process(driven.process.pid).num_threads()
        assert (await driven.ask(Probe("f4"))).recycle is None
        for n in range(3):
            await bench.open(driven, f"f4-{n}")
            assert (await driven.ask(CloseSession(f"f4-{n}"))).error is None
        assert (await driven.ask(Probe("f4"))).recycle
        assert psutil.Process(driven.process.pid).num_threads() > threads
        assert await driven.end() == 0


async def test_fault_5_the_end_of_a_round_is_told(bench: Bench, well: Driven) -> None:
    """When a round of QR codes ends without a phone, PairingEnded says so, and the next opening begins a new one."""
    await bench.open(well, "f5")
    await well.event("f5", port.QrIssued)
    await bench.fault("drop")
    await well.event("f5", port.PairingEnded)
    assert (await well.ask(CloseSession("f5"))).error is None
    await bench.open(well, "f5")
    await until(lambda: len(well.events("f5", port.QrIssued)) == 2)


async def test_fault_6_a_predecessor_does_not_kill(bench: Bench, well: Driven) -> None:
    """A session that was reopened several times stays connected: nothing of an earlier life reaches into it."""
    await bench.paired(well, "f6")
    for lives in range(2, 7):
        await well.ask(CloseSession("f6"))
        await bench.open(well, "f6")  # answered before the login, and who is closed before it never tells Connected
        await until(lambda lives=lives: len(well.events("f6", port.Connected)) == lives)  # type: ignore[misc]
    assert (await well.ask(Probe("f6"))).value == "yes"
    assert not well.events("f6", port.Replaced)


async def test_fault_7_names_do_not_mix(bench: Bench, well: Driven) -> None:
    """Sessions opened at the same moment each show their own name on their phone, though the name is global in Go."""
    names = {f"f7-{n}": f"Filial {n}" for n in range(6)}
    await asyncio.gather(*(bench.open(well, instance_id, name) for instance_id, name in names.items()))
    for instance_id, name in names.items():
        number = await bench.phone()
        qr = await well.event(instance_id, port.QrIssued)
        scanned = await bench.call("POST", f"phones/{number}/scan", {"qr": qr.code})
        assert scanned["name"] == name
        await well.event(instance_id, port.Connected)


async def test_fault_9_a_first_connect_that_fails(bench: Bench, well: Driven) -> None:
    """If WhatsApp cannot be reached at the start, the opening is refused soon; nothing tries on, nothing is left."""
    await bench.paired(well, "f9")
    await well.ask(CloseSession("f9"))
    await bench.fault("refuse")
    before = (await bench.call("GET", "faults"))["connects"]["total"]
    answer = await well.open("f9", bench.store("f9"))
    assert answer.error
    await asyncio.sleep(1.0)
    assert (await bench.call("GET", "faults"))["connects"]["total"] <= before + 1
    await bench.no_faults()
    await bench.open(well, "f9")
    await until(lambda: len(well.events("f9", port.Connected)) == 2)


async def test_fault_10_no_acknowledgement(bench: Bench) -> None:
    """A message that WhatsApp does not acknowledge in time has an unknown outcome; it is not sent again."""
    async with bench.machine("fault-10", "--send-deadline-s", "2") as driven:
        number = await bench.paired(driven, "f10")
        other = await bench.phone()
        await bench.fault("no-ack", number=number)
        await driven.send("f10", "z-unknown", other, "maybe")
        failed = await driven.event("f10", port.MessageFailed, lambda e: e.zaap_id == "z-unknown")
        assert (failed.unknown, failed.retry) == (True, False)
        await driven.send("f10", "z-behind", other, "behind it")
        failed = await driven.event("f10", port.MessageFailed, lambda e: e.zaap_id == "z-behind")
        assert (failed.unknown, failed.retry) == (False, True)
        assert (await bench.texts(other)).count("maybe") <= 1


async def test_fault_10_receipts_wait_for_the_outcome(bench: Bench, well: Driven) -> None:
    """However late the acknowledgement comes, no receipt of a message is told before its MessageSent."""
    number = await bench.paired(well, "f10b")
    other = await bench.phone()
    for n in range(20):
        await well.send("f10b", f"z{n}", other, f"quick {n}")
    await well.event("f10b", port.MessageSent, lambda e: e.zaap_id == "z19")
    await until(lambda: len(well.events("f10b", port.ReceiptReceived)) >= 20)
    told: set[str] = set()
    for happened in well.happened:
        if happened.instance_id == "f10b" and isinstance(happened.event, port.MessageSent):
            told.add(happened.event.wa_id)
        if happened.instance_id == "f10b" and isinstance(happened.event, port.ReceiptReceived):
            assert told.issuperset(happened.event.wa_ids)
    assert number


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"kind": "outdated"}, port.Outdated),
        ({"kind": "ban", "code": 102, "expire": 600}, port.Banned),
    ],
)
async def test_fault_12_refused_at_login(
    bench: Bench, well: Driven, fault: dict[str, object], kind: type[port.EngineEvent]
) -> None:
    """What WhatsApp refuses at login is told once under its own name, with a ban's code and end."""
    name = f"f12-{fault['kind']}"
    number = await bench.paired(well, name)
    await well.ask(CloseSession(name))
    await bench.call("POST", "faults", {**fault, "number": number})
    await bench.open(well, name)
    event = await well.event(name, kind)
    if isinstance(event, port.Banned):
        assert event.code == 102
        assert 500_000 < event.expires_ms - _now_ms() <= 600_000
    assert len(well.events(name, kind)) == 1


async def test_fault_12_replaced(bench: Bench, well: Driven) -> None:
    """A connection that was replaced elsewhere says so and does not come back by itself."""
    number = await bench.paired(well, "f12-replaced")
    await bench.fault("replaced", number=number)
    await well.event("f12-replaced", port.Replaced)
    await asyncio.sleep(0.5)
    assert len(well.events("f12-replaced", port.Connected)) == 1


async def test_fault_13_standard_output_is_ours(bench: Bench, well: Driven) -> None:
    """What the library prints lands in the log; the protocol's lines stay whole (Driven reads them strictly)."""
    await bench.paired(well, "f13")
    await until(lambda: b"Press Ctrl+C" in well.log and b"Login event" in well.log)
    loaded = {Path(one.path).name for one in psutil.Process(well.process.pid).memory_maps()}
    assert not [name for name in loaded if name.startswith("libmagic")]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
