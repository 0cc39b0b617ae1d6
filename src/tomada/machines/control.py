"""What may be asked of an instance's session: pair, restart, disconnect, send, look, remove. Every call has a deadline.

Errors are of the tree in errors.py. A call that ends in MachineTimeout or OutcomeUnknown may have taken effect.

Removing a machine goes by the keys in the session store, under its epoch, not by what a row says: an instance that was
subscribed again has another row by now, while its former device is still linked. Where keys are, the session is opened
once more and logged out; only what WhatsApp was told, or says itself (it knows no such device), counts as unlinked.
"""

import asyncio
from collections.abc import Callable
from weakref import WeakValueDictionary

import msgspec
import structlog

from tomada.engine import building, port
from tomada.engine.addresses import jid_of
from tomada.errors import MachineTimeout, NotConnected, NotFound, OutcomeUnknown, Refused, Unavailable
from tomada.machines import protocol
from tomada.machines import session_state as state_machine
from tomada.machines.host import Host
from tomada.machines.session import HostedSession

log = structlog.get_logger(__name__)

CODE_LEFT_MS = 1000  # a code that expires sooner is not worth showing
REMOVAL_CONNECT_S = 20.0  # an instance that is removed is connected once more, to be unlinked
CLOSE_S = 35.0
REMOVAL_S = 100.0  # all of a removal; shorter than the claim of a deletion (instances/deletion.py)

# What an erasure receipt says of a removal.
NOT_TOLD = "WhatsApp could not be told; a linked device may remain on the phone"
KEYS_ERASED = "unlinked from the phone, and the keys of its session erased"


class QrCode(msgspec.Struct, frozen=True):
    """A QR text to scan, and when it expires."""

    code: str
    expires_ms: int


class AlreadyConnected(msgspec.Struct, frozen=True):
    """There is nothing to pair: the session is connected."""


class SessionStatus(msgspec.Struct, frozen=True):
    """A session as a caller sees it; `reason` is words for a person."""

    condition: state_machine.Condition
    wanted: bool
    reason: str | None = None
    phone: str | None = None
    lid: str | None = None
    push_name: str | None = None
    is_business: bool = False
    platform: str | None = None
    retry_after_ms: int | None = None
    pairing: bool = False


class SessionControl:
    """The calls. A thin layer over the host."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._removals = WeakValueDictionary[str, asyncio.Lock]()

    def connected(self, instance_id: str) -> int | None:
        """The epoch of the machine that can take a send now, None if there is none."""
        session = self._host.sessions.get(instance_id)
        return session.epoch if session is not None and session.state.condition == "connected" else None

    async def status(self, instance_id: str) -> SessionStatus:
        """The session as it is now. NotFound, or Unavailable when the database is away."""
        state = await self._host.look(instance_id)
        if state is None:
            raise NotFound
        return SessionStatus(**{name: getattr(state, name) for name in SessionStatus.__struct_fields__})

    async def qr(self, instance_id: str) -> QrCode | AlreadyConnected:
        """The code to scan now; starts a round of codes if none is on.

        Refused if a phone is paired and the session is merely not connected; MachineTimeout if no code comes in time.
        """
        session = await self._session(instance_id)
        if session.state.wanted and session.state.condition == "connecting":  # the phone has scanned it this moment
            await session.until(lambda: session.state.condition != "connecting", self._host.settings.qr_timeout_s)
        if session.state.condition == "connected":
            return AlreadyConnected()
        code = await self._round_of_codes(session)
        return QrCode(code.code, code.expires_ms) if code is not None else AlreadyConnected()

    async def phone_code(self, instance_id: str, phone: str) -> str:
        """A pairing code (`ABCD-1234`) for a number; starts a round of codes if none is on. Errors as `qr`."""
        session = await self._session(instance_id)
        if session.state.condition == "connected" or await self._round_of_codes(session) is None:
            raise Refused("This instance is connected already")
        assert session.machine is not None
        timeout_s = self._host.settings.phone_code_timeout_s
        try:
            code = await session.machine.request(protocol.RequestPhoneCode(instance_id, phone), timeout_s)
        except port.EngineRefused as refusal:
            raise Refused(str(refusal)) from None
        return msgspec.json.decode(code, type=str)

    async def restart(self, instance_id: str) -> None:
        """Stop the session and start it again with its keys; returns at once. Ends a round of codes.

        Refused while WhatsApp has banned the number: asking again makes that longer.
        """
        session = await self._session(instance_id)
        if session.state.condition == "banned" and session.state.wanted:
            raise Refused(state_machine.WORDS["banned"])
        session.happen(state_machine.AskedToRestart())

    async def restore(self, instance_id: str) -> None:
        """Bring a session back that rests (replaced, failed); harmless when connected. Refused: banned or unpaired."""
        session = await self._session(instance_id)
        if not session.state.wanted:
            raise Refused("There is no session to restore: read a QR code first")
        if session.state.condition != "connected":
            await self.restart(instance_id)

    async def transmit(self, instance_id: str, message_id: str, chat: str, content: port.Content) -> None:
        """Hand a send to the machine, under our id for it; its outcome is an event.

        NotConnected, Unavailable, EngineRefused: it was surely not taken. If that is not sure, this returns as if it
        had been: an event tells the outcome, or the next opening of the session settles it as unknown.
        """
        session = self._host.sessions.get(instance_id)
        if session is None or session.state.condition != "connected" or session.machine is None:
            raise NotConnected
        outgoing = protocol.Outgoing(
            wa_id=message_id,
            chat=str(jid_of(building.chat_of(chat, content))),
            raw=building.message_of(chat, content, self._host.clock.now_ms()),
            shown_as=str(jid_of(chat)),
            typing_s=content.typing_s,
        )
        try:
            await session.machine.request(protocol.Send(instance_id, outgoing), self._host.settings.send_timeout_s)
        except (MachineTimeout, OutcomeUnknown):
            log.warning("session.send_unanswered", instance=instance_id, message_id=message_id)

    async def logout(self, instance_id: str) -> bool:
        """Unlink from WhatsApp as far as that can be done now, and forget the keys. Harmless when there are none.

        False if WhatsApp could not be told, so that the phone still shows the device until it notices by itself.
        """
        return await self._unlink(await self._session(instance_id))

    async def remove(self, instance_id: str, epoch: int, *, force: bool) -> str:
        """Log out and stop hosting the machines from before an epoch; idempotent. Within REMOVAL_S, else TimeoutError.

        Returns a note for the erasure receipt, empty if nothing was there. Without `force` it raises Unavailable when
        WhatsApp cannot be told now. One at a time per instance: two deletions of it may be open.
        """
        turn = self._removals.setdefault(instance_id, asyncio.Lock())
        async with asyncio.timeout(REMOVAL_S), turn:
            notes = [
                await self._remove(instance_id, former, force=force)
                for former in await self._host.former(instance_id, epoch)
            ]
            await self._drained(instance_id)
        return max(notes, key=("", KEYS_ERASED, NOT_TOLD).index, default="")

    async def erase_files(self, instance_id: str, epoch: int) -> int:
        """Remove the keys of the machines from before an epoch that are left; returns how many. Idempotent."""
        session = self._host.sessions.get(instance_id)
        if session is not None and session.epoch < epoch:
            raise Unavailable("This machine is to be removed first")
        return await self._host.erase_former_keys(instance_id, epoch)

    # --- inside ---

    async def _session(self, instance_id: str) -> HostedSession:
        session = await self._host.hosted(instance_id)
        if session is None:
            raise NotFound
        return session

    async def _round_of_codes(self, session: HostedSession) -> port.QrIssued | None:
        """A code of the round that is on or starts now; None if the session is connected before there is one."""
        if session.state.wanted:
            raise Refused("A phone is paired with this instance; use restore-session, or disconnect it first")
        session.happen(state_machine.AskedToPair())

        def fresh() -> bool:
            return session.code is not None and session.code.expires_ms > self._host.clock.now_ms() + CODE_LEFT_MS

        await session.until(lambda: fresh() or not session.state.pairing, self._host.settings.qr_timeout_s)
        state = session.state
        if state.wanted:
            return None
        if not state.pairing:
            raise Unavailable(state.reason or "The round of QR codes ended, please ask again")
        if not fresh():
            session.happen(state_machine.NoCode())
            raise MachineTimeout("No QR code came in time, please ask again")
        return session.code

    async def _remove(self, instance_id: str, epoch: int, *, force: bool) -> str:
        """Remove one machine; its note."""
        session = self._host.sessions.get(instance_id)
        if session is not None and session.epoch != epoch:
            raise Unavailable("Another machine of this instance runs")
        if session is not None and not await self._is_paired(session):
            await self._host.let_go(session)
            session = None
        if session is None and not await self._host.has_keys(instance_id, epoch):
            return ""
        session = session or await self._host.recalled(instance_id, epoch)
        await self._reached(session)
        machine, linked = session.machine, session.state.wanted
        told = await self._unlink(session, insist=not force)
        await self._host.let_go(session)
        if machine is not None and self._host.settings.instances_per_machine == 1:
            machine.recycle("the instance that it was dedicated to was removed")  # nobody else is given its memory
        if not told:
            return NOT_TOLD
        return KEYS_ERASED if linked else ""

    async def _is_paired(self, session: HostedSession) -> bool:
        """Whether a phone is paired. A round of codes is ended first; one may scan it in this very moment."""
        if not session.state.wanted:
            session.happen(state_machine.AskedToRestart())
            await self._until(session, lambda: session.at_rest or session.state.wanted)
        return session.state.wanted

    async def _until(self, session: HostedSession, closed: Callable[[], bool]) -> None:
        """Wait until nothing of a session runs: nobody may take its place before."""
        if not await session.until(closed, CLOSE_S):
            raise Unavailable("The session does not close")

    async def _reached(self, session: HostedSession) -> None:
        """Have it connected, as far as that can be done now; or WhatsApp says that it knows no such device."""
        if session.state.condition != "connected":
            session.happen(state_machine.AskedToRestart())
            await session.until(
                lambda: session.state.condition == "connected" or not session.state.wanted, REMOVAL_CONNECT_S
            )

    async def _unlink(self, session: HostedSession, *, insist: bool = False) -> bool:
        told = not session.state.wanted or await self._log_out(session)
        if not told and insist:
            raise Unavailable("WhatsApp could not be told that this device is to be unlinked")
        if session.state.wanted:  # else the machine itself told of the end
            self._host.tell(session, port.LoggedOut("Disconnected by request"))
        session.happen(state_machine.Forgotten())  # its row after the event: cut short, the end is found and told anew
        await self._until(session, lambda: session.at_rest)
        return told

    async def _log_out(self, session: HostedSession) -> bool:
        machine = session.machine
        if session.state.condition != "connected" or machine is None:
            return False
        try:
            await machine.request(protocol.Logout(session.instance_id), self._host.settings.logout_timeout_s)
        except (port.EngineRefused, Unavailable) as error:
            log.warning("session.not_unlinked", instance=session.instance_id, error=type(error).__name__)
            return False
        return True

    async def _drained(self, instance_id: str) -> None:
        """What was told before is committed before the instance goes."""
        try:
            async with asyncio.timeout(self._host.settings.drain_timeout_s):
                await self._host.committed(instance_id)
        except TimeoutError:
            raise Unavailable("Events of this instance still wait for the database") from None
