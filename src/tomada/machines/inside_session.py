"""One session inside the machine: its engine session, its lane of sends, its receipts in order.

The lane sends one message at a time, in the order in which the host gave them. The outcome of each is told once:
MessageSent, or MessageFailed with what is known: refused, unknown, or `retry` (surely not sent, and not for the
message's own fault, so the host may give it again when the session is connected).
"""

import asyncio
import contextlib
from collections import deque
from threading import RLock

import msgspec
import structlog

from tomada.engine.port import (
    Engine,
    EngineEvent,
    EngineRefused,
    EngineSession,
    MessageFailed,
    MessageSent,
    OutcomeUnknown,
    SessionSpec,
)
from tomada.machines.inside_receipts import ReceiptHold
from tomada.machines.inside_told import Told
from tomada.machines.protocol import Send

log = structlog.get_logger("tomada.machine")

LANE_MAX = 1000
STOP_SENDING_S = 3.0
RETRY_PAUSE_S = 1.0  # after a send that may be given again, so that it cannot go round at full speed


class InsideSession:
    """Lives from OpenSession to CloseSession, or to the end of the process."""

    def __init__(self, engine: Engine, spec: SessionSpec, told: Told) -> None:
        self.spec = spec
        self._told = told
        self._lock = RLock()  # the engine's threads and the lane tell events
        self._hold = ReceiptHold(lambda event: told.tell(spec.instance_id, event))
        self._engine_session: EngineSession = engine.open(spec, self._emit)
        self._lane: deque[Send] = deque()
        self._wake = asyncio.Event()
        self._closed = asyncio.Event()
        self._lane_task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the engine's session; raises EngineRefused if its first connect fails."""
        await self._engine_session.start()
        self._lane_task = asyncio.create_task(self._run_lane())

    async def stop(self) -> None:
        """Finish the send under way, give back those that wait, stop the engine's session."""
        self._closed.set()
        self._wake.set()
        if self._lane_task is not None:
            done, _ = await asyncio.wait({self._lane_task}, timeout=STOP_SENDING_S)
            if not done:
                self._lane_task.cancel()
                await asyncio.wait({self._lane_task})
        while self._lane:
            await self._fail(self._lane.popleft(), "the session was closed before it was sent", retry=True)
        await self._engine_session.stop()

    def take(self, send: Send) -> None:
        """Queue a send; raises EngineRefused if that is not possible."""
        if self._closed.is_set() or len(self._lane) >= LANE_MAX:
            raise EngineRefused(
                "the session is closing" if self._closed.is_set() else "too many sends wait in this session"
            )
        self._lane.append(send)
        self._wake.set()

    async def phone_code(self, phone: str) -> str:
        """A pairing code; raises EngineRefused or OutcomeUnknown."""
        return await self._engine_session.phone_code(phone)

    async def logout(self) -> None:
        """Unlink at WhatsApp; raises EngineRefused or OutcomeUnknown."""
        await self._engine_session.logout()

    async def alive(self) -> bool:
        """Does WhatsApp still answer this session?"""
        return await self._engine_session.alive()

    def _emit(self, event: EngineEvent) -> None:
        with self._lock:
            self._hold.hear(event)

    async def _run_lane(self) -> None:
        while not self._closed.is_set():
            if not self._lane:
                self._wake.clear()
                await self._wake.wait()
                continue
            await self._send(self._lane.popleft())

    async def _send(self, send: Send) -> None:
        try:
            if send.content.typing_s > 0:
                await self._type(send)
            self._hold.send_begins()  # without the lock: a thread of the engine may wait for the journal with it
            sent = await self._engine_session.send(send.chat, send.content)
        except asyncio.CancelledError:
            await self._fail(send, "the machine stopped while it was being sent", unknown=True)
            raise
        except OutcomeUnknown as error:
            await self._fail(send, str(error), unknown=True)
        except EngineRefused as error:
            await self._fail(send, str(error), retry=error.retry)
            if error.retry:
                await self._pause(RETRY_PAUSE_S)
        except Exception:
            log.exception("send_failed", instance=self.spec.instance_id)
            await self._fail(send, "the engine failed", unknown=True)
        else:
            await self._outcome(MessageSent(send.zaap_id, **msgspec.structs.asdict(sent)), sent.wa_id)

    async def _type(self, send: Send) -> None:
        """Show typing for as long as asked; a session that is being closed does not wait for it."""
        await self._engine_session.show_typing(send.chat)
        await self._pause(send.content.typing_s)

    async def _pause(self, pause_s: float) -> None:
        """Wait, unless the session is being closed."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), pause_s)

    async def _fail(self, send: Send, words: str, *, unknown: bool = False, retry: bool = False) -> None:
        await self._outcome(MessageFailed(send.zaap_id, words, unknown, retry), None)

    async def _outcome(self, event: MessageSent | MessageFailed, wa_id: str | None) -> None:
        """Tell it from a worker thread: the journal may make us wait."""

        def tell() -> None:
            with self._lock:
                self._told.tell(self.spec.instance_id, event)
                self._hold.outcome_told(wa_id)

        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, tell))
