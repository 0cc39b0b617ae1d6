"""What the machine does with a command: those of one instance in order, those of different ones at once."""

import asyncio
from collections import defaultdict

import structlog

from tomada.engine.port import Engine, EngineRefused, OutcomeUnknown, SessionSpec
from tomada.machines.inside_session import InsideSession
from tomada.machines.inside_told import Told
from tomada.machines.protocol import (
    Answer,
    CloseSession,
    Command,
    Logout,
    OpenSession,
    Probe,
    Request,
    RequestPhoneCode,
    Send,
)

log = structlog.get_logger("tomada.machine")


class Inside:
    """All sessions of this machine."""

    def __init__(self, engine: Engine, told: Told) -> None:
        self._engine = engine
        self._told = told
        self._sessions: dict[str, InsideSession] = {}
        self._turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # one opening or closing at a time

    async def answer(self, request: Request) -> Answer:
        """Carry out a request; never raises."""
        try:
            value = await self._carry_out(request.command)
        except OutcomeUnknown as error:
            return Answer(request.id, error=str(error), unknown=True)
        except EngineRefused as error:
            return Answer(request.id, error=str(error))
        except Exception:
            log.exception("command_failed", command=type(request.command).__name__)
            return Answer(request.id, error="the machine failed to do this; its log says more", unknown=True)
        recycle = self._engine.recycle_due() if isinstance(request.command, Probe) else None
        if recycle:
            log.warning("recycle_due", reason=recycle)
        return Answer(request.id, value=value, recycle=recycle)

    async def stop(self) -> None:
        """Close every session, together."""
        closings = (self._close(instance_id) for instance_id in list(self._sessions))
        for problem in await asyncio.gather(*closings, return_exceptions=True):
            if problem is not None:
                log.error("session_did_not_close", error=repr(problem))

    async def _carry_out(self, command: Command) -> str | None:
        match command:
            case Send():
                self._session(command.instance_id).take(command)
                return None
            case Probe():
                return "yes" if await self._session(command.instance_id).alive() else "no"
            case RequestPhoneCode():
                return await self._session(command.instance_id).phone_code(command.phone)
            case OpenSession():
                await self._open(command.spec)
            case CloseSession():
                await self._close(command.instance_id)
            case Logout():
                await self._session(command.instance_id).logout()
                await self._close(command.instance_id)
        return None

    def _session(self, instance_id: str) -> InsideSession:
        session = self._sessions.get(instance_id)
        if session is None:
            raise EngineRefused("this machine has no such session")
        return session

    async def _open(self, spec: SessionSpec) -> None:
        async with self._turns[spec.instance_id]:
            if spec.instance_id in self._sessions:
                raise EngineRefused("this session is open already")
            session = self._sessions[spec.instance_id] = InsideSession(self._engine, spec, self._told)
            try:
                await session.start()
            except BaseException:
                del self._sessions[spec.instance_id]
                raise

    async def _close(self, instance_id: str) -> None:
        async with self._turns[instance_id]:
            session = self._sessions.get(instance_id)
            if session is not None:
                try:
                    await session.stop()
                finally:
                    del self._sessions[instance_id]
