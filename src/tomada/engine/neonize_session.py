"""The session of one instance: the port's calls and events over one client of the library.

A session lives once: `start`, then events until one of the final ones (or `stop`), and never again; whoever wants it
back opens another. It does not decide when to try again: that is the host's, which knows all sessions (backoff,
jitter, budget). Short breaks the library mends by itself and are told as Disconnected, then Connected.

Events are translated on the library's thread that brings them and given to `emit` there, which returns when they are
in the machine's journal: nothing lies in between, so the loss window is as narrow as this library allows.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from threading import Timer
from typing import Any, TypeVar

import msgspec
import structlog

from tomada.engine import neonize_events, neonize_library
from tomada.engine.neonize_addresses import GROUP, PERSON, Own, address, jid_of, lid_of
from tomada.engine.neonize_client import Clients
from tomada.engine.neonize_content import chat_of, message_of
from tomada.engine.neonize_failures import NotConnected, ended, send_failure, was_answered
from tomada.engine.neonize_library import SendError
from tomada.engine.neonize_names import Names
from tomada.engine.neonize_protos import glue
from tomada.engine.neonize_received import received
from tomada.engine.neonize_store import store_text
from tomada.engine.port import (
    Connected,
    ConnectFailed,
    Content,
    Disconnected,
    Emit,
    EngineEvent,
    EngineRefused,
    Named,
    OutcomeUnknown,
    Outdated,
    Paired,
    PairingEnded,
    QrIssued,
    Replaced,
    Sent,
    SessionEnded,
    SessionSpec,
)
from tomada.kit.clock import Clock

log = structlog.get_logger("tomada.engine")

CALL_DEADLINE_S = 20.0
FIRST_QR_S, LATER_QR_S = 60, 20  # how long the library shows each code
PHONES_CACHED_MAX = 10_000
NAME_PAUSE_S, NAME_PAUSE_MAX_S = 0.25, 16.0  # between looks for our own name; each is twice the one before
T = TypeVar("T")


class Limits(msgspec.Struct, frozen=True):
    """How long the engine waits for WhatsApp, and how much a process may use up before it should be recycled."""

    send_deadline_s: float = 90.0  # the library itself stops waiting for an acknowledgement after 75 s
    probe_deadline_s: float = 10.0
    login_deadline_s: float = 10.0  # from pairing to login; the library can miss its cue to connect again
    abandoned_max: int = 200  # threads of given-up rounds of QR codes
    started_max: int = 2000  # clients started: each keeps two or three of some 16,000 file handles


class NeonizeSession:
    """See `EngineSession` in port.py."""

    def __init__(
        self, clients: Clients, spec: SessionSpec, emit: Emit, clock: Clock, pool: Executor, limits: Limits
    ) -> None:
        self._spec = spec
        self._emit = emit
        self._clock = clock
        self._pool = pool
        self._limits = limits
        self._client = clients.new(spec.instance_id, self)
        self._own = Own()
        self._phones: dict[str, str] = {}  # hidden user -> number
        self._names = Names(self._client, pool)
        self._qr_count = 0
        self._over = False  # a final event was told
        self._sending: asyncio.Future[Sent] | None = None
        self._probing: asyncio.Future[Any] | None = None
        self._login: Timer | None = None
        self._own_name = ""  # as it was told last
        self._name_timer: Timer | None = None

    # --- the port ---

    async def start(self) -> None:
        """Connect or begin a round of QR codes; raises EngineRefused if the first connect fails."""
        spec = self._spec
        await self._in_thread(self._client.start, store_text(spec.store), spec.session_name, spec.proxy_url)

    async def stop(self) -> None:
        """Disconnect, let out what the engine still holds, release what it gives back."""
        self._over = True
        self._names.stop()
        for timer in (self._login, self._name_timer):
            if timer is not None:
                timer.cancel()
        try:
            await asyncio.wait_for(asyncio.shield(self._in_thread(self._client.stop)), self._client.stop_wait_s)
        except TimeoutError:
            log.warning("connect_left_behind", instance=self._spec.instance_id)

    async def send(self, chat: str, content: Content) -> Sent:
        """Send one message; one at a time. Raises NotConnected (surely not sent), EngineRefused or OutcomeUnknown."""
        to, message = jid_of(chat_of(chat, content)), message_of(chat, content, self._clock.now_ms())
        await self._last_send_is_back()
        self._must_be(self._client.paired, "not connected")
        self._sending = self._in_thread(self._send, chat, to, message)
        self._sending.add_done_callback(lambda future: future.exception())  # seen, though nobody may wait any more
        try:
            return await asyncio.wait_for(asyncio.shield(self._sending), self._limits.send_deadline_s)
        except TimeoutError:
            raise OutcomeUnknown("no answer from WhatsApp in time; it may have been sent") from None
        except SendError as error:
            raise send_failure(str(error), to.Server) from None

    async def show_typing(self, chat: str) -> None:
        """Show the other side that a text is being written; what goes wrong is only logged."""
        try:
            self._must_be(self._client.paired, "not connected")
            await self._call(self._client.library.show_typing, self._client.uuid, jid_of(chat))
        except (EngineRefused, OutcomeUnknown) as error:
            log.info("typing_not_shown", instance=self._spec.instance_id, error=str(error))

    async def phone_code(self, phone: str) -> str:
        """A pairing code, while a round of QR codes is on."""
        self._must_be(self._client.running and not self._client.paired and self._qr_count > 0, "no round of QR codes")
        return await self._call(self._client.library.pair_phone, self._client.uuid, phone)

    async def logout(self) -> None:
        """Unlink at WhatsApp; the caller stops the session afterwards."""
        self._must_be(self._client.paired, "not connected")
        await self._call(self._client.library.logout, self._client.uuid)

    async def alive(self) -> bool:
        """Did WhatsApp's server answer a question within the deadline? Keepalives prove less."""
        if not self._client.paired:
            return False
        if self._probing is None or self._probing.done():  # one question at a time, however many ask
            self._probing = self._in_thread(self._probe)
        try:
            error = await asyncio.wait_for(asyncio.shield(self._probing), self._limits.probe_deadline_s)
        except TimeoutError:
            return False
        return was_answered(error)

    # --- heard from the client, on the library's threads ---

    def on_qr(self, code: str) -> None:
        """A QR text."""
        self._qr_count += 1
        lives_s = FIRST_QR_S if self._qr_count == 1 else LATER_QR_S
        self._tell(QrIssued(code, self._clock.now_ms() + lives_s * 1000))

    def on_round_ended(self, status: str) -> None:
        """The round of QR codes is over without a phone."""
        self._end(Outdated() if status == "err-client-outdated" else PairingEnded(status))

    def on_event(self, code: int, data: bytes) -> None:
        """An event of the pump."""
        event = self._translated(code, data)
        if isinstance(event, Paired):
            self._await_login()
        elif isinstance(event, Connected) and self._login is not None:
            self._login.cancel()
        if event is not None and code in _FINAL:
            self._end(event)
        elif event is not None:
            self._tell(event)
        if isinstance(event, Connected):
            self._own_name = event.push_name
            if not event.push_name:
                self._await_name(NAME_PAUSE_S)

    def on_connect_failed(self, reason: str) -> None:
        """The first connect took longer to fail than an opening waits."""
        self._end(ConnectFailed(0, reason))

    def on_ended(self, reason: str) -> None:
        """The pump ended by itself: deaf from here on, whatever it looks like."""
        self._end(ended(reason))

    # --- inside ---

    def _translated(self, code: int, data: bytes) -> EngineEvent | None:
        own, phone_of = self._own, self._phone_of
        match code:
            case neonize_library.MESSAGE:
                return received(glue.Message.FromString(data), own, phone_of, self._names.of)
            case neonize_library.GROUP_CHANGE:
                change = glue.GroupInfoEvent.FromString(data)
                if change.HasField("Name"):
                    self._names.renamed(change.JID, change.Name.Name)
                return None
            case neonize_library.RECEIPT:
                return neonize_events.receipt(glue.Receipt.FromString(data), own, phone_of)
            case neonize_library.CHAT_PRESENCE:
                return neonize_events.chat_presence(glue.ChatPresence.FromString(data), own, phone_of)
            case neonize_library.PRESENCE:
                return neonize_events.presence(glue.Presence.FromString(data), own, phone_of)
            case neonize_library.CONNECTED:
                self._names.login()
                return neonize_events.connected(self._me())
            case neonize_library.DISCONNECTED:
                return Disconnected("the connection to WhatsApp broke")
            case neonize_library.PAIR_STATUS:
                status = glue.PairStatus.FromString(data)
                return PairingEnded(status.Error) if status.Error else neonize_events.paired(self._me())
            case neonize_library.LOGGED_OUT:
                return neonize_events.logged_out(glue.LoggedOut.FromString(data))
            case neonize_library.REPLACED:
                return Replaced()
            case neonize_library.BAN:
                return neonize_events.banned(glue.TemporaryBan.FromString(data), self._clock.now_ms())
            case neonize_library.OUTDATED:
                return Outdated()
            case neonize_library.CONNECT_FAILURE:
                return neonize_events.connect_failed(glue.ConnectFailure.FromString(data))
            case _:
                log.info("engine_event_ignored", instance=self._spec.instance_id, code=code)
                return None

    def _await_login(self) -> None:
        """After pairing WhatsApp says "connect again" and hangs up; the library can see the end before the words."""

        def give_up() -> None:
            self._end(SessionEnded("paired, but the engine did not log in"))

        self._login = Timer(self._limits.login_deadline_s, give_up)
        self._login.daemon = True
        self._login.start()

    def _await_name(self, pause_s: float) -> None:
        """After pairing the phone says in its own time what we are called, and the library tells nobody: look for it.

        A phone that takes longer than all these looks is heard by a probe.
        """

        def look() -> None:
            if not self._tell_name() and pause_s < NAME_PAUSE_MAX_S:
                self._await_name(2 * pause_s)

        if self._name_timer is not None:
            self._name_timer.cancel()
        self._name_timer = Timer(pause_s, look)
        self._name_timer.daemon = True
        self._name_timer.start()

    def _tell_name(self) -> bool:
        """Tell our own name if it is news; False if it is still to come."""
        if self._over or not self._client.paired:
            return True
        name = self._client.library.me(self._client.uuid).PushName
        if name and name != self._own_name:
            self._own_name = name
            self._tell(Named(name))
        return bool(name)

    def _probe(self) -> str:
        """One question to WhatsApp; and the moment to notice another name of our own."""
        error = self._client.library.round_trip(self._client.uuid)
        self._tell_name()
        return error

    def _me(self) -> Any:
        me = self._client.library.me(self._client.uuid)
        self._own = neonize_events.own_of(me)
        return me

    def _send(self, chat: str, to: Any, message: Any) -> Sent:
        """Send, and say what the integrator must hear of the chat; raises SendError."""
        shown = jid_of(chat)
        if shown.Server == GROUP:
            self._names.of(shown)  # may take a moment, and afterwards the outcome must not wait
        wa_id, at_ms = self._client.library.send(self._client.uuid, to, message)
        chat_lid, chat_name = None, ""
        try:
            hidden = self._hidden(shown)
            chat_lid, chat_name = lid_of(hidden), self._names.of(shown, hidden)
        except Exception:  # it was sent: nothing may make that doubtful any more
            log.exception("chat_not_looked_up", instance=self._spec.instance_id)
        return Sent(wa_id, at_ms or self._clock.now_ms(), chat_lid, self._own.lid or None, chat_name)

    def _hidden(self, chat: Any) -> Any:
        """A person's hidden id, else the chat: the library looks every number up before it encrypts, and keeps that."""
        if chat.Server != PERSON or not self._client.running:
            return chat
        return self._client.library.hidden_jid(self._client.uuid, chat) or chat

    def _phone_of(self, hidden: Any) -> str | None:
        """Ask the engine's store for the number behind a hidden id."""
        phone = self._phones.get(hidden.User)
        if phone is None and self._client.running:
            bare = glue.JID(User=hidden.User, Server="lid", RawAgent=0, Device=0, Integrator=0, IsEmpty=False)
            found = self._client.library.phone_jid(self._client.uuid, bare)
            if found is None:
                return None
            phone = address(found, None, self._own, lambda _: None)
            if len(self._phones) >= PHONES_CACHED_MAX:
                self._phones.clear()
            self._phones[hidden.User] = phone
        return phone

    def _tell(self, event: EngineEvent) -> None:
        self._emit(event)

    def _end(self, event: EngineEvent) -> None:
        """Tell a final event, once; nothing that the library still says afterwards changes it."""
        if not self._over:
            self._over = True
            self._emit(event)

    async def _last_send_is_back(self) -> None:
        """A send whose outcome was unknown may still be inside: the library would make the next one wait for it."""
        if self._sending is not None and not self._sending.done():
            await asyncio.wait({self._sending}, timeout=self._limits.send_deadline_s)
            if not self._sending.done():
                raise NotConnected("the send before this one has not come back yet")

    def _must_be(self, condition: bool, words: str) -> None:
        if not condition or self._over:
            raise NotConnected(words)

    def _in_thread(self, function: Callable[..., T], *arguments: Any) -> "asyncio.Future[T]":
        return asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    async def _call(self, function: Callable[..., T], *arguments: Any) -> T:
        try:
            return await asyncio.wait_for(asyncio.shield(self._in_thread(function, *arguments)), CALL_DEADLINE_S)
        except TimeoutError:
            raise OutcomeUnknown("WhatsApp did not answer in time") from None


_FINAL = {
    neonize_library.LOGGED_OUT,
    neonize_library.REPLACED,
    neonize_library.BAN,
    neonize_library.OUTDATED,
    neonize_library.CONNECT_FAILURE,
}
