"""Sessions and machines come back by themselves, whoever dies; and what must not come back does not.

Real: processes, pipes, signals, PostgreSQL. Doubled: the engine, by the scripted machine program.
"""

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from tests.integration.hosting.hosting import Hosting, alive, until
from tomada.errors import NotConnected, OutcomeUnknown, Refused
from tomada.machines import machine
from tomada.machines.control import QrCode
from tomada.machines.machine import Machine
from tomada.machines.tending import tend


async def test_boot_brings_back_every_wanted_session_and_nothing_else(hosting: Hosting) -> None:
    """Paired sessions are spread over machines; replaced, banned, unpaired and expired ones are left alone."""
    for name in ("a", "b", "c"):
        await hosting.instance(name, "connected")
    await hosting.instance("replaced", "replaced")
    await hosting.instance("banned", "banned", retry_after_ms=1 << 50)
    await hosting.instance("expired", "connected")
    await hosting.instance("unpaired")
    await hosting.pool.execute("update instance set state = 'expired' where id = 'expired'")

    await hosting.host.start()

    await hosting.connected("a", "b", "c")
    assert sorted(hosting.opened) == ["a", "b", "c"]
    assert max(Counter(hosting.pid_of(name) for name in ("a", "b", "c")).values()) <= 2
    assert (await hosting.row("a", "connected"))["phone"] == "5511"
    assert (await hosting.control.status("replaced")).condition == "replaced"
    assert (await hosting.control.status("expired")).condition == "disconnected"
    assert set(hosting.host.sessions) == {"a", "b", "c", "replaced", "banned"}


async def test_s6_a_killed_machine_is_back_with_its_sessions_and_touches_no_other(hosting: Hosting) -> None:
    """kill -9 of one of two machines: its sessions are connected again within 10 s, the other's never noticed."""
    for name in ("a", "b", "c", "d"):
        await hosting.instance(name, "connected")
    await hosting.host.start()
    await hosting.connected("a", "b", "c", "d")
    victim, other = hosting.pid_of("a"), {hosting.pid_of(name) for name in "abcd"}
    other.discard(victim)
    hit = [name for name in "abcd" if hosting.pid_of(name) == victim]
    started_s = time.monotonic()

    os.kill(victim, signal.SIGKILL)
    await until(lambda: not any(hosting.control.connected(name) for name in hit), 2)
    await until(lambda: all(hosting.control.connected(name) for name in hit))

    assert time.monotonic() - started_s < 10
    assert len(hit) == 2
    assert {hosting.pid_of(name) for name in "abcd"} >= other
    for name in set("abcd") - set(hit):
        assert len(hosting.asked("open_session", name)) == 1
        assert "Disconnected" not in hosting.events.kinds(name)
    assert hosting.host.figures().machine_restarts == 1


@pytest.mark.parametrize("order", ["!die", "!babble", "!long", "!hang"])
async def test_a_machine_that_dies_babbles_or_hangs_gets_a_successor(hosting: Hosting, order: str) -> None:
    """Nonsense, an endless line and silence are treated as death; a send that was under way is not called refused."""
    await hosting.instance("a", "connected")
    await hosting.host.start()
    await hosting.connected("a")
    pid = hosting.pid_of("a")

    await hosting.order("a", order)  # returns: nobody knows whether it was sent

    def has_successor() -> bool:
        """Between the two there is none, and for a moment the session does not know it yet."""
        now = hosting.host.sessions["a"].machine
        return now is not None and now.pid not in (None, pid)

    await until(has_successor)
    await hosting.connected("a")
    await until(lambda: not alive(pid), 1)


async def test_a_machine_that_does_not_end_when_it_should_be_renewed_is_killed(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that hangs at its orderly end gets the time of a stop; then its sessions come back in a successor."""
    monkeypatch.setattr(machine, "STOP_S", 0.3)
    await hosting.instance("a", "connected")
    await hosting.host.start()
    await hosting.connected("a")
    pid = hosting.pid_of("a")
    os.kill(pid, signal.SIGSTOP)

    hosting.host.machines[0].recycle("a test")

    await until(lambda: not alive(pid))
    await hosting.connected("a")


@pytest.mark.parametrize("mode", ["old-version", "exit"])
async def test_a_machine_that_keeps_failing_is_tried_ever_more_slowly(hosting: Hosting, mode: str) -> None:
    """A slot in a crash loop waits longer each time, and comes back as soon as the fault is gone."""
    await hosting.instance("a", "connected")
    hosting.behave("machine", mode)
    started_s = time.monotonic()
    await hosting.host.start()

    await until(lambda: hosting.host.figures().machine_restarts >= 6, 60)
    lasted_s = time.monotonic() - started_s
    hosting.behave("machine", "well")

    await hosting.connected("a", within_s=30)
    assert lasted_s >= 0.05 + 0.1 + 0.2 + 0.4  # pauses of none, then at least these; a start takes a twentieth of that


async def test_openings_wait_for_their_turn_and_not_for_their_deadline(hosting: Hosting) -> None:
    """The deadline of an opening counts from its turn: at a slow pace none is late, and no machine is killed for it."""
    hosting.settings = msgspec.structs.replace(
        hosting.settings, instances_per_machine=30, orderly_rate=4.0, orderly_burst=1, open_timeout_s=2.0
    )
    hosting.new_host()
    names = [f"i{number}" for number in range(12)]
    for name in names:
        await hosting.instance(name, "connected")

    await hosting.host.start()

    await hosting.connected(*names, within_s=30)
    assert hosting.host.figures().machine_restarts == 0
    times = sorted(at_s for at_s, _ in hosting.asked("open_session"))
    assert len(times) == len(names)
    assert times[-1] - times[0] > 2.0  # 2.75 s by the pace


async def test_a_session_that_waits_for_its_turn_heeds_what_is_asked_of_it(hosting: Hosting) -> None:
    """Disconnected by request while others are being started: it is not opened any more, and nobody waits for that."""
    hosting.settings = msgspec.structs.replace(
        hosting.settings, instances_per_machine=30, orderly_rate=0.1, orderly_burst=1
    )
    hosting.new_host()
    names = ["a", "b", "c"]
    for name in names:
        await hosting.instance(name, "connected")
    await hosting.host.start()
    await until(lambda: len(hosting.asked("open_session")) == 1)
    waiting = [name for name in names if not hosting.asked("open_session", name)]
    session = hosting.host.sessions[waiting[0]]

    assert not await hosting.control.logout(waiting[0])  # nobody at WhatsApp could be told

    assert not (await hosting.row(waiting[0], "unpaired"))["wanted"]
    assert await hosting.epochs(waiting[0]) == []
    assert session.at_rest
    assert not hosting.host.sessions[waiting[1]].at_rest
    assert len(hosting.asked("open_session")) == 1


async def test_a_session_that_fails_backs_off_and_never_gives_up(hosting: Hosting) -> None:
    """Refused and failing sessions are shown as failed, with words, and connected once that is possible."""
    await hosting.instance("a", "connected")
    await hosting.instance("b", "connected")
    hosting.behave("a", "refuse")
    hosting.behave("b", "fail")
    await hosting.host.start()

    assert (await hosting.row("a", "failed"))["reason"] == "no way to WhatsApp"
    assert (await hosting.row("b", "failed"))["reason"] == "busy"
    await until(lambda: len(hosting.asked("open_session", "a")) >= 3)
    await until(lambda: len(hosting.asked("open_session", "b")) >= 3)
    hosting.behave("a", "well")
    hosting.behave("b", "well")
    await hosting.connected("a", "b")
    assert hosting.host.figures().recoveries >= 4


async def test_a_session_that_never_connects_is_started_anew(hosting: Hosting) -> None:
    """Opened but silent: after the connect deadline it is closed and tried again."""
    await hosting.instance("a", "connected")
    hosting.behave("a", "silent")
    await hosting.host.start()
    await hosting.row("a", "failed")

    hosting.behave("a", "well")

    await hosting.connected("a")
    assert hosting.asked("close_session", "a")


async def test_a_break_that_the_engine_does_not_mend_is_mended_here(hosting: Hosting) -> None:
    """Disconnected is shown at once; after the grace the session is closed and opened again."""
    await hosting.instance("a", "connected")
    await hosting.host.start()
    await hosting.connected("a")

    await hosting.order("a", '!event {"type": "disconnected", "reason": "cut"}')

    assert (await hosting.row("a", "disconnected"))["reason"] == "cut"
    await hosting.connected("a")
    assert len(hosting.asked("open_session", "a")) == 2


async def test_s3_a_deaf_session_is_restarted(hosting: Hosting) -> None:
    """Two failed probes: the session is closed and opened again, seen from the machine's side."""
    hosting.settings = hosting.host.settings = msgspec.structs.replace(hosting.settings, probe_interval_s=0.4)
    await hosting.instance("a", "connected")
    await hosting.instance("b", "connected")
    await hosting.host.start()
    await hosting.connected("a", "b")

    hosting.behave("a", "deaf")
    await until(lambda: len(hosting.asked("open_session", "a")) >= 2)
    hosting.behave("a", "well")

    await hosting.connected("a")
    assert len(hosting.asked("probe", "a")) >= 2
    assert len(hosting.asked("open_session", "b")) == 1
    assert hosting.host.figures().deaf_restarts >= 1


async def test_s7_whatsapps_last_words_are_heeded(hosting: Hosting) -> None:
    """Replaced, banned and outdated: shown with words, the session closed, and not opened again by itself."""
    for name, event, condition in (
        ("r", '{"type": "replaced"}', "replaced"),
        ("b", '{"type": "banned", "code": 101, "expires_ms": 99999999999999}', "banned"),
        ("o", '{"type": "outdated"}', "outdated"),
    ):
        await hosting.instance(name, "connected")
        if not hosting.host.machines:
            await hosting.host.start()
        session = await hosting.host.hosted(name)
        assert session is not None
        if session.state.condition != "connecting":
            await hosting.control.restart(name)
        await hosting.connected(name)
        await hosting.order(name, f"!event {event}")
        row = await hosting.row(name, condition)
        assert row["wanted"]
        assert row["reason"]
        await until(lambda name=name: len(hosting.asked("close_session", name)) > 0)  # type: ignore[misc]
    await asyncio.sleep(0.5)

    for name in ("r", "b", "o"):
        assert len(hosting.asked("open_session", name)) == 1
        assert not hosting.control.connected(name)
        with pytest.raises(NotConnected):
            await hosting.order(name, "x")
    assert (await hosting.row("b", "banned"))["retry_after_ms"] == 99999999999999
    with pytest.raises(Refused, match="refuses this number"):
        await hosting.control.restart("b")
    await hosting.control.restore("r")
    await hosting.connected("r")


async def test_the_database_being_away_at_an_opening_is_no_failure_of_the_session(hosting: Hosting) -> None:
    """The hook before an opening fails: the session is tried again soon and not shown as failed."""
    await hosting.instance("a", "connected")
    failing = [2]

    async def away(_instance_id: str) -> None:
        if failing[0]:
            failing[0] -= 1
            raise OutcomeUnknown

    hosting.note_opening = away  # type: ignore[method-assign,assignment]
    hosting.new_host()
    await hosting.host.start()

    await hosting.connected("a")
    assert hosting.host.sessions["a"].state.failures == 0


async def test_an_instance_that_is_gone_is_not_opened(hosting: Hosting) -> None:
    """Deleted between the reading of its row and the opening: nothing happens, loudly nothing."""
    await hosting.instance("a", "connected")
    await hosting.instance("b", "connected")
    hosting.behave("machine", "exit")
    await hosting.host.start()
    await hosting.pool.execute("delete from instance where id = 'a'")
    hosting.behave("machine", "well")

    await hosting.connected("b")
    assert hosting.asked("open_session", "a") == []


async def test_stop_leaves_no_process_and_the_next_host_takes_over(hosting: Hosting) -> None:
    """All machines are gone when `stop` returns, even one that hangs; another host then brings all back."""
    for name in ("a", "b", "c"):
        await hosting.instance(name, "connected")
    await hosting.host.start()
    await hosting.connected("a", "b", "c")
    pids = [machine.pid for machine in hosting.host.machines.values()]
    os.kill(hosting.pid_of("a"), signal.SIGSTOP)

    started_s = time.monotonic()
    await hosting.host.stop()

    assert time.monotonic() - started_s < 7
    assert not any(alive(pid) for pid in pids if pid)
    second = hosting.new_host()
    await second.start()
    await until(lambda: all(hosting.control.connected(name) for name in ("a", "b", "c")))


async def test_a_forgotten_machine_is_killed_before_another_takes_its_folder(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hung machine of a killed host holds its folder's lock: the next host ends it, and only it."""
    monkeypatch.setattr("tomada.machines.host.LEFTOVER_S", 0.3)
    await hosting.instance("a", "connected")
    folder = hosting.host.folders.machine(0)
    forgotten = await asyncio.create_subprocess_exec("flock", "--no-fork", str(folder / "lock"), "sleep", "300")
    await until(lambda: "sleep" in Path(f"/proc/{forgotten.pid}/cmdline").read_text().split("\0"))

    await hosting.host.start()

    await hosting.connected("a")
    assert await forgotten.wait() != 0


async def test_machines_that_host_nobody_go_but_for_one(hosting: Hosting) -> None:
    """A place is kept free for the next QR code; what is more than that is not kept running."""
    for name in ("a", "b", "c", "d"):
        await hosting.instance(name, "connected")
    await hosting.host.start()
    await hosting.connected("a", "b", "c", "d")
    assert len(hosting.host.machines) == 3

    for name in ("a", "b", "c", "d"):
        await hosting.control.remove(name, 2, force=True)

    await until(lambda: len(hosting.host.machines) == 1)


async def test_a_surplus_machine_that_is_given_a_session_stays(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Surplus machines stop one after another, in seconds; a QR code may be asked of the next one meanwhile."""
    hosting.settings = msgspec.structs.replace(hosting.settings, tend_s=3600.0)  # tended when the test says so
    hosting.new_host()
    for name in ("a", "b", "c", "d", "e", "f"):
        await hosting.instance(name, "connected" if name < "e" else None)
    await hosting.host.start()
    await hosting.connected("a", "b", "c", "d")
    for name in ("a", "b", "c", "d"):
        await hosting.control.remove(name, 2, force=True)
    await until(lambda: not hosting.host.figures().events_waiting)
    stop = Machine.stop

    async def while_others_ask(machine: Machine) -> None:
        for name in ("e", "f"):
            assert isinstance(await hosting.control.qr(name), QrCode)
        await stop(machine)

    with monkeypatch.context() as patched:
        patched.setattr(Machine, "stop", while_others_ask)
        await tend(hosting.host)

    given = {session.machine for session in hosting.host.sessions.values()}
    assert given == set(hosting.host.machines.values())
    assert len(given) == 2
    assert all(session.state.pairing for session in hosting.host.sessions.values())


async def test_a_session_that_is_being_let_go_is_not_asked_any_more(hosting: Hosting) -> None:
    """Regression: a QR code asked for in the moment of tidying up was asked of a stopped session, and never came."""
    await hosting.instance("a")
    await hosting.host.start()
    await hosting.control.qr("a")
    await hosting.control.restart("a")  # ends the round
    session = hosting.host.sessions["a"]
    await until(lambda: session.at_rest)

    going = asyncio.create_task(hosting.host.let_go(session))
    await asyncio.sleep(0)

    assert isinstance(await hosting.control.qr("a"), QrCode)
    await going
