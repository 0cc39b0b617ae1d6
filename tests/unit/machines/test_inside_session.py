"""A session inside the machine, with an engine that does as it is told: order, outcomes, and the end."""

import asyncio
from collections.abc import Callable

import pytest

from tomada.engine.port import (
    Content,
    Emit,
    EngineEvent,
    EngineRefused,
    MessageFailed,
    MessageReceived,
    MessageSent,
    OutcomeUnknown,
    ReceiptReceived,
    Sent,
    SessionSpec,
    Text,
    TextReceived,
)
from tomada.machines import inside_session
from tomada.machines.inside_session import InsideSession
from tomada.machines.inside_told import Told
from tomada.machines.protocol import Send


class Collected(Told):
    """Collects instead of telling."""

    def __init__(self) -> None:
        self.events: list[EngineEvent] = []

    def tell(self, instance_id: str, event: EngineEvent) -> None:
        """Keep it."""
        self.events.append(event)


class NotNow(EngineRefused):
    """Refused for now."""

    retry = True


class Scripted:
    """An engine session whose sends run through a function; also the engine that opens it."""

    name, version = "scripted", "1"

    def __init__(self, answer: Callable[[str], Sent]) -> None:
        self.emit: Emit = lambda _: None
        self.sent: list[str] = []
        self.stopped = False
        self.answer = answer
        self.during: Callable[[], None] = lambda: None
        self.hold: asyncio.Event | None = None

    def open(self, _: SessionSpec, emit: Emit) -> "Scripted":
        """Itself."""
        self.emit = emit
        return self

    def recycle_due(self) -> str | None:
        """Never."""
        return None

    async def start(self) -> None:
        """Nothing to start."""

    async def stop(self) -> None:
        """Note it."""
        self.stopped = True

    async def send(self, chat: str, content: Content) -> Sent:
        """Send as the script says."""
        self.sent.append(content.message)
        self.during()
        if self.hold is not None:
            await self.hold.wait()
        return self.answer(content.message)

    async def show_typing(self, chat: str) -> None:
        """Nobody watches."""

    async def phone_code(self, phone: str) -> str:
        """Some code."""
        return "ABCD-1234"

    async def logout(self) -> None:
        """Nothing to do."""

    async def alive(self) -> bool:
        """Always."""
        return True


def give(session: InsideSession, *texts: str) -> None:
    """Hand over sends whose id and text are the same."""
    for text in texts:
        session.take(Send("i", text, "1", Text(text)))


async def opened(engine: Scripted) -> tuple[InsideSession, Collected]:
    """A started session and what it tells."""
    told = Collected()
    session = InsideSession(engine, SessionSpec("i", "store", "name"), told)
    await session.start()
    return session, told


async def until_told(told: Collected, count: int) -> None:
    """Wait for that many events."""
    async with asyncio.timeout(5):
        while len(told.events) < count:
            await asyncio.sleep(0.005)


async def test_outcomes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way a send can end has its own outcome, in order; a bug of the engine's is an unknown one."""
    monkeypatch.setattr(inside_session, "RETRY_PAUSE_S", 0.01)
    problems = {"bad": EngineRefused("no"), "later": NotNow("off"), "maybe": OutcomeUnknown("?"), "bug": KeyError("x")}

    def answer(text: str) -> Sent:
        if text in problems:
            raise problems[text]
        return Sent(f"wa-{text}", 5)

    session, told = await opened(Scripted(answer))
    give(session, "a", *problems, "z")
    await until_told(told, 6)
    assert told.events == [
        MessageSent("a", "wa-a", 5),
        MessageFailed("bad", "no", unknown=False),
        MessageFailed("later", "off", unknown=False, retry=True),
        MessageFailed("maybe", "?", unknown=True),
        MessageFailed("bug", "the engine failed", unknown=True),
        MessageSent("z", "wa-z", 5),
    ]
    await session.stop()


async def test_receipt_during_a_send() -> None:
    """A receipt that comes while its message is still being sent is told after MessageSent; a message is not held."""
    engine = Scripted(lambda text: Sent(f"wa-{text}", 5))
    session, told = await opened(engine)
    receipt = ReceiptReceived("delivered", ("wa-a",), "1", None, is_group=False, at_ms=1)
    message = MessageReceived("wa-x", "1", None, "1", None, False, False, 1, "", TextReceived("hello"))

    def during() -> None:
        engine.emit(receipt)
        engine.emit(message)

    engine.during = during
    give(session, "a")
    await until_told(told, 3)
    assert told.events == [message, MessageSent("a", "wa-a", 5), receipt]
    await session.stop()


async def test_receipt_while_typing() -> None:
    """While typing is shown nothing is being sent yet, so a receipt is told at once: it is of an earlier message."""
    receipt = ReceiptReceived("read", ("earlier",), "1", None, is_group=False, at_ms=1)

    class Interrupted(Scripted):
        async def show_typing(self, chat: str) -> None:
            self.emit(receipt)

    session, told = await opened(Interrupted(lambda text: Sent(f"wa-{text}", 5)))
    session.take(Send("i", "a", "1", Text("a", typing_s=0.01)))
    await until_told(told, 2)
    assert told.events == [receipt, MessageSent("a", "wa-a", 5)]
    await session.stop()


async def test_closing_finishes_one_and_gives_back_the_rest() -> None:
    """The send under way comes to its end, those behind it are given back, and none is taken any more."""
    engine = Scripted(lambda text: Sent(f"wa-{text}", 5))
    engine.hold = asyncio.Event()
    session, told = await opened(engine)
    give(session, "under way", "behind")
    while not engine.sent:
        await asyncio.sleep(0.005)
    stopping = asyncio.create_task(session.stop())
    await asyncio.sleep(0.05)
    with pytest.raises(EngineRefused):
        give(session, "too late")
    engine.hold.set()
    await stopping
    words = "the session was closed before it was sent"
    assert told.events == [
        MessageSent("under way", "wa-under way", 5),
        MessageFailed("behind", words, unknown=False, retry=True),
    ]
    assert engine.stopped


async def test_closing_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A send that does not come back in time has an unknown outcome, and the session closes."""
    monkeypatch.setattr(inside_session, "STOP_SENDING_S", 0.05)
    engine = Scripted(lambda text: Sent(f"wa-{text}", 5))
    engine.hold = asyncio.Event()
    session, told = await opened(engine)
    give(session, "stuck")
    while not engine.sent:
        await asyncio.sleep(0.005)
    await asyncio.wait_for(session.stop(), 2)
    assert told.events == [MessageFailed("stuck", "the machine stopped while it was being sent", unknown=True)]
    assert engine.stopped


async def test_the_lane_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """More sends than LANE_MAX are refused, so the host keeps them."""
    monkeypatch.setattr(inside_session, "LANE_MAX", 2)
    session, _ = await opened(Scripted(lambda text: Sent(text, 5)))
    with pytest.raises(EngineRefused, match="too many"):
        give(session, "a", "b", "c")
    await session.stop()
