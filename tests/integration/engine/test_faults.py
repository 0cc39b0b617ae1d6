"""What the library and the network do on bad days, and what we see of it: as little as can be."""

import asyncio

from tests.integration.machines.driven import Driven, e2e
from tests.integration.machines.stage import Stage, jid
from tomada.engine import told
from tomada.machines.protocol import CloseSession, OpenSession, Outgoing, Probe, RequestPhoneCode, Send


async def test_sessions_that_come_and_go_among_calls(stage: Stage) -> None:
    """Sessions start and stop at once, while others are asked without pause; the process lives."""
    async with stage.machine("coming-and-going") as driven:
        going, calm = ([stage.fresh(kind) for _ in range(3)] for kind in ("going", "calm"))
        for name in (*going, *calm):
            await stage.paired(driven, name)
        over = asyncio.Event()

        async def call(name: str) -> int:
            count = 0
            while not over.is_set():
                assert await driven.done(Probe(name)) is True
                count += 1
            return count

        async def cycle(name: str) -> None:
            for _ in range(5):
                await driven.done(CloseSession(name))
                assert await driven.open(stage.spec(name))

        callers = [asyncio.create_task(call(name)) for name in calm]
        await asyncio.gather(*(cycle(name) for name in going))
        over.set()
        assert min(await asyncio.gather(*callers)) > 0
        assert all(not driven.events(name, told.Disconnected) for name in calm)
        assert await driven.end() == 0


async def test_calls_on_a_session_that_stops(stage: Stage, shared: Driven) -> None:
    """Calls that meet a stopping session are answered, one way or the other; afterwards there is none."""
    mine = stage.fresh("stopping")
    number = await stage.paired(shared, mine)
    closing = asyncio.create_task(shared.done(CloseSession(mine)))
    commands = (
        Probe(mine),
        RequestPhoneCode(mine, number),
        Send(mine, Outgoing("3EB0STOPPING", jid(number), e2e.Message(conversation="x").SerializeToString())),
    )
    answers = await asyncio.gather(*(shared.ask(command) for command in commands * 10))
    assert {answer.kind for answer in answers} <= {"", "retry", "refused", "unknown"}
    await closing
    for command in commands:
        assert (await shared.ask(command)).kind == "retry"
    await stage.reopen(shared, mine)


async def test_a_receipt_that_is_no_news(stage: Stage, shared: Driven) -> None:
    """WhatsApp's receipt for a medium that is gone is told to nobody, and the session hears on."""
    mine = stage.fresh("server-error")
    number = await stage.paired(shared, mine)
    await stage.network.fault("server-error-receipt", number=number)
    await stage.say(await stage.network.phone("Other"), number, "do you hear?")
    await shared.text(mine, "do you hear?")
    assert shared.events(mine, told.Receipt) == []
    assert shared.events(mine, told.Disconnected) == []


async def test_a_predecessor_does_not_reach_into_its_successor(stage: Stage, shared: Driven) -> None:
    """A session that was opened several times over stays connected."""
    mine = stage.fresh("lives")
    await stage.paired(shared, mine)
    for _ in range(5):
        await shared.done(CloseSession(mine))
        await stage.reopen(shared, mine)
    assert await shared.done(Probe(mine)) is True
    assert shared.events(mine, told.Replaced) == []
    assert shared.events(mine, told.Disconnected) == []


async def test_rounds_that_are_given_up_leave_nothing(stage: Stage, shared: Driven) -> None:
    """Ten rounds of QR codes, closed and begun again: each shows its own code, and none goes on beside the next."""
    mine = stage.fresh("rounds")
    for n in range(10):
        await stage.begin(shared, mine)
        assert len(shared.events(mine, told.QrIssued)) == n + 1
        assert (await shared.ask(OpenSession(stage.spec(mine, pair=True)))).kind == "refused"
        await shared.done(CloseSession(mine))
    codes = [event.code for event in shared.events(mine, told.QrIssued)]
    assert len(set(codes)) == 10
    assert shared.events(mine, told.PairingEnded) == []
