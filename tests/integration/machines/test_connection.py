"""The connection: what mends itself, what is answered while it is away, and how a dead one is found."""

import asyncio
from typing import Any

import pytest

from tests.integration.machines.driven import Driven
from tests.integration.machines.stage import Stage, jid
from tomada.engine import told
from tomada.machines.protocol import CloseSession, OpenSession, Probe


async def test_short_breaks_mend_themselves(stage: Stage, shared: Driven) -> None:
    """A cut connection and the stream errors 515 and 503: Disconnected, then Connected, without anybody's help."""
    mine = stage.fresh("cut")
    number = await stage.paired(shared, mine)
    other = await stage.network.phone("Other")
    breaks: tuple[dict[str, Any], ...] = (
        {"kind": "drop"},
        {"kind": "stream-error", "code": 515},
        {"kind": "stream-error", "code": 503},
    )
    for n, fault in enumerate(breaks, 1):
        await stage.network.fault(**fault, number=number)
        await stage.say(other, number, f"after {fault}")
        await shared.text(mine, f"after {fault}")
        assert len(shared.events(mine, told.Connected)) == n + 1
        assert len(shared.events(mine, told.Disconnected)) == n
    kinds = [type(news.event) for news in shared.happened if news.instance_id == mine]
    life = [kind for kind in kinds if kind in {told.Connected, told.Disconnected}]
    assert life == [told.Connected, *[told.Disconnected, told.Connected] * 3]


async def test_a_first_connect_that_fails(stage: Stage, shared: Driven) -> None:
    """If WhatsApp cannot be reached at an opening, it is refused for now; nothing tries on, and nothing is left."""
    mine = stage.fresh("first-connect")
    await stage.paired(shared, mine)
    await shared.done(CloseSession(mine))
    await stage.network.fault("refuse")
    assert (await shared.ask(OpenSession(stage.spec(mine)), 60)).kind == "retry"
    fresh = stage.fresh("first-connect")
    assert (await shared.ask(OpenSession(stage.spec(fresh, pair=True)), 60)).kind == "retry"
    assert (await shared.ask(Probe(mine))).kind == "retry"  # there is no such session
    await stage.network.well()
    before = len(shared.happened)
    await stage.reopen(shared, mine)
    assert {news.instance_id for news in shared.happened[before:]} <= {mine, *_others(shared, mine, fresh)}
    assert shared.events(fresh, told.QrIssued) == []


def _others(driven: Driven, *these: str) -> set[str]:
    return {news.instance_id for news in driven.happened} - set(these)


async def test_while_it_is_away(stage: Stage, shared: Driven) -> None:
    """A send comes back to be given again, a probe says no; with the network all is as before."""
    mine = stage.fresh("away")
    number = await stage.paired(shared, mine)
    other = await stage.network.phone("Other")
    await stage.network.fault("refuse")
    await stage.network.fault("drop", number=number)
    await shared.event(mine, told.Disconnected)
    await shared.send(mine, "3EB0AWAY", jid(other), "not now")
    failed = await shared.outcome(mine, "3EB0AWAY")
    assert isinstance(failed, told.SendFailed)
    assert failed.kind == "retry"
    assert await shared.done(Probe(mine)) is False
    await stage.network.well()
    await shared.until(lambda: len(shared.events(mine, told.Connected)) == 2)
    assert await shared.done(Probe(mine)) is True
    await shared.send(mine, "3EB0AWAY", jid(other), "now")
    await shared.until(lambda: len(shared.outcomes(mine, "3EB0AWAY")) == 2)
    assert await stage.texts(other) == ["now"]


async def test_probe(stage: Stage, shared: Driven) -> None:
    """A session that answers keepalives and nothing else is found deaf; opened anew it is alive."""
    mine = stage.fresh("probed")
    number = await stage.paired(shared, mine)
    assert await shared.done(Probe(mine)) is True
    await stage.network.fault("deaf", number=number)
    assert await shared.done(Probe(mine)) is False
    await shared.done(CloseSession(mine))
    await stage.reopen(shared, mine)
    assert await shared.done(Probe(mine)) is True


async def test_a_break_before_the_acknowledgement(stage: Stage, shared: Driven) -> None:
    """A message that WhatsApp did not acknowledge before a break has one outcome, and given again is one message."""
    mine = stage.fresh("no-ack-break")
    number = await stage.paired(shared, mine)
    other = await stage.network.phone("Other")
    await stage.network.fault("no-ack", number=number)
    await shared.send(mine, "3EB0NOACKBREAK", jid(other), "maybe")
    async with asyncio.timeout(20):
        while not await stage.texts(other):
            await asyncio.sleep(0.05)
    await stage.network.well()
    await stage.network.fault("drop", number=number)
    first = await shared.outcome(mine, "3EB0NOACKBREAK", 100)
    assert isinstance(first, told.Sent) or first.kind == "unknown"
    await shared.until(lambda: len(shared.events(mine, told.Connected)) == 2)
    await shared.send(mine, "3EB0NOACKBREAK", jid(other), "maybe")
    await shared.until(lambda: len(shared.outcomes(mine, "3EB0NOACKBREAK")) == 2)
    assert isinstance(shared.outcomes(mine, "3EB0NOACKBREAK")[1], told.Sent)
    assert await stage.texts(other) == ["maybe"]


@pytest.mark.slow
async def test_no_acknowledgement(stage: Stage, shared: Driven) -> None:
    """Without an acknowledgement the outcome is unknown in the end; the same id again is the same message."""
    mine = stage.fresh("no-ack")
    number = await stage.paired(shared, mine)
    other = await stage.network.phone("Other")
    await stage.network.fault("no-ack", number=number)
    await shared.send(mine, "3EB0NOACK", jid(other), "maybe")
    failed = await shared.outcome(mine, "3EB0NOACK", 110)
    assert isinstance(failed, told.SendFailed)
    assert failed.kind == "unknown"
    await stage.network.well()
    await shared.send(mine, "3EB0NOACK", jid(other), "maybe")
    await shared.until(lambda: len(shared.outcomes(mine, "3EB0NOACK")) == 2)
    assert isinstance(shared.outcomes(mine, "3EB0NOACK")[1], told.Sent)
    assert await stage.texts(other) == ["maybe"]
