"""uvicorn's HTTP/1.1 protocol with absolute deadlines and limits, which it lacks.

Without them a client that sends one byte every two seconds, or none, holds a connection for ever (docs/wire.md,
server). Middleware cannot help: it runs after parsing. Each connection is in one phase, each phase has one deadline,
and a byte that arrives does not move it:

    headers ──▶ body ──▶ answering ──▶ idle ──▶ headers ...
       │          │          │           │
      408        408      (writing)    closed

An answer that ends the connection while the body still comes (413, 404, 401 to a client that sends `Connection:
close`) must reach its client, which reads only when it has sent everything: with a plain close the kernel answers the
rest with a reset, and our answer is lost. So we end our side only, and read on and discard for a while (`_linger`).

`answering` is the application's time and has no deadline here; but as soon as the client reads slower than we write,
it must make progress, or the connection is aborted.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import httptools
import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

Phase = Literal["headers", "body", "answering", "idle"]
_FLUSH_S = 2.0  # for the refusal of a request to reach its client
_LINE_BYTES = 4  # what a header line has besides name and value
_UPGRADE_HEADERS = frozenset({b"connection", b"upgrade", b"http2-settings"})


class ServerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Deadlines in seconds, sizes in bytes. The peer limit counts connections per client address."""

    headers_s: float = 10.0
    body_s: float = 30.0
    writing_s: float = 30.0  # in which a client must take writing_bytes_min of an answer that waits for it
    writing_bytes_min: int = 16 * 1024
    idle_s: float = 75.0  # longer than the 60 s for which usual reverse proxies keep a connection
    header_bytes_max: int = 16 * 1024
    pipelined_max: int = 16
    linger_s: float = 15.0  # in which a client may send the rest of a body after the last answer
    linger_bytes_max: int = 64 << 20  # of such bodies, of all clients at a time
    connections_max: int = 4096
    connections_per_peer_max: int = 1024  # high, because behind a reverse proxy all clients are one peer


class Refusal(Exception):
    """A request that is answered without the application; ends its connection."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Shared:
    """What all connections of a server have together: their number by client address, and bytes left to discard."""

    def __init__(self, limits: ServerLimits) -> None:
        self.peers: Counter[str] = Counter()
        self.discards_left = limits.linger_bytes_max


class _Transport:
    """The connection's transport, whose `close` gives the protocol a say; all else goes through."""

    def __init__(self, transport: asyncio.Transport, closing: Callable[[], bool]) -> None:
        self._transport, self._closing = transport, closing
        self.lingering = False

    def close(self) -> None:
        """Close, or end our side only and read on."""
        if self.lingering or not self._closing():
            self._transport.close()
        else:
            self.lingering = True
            self._transport.write_eof()

    def is_closing(self) -> bool:
        """Whether nothing more can be written."""
        return self.lingering or self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class BoundedProtocol(HttpToolsProtocol):
    """One connection. `shared` is of all connections of a server."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: ServerLimits,
        shared: Shared,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._shared, self._peers = shared, shared.peers
        self._discarded = 0
        self._peer: str | None = None
        self._phase: Phase = "idle"
        self._deadline: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._head_number = 0  # of the request whose headers came last, from 1
        self._head_bytes = 0
        self._in_head = False
        self._refusal: Refusal | None = None
        self._refused = False

    # --- the connection -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count it, and refuse it if there are too many."""
        super().connection_made(transport)
        self.transport: Any = _Transport(transport, self._linger)
        self._peer = self.client[0] if self.client else ""
        self._peers[self._peer] += 1
        if self._peers.total() > self._limits.connections_max:
            self._refuse(Refusal(503, "Too many connections"))
        elif self._peers[self._peer] > self._limits.connections_per_peer_max:
            self._refuse(Refusal(429, "Too many connections from your address"))
        else:
            self._enter("headers", self._limits.headers_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        super().connection_lost(exc)
        self._cancel_deadline()
        self._cancel_writing()
        self._shared.discards_left += self._discarded
        self._discarded = 0
        if self._peer is not None:
            self._peers[self._peer] -= 1
            if not self._peers[self._peer]:
                del self._peers[self._peer]
            self._peer = None

    def data_received(self, data: bytes) -> None:
        """Parse; a request that is refused on the way is answered and ends the connection."""
        if self._refused:
            return
        if self.transport.lingering:
            self._discard(len(data))
            return
        self._unset_keepalive_if_required()
        if self._phase == "idle":
            self._enter("headers", self._limits.headers_s)
        head = self._head_number
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._refuse(self._refusal or Refusal(400, "This is not HTTP"))
            return
        if self._in_head and head == self._head_number:  # not the first piece, which may hold more than headers
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.header_bytes_max:
                self._refuse(_headers_too_large())

    def _feed(self, data: bytes) -> None:
        """Parse. A request that offers an upgrade is parsed again without the offer, as the HTTP/1.1 that it is.

        Java's client offers HTTP/2 by default. The parser takes such a request for one without a body, so its body
        would be lost.
        """
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                if self.scope["method"] == "CONNECT":
                    self._refuse(Refusal(405, "Method Not Allowed"))
                    return
                data = self._without_upgrade() + data[upgrade.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
            else:
                return

    def _without_upgrade(self) -> bytes:
        """The head of the present request, without its offer to upgrade."""
        lines = [f"{self.scope['method']} ".encode() + self.url + b" HTTP/1.1"]
        lines += [name + b": " + value for name, value in self.headers if name not in _UPGRADE_HEADERS]
        return b"\r\n".join([*lines, b"", b""])

    # --- the parser's callbacks -----------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request starts; a pipelined one shares the time of the present one."""
        super().on_message_begin()
        self._in_head = True
        self._head_number += 1
        self._head_bytes = 0
        if not self._busy:
            self._enter("headers", self._limits.headers_s)

    def on_url(self, url: bytes) -> None:
        """Count its bytes."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count its bytes."""
        self._count(len(name) + len(value) + _LINE_BYTES)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The application starts; the body has its own time."""
        self._in_head = False
        if self.parser.should_upgrade():
            self.scope["method"] = self.parser.get_method().decode("ascii")
            return  # comes again; see _feed
        if b"%00" in self.url:  # nothing of ours has that character, and PostgreSQL's text cannot hold it
            self._refusal = Refusal(400, "The character U+0000 is not allowed")
            raise self._refusal
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):  # RFC 9112, 3.2
            self._refusal = Refusal(400, "The header Host must be there once")
            raise self._refusal
        if len(self.pipeline) >= self._limits.pipelined_max:
            self._refusal = Refusal(429, "Too many requests without waiting for answers")
            raise self._refusal
        super().on_headers_complete()
        self._enter("body", self._limits.body_s)

    def on_message_complete(self) -> None:
        """All of the request is here."""
        if self.parser.should_upgrade():
            return
        super().on_message_complete()
        if self.cycle.response_complete:
            self._enter("idle", self._limits.idle_s)
        else:
            self._cancel_deadline()
            self._phase = "answering"

    def on_response_complete(self) -> None:
        """All of the answer is written; what is left of a body that nobody read keeps the body's deadline."""
        super().on_response_complete()
        self._unset_keepalive_if_required()  # uvicorn's five seconds of idleness are not ours
        if self._phase == "answering" and self.cycle.response_complete and not self.transport.is_closing():
            self._enter("idle", self._limits.idle_s)

    # --- writing --------------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The client does not read as fast as we write: from now on it must make progress."""
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        """It has read."""
        super().resume_writing()
        self._cancel_writing()

    def _watch_writing(self) -> None:
        self._cancel_writing()
        left = self.transport.get_write_buffer_size()
        self._writing = self.loop.call_later(self._limits.writing_s, self._check_writing, left)

    def _check_writing(self, left_before: int) -> None:
        if left_before - self.transport.get_write_buffer_size() < self._limits.writing_bytes_min:
            self.transport.abort()
        else:
            self._watch_writing()

    # --- deadlines and refusals -----------------------------------------------------------------------------------

    def _enter(self, phase: Phase, seconds: float) -> None:
        self._cancel_deadline()
        self._phase = phase
        self._deadline = self.loop.call_later(seconds, self._too_late)

    @property
    def _busy(self) -> bool:
        """Whether a request waits for the end of its answer."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _too_late(self) -> None:
        if self._writing is not None and not self._busy:
            self._enter(self._phase, self._limits.idle_s)  # it still reads the answer; that has a deadline of its own
            return
        nobody_waits = not self._busy and not self._in_head
        if self._phase == "idle" or nobody_waits or self._head_number == 0:
            self.transport.abort()
        else:
            self._refuse(Refusal(408, f"The {self._phase} of your request took too long"))

    def _refuse(self, refusal: Refusal) -> None:
        """Answer, if that can only be the answer to what is refused, and close."""
        self._refused = True
        self._cancel_deadline()
        if self.transport.is_closing():
            return
        if self._may_answer():
            self.transport.write(_answer(refusal))
        if self._busy:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()
        self._deadline = self.loop.call_later(_FLUSH_S, self.transport.abort)

    def _linger(self) -> bool:
        """Whether to read on instead of closing: the last answer is given, and its request's body still comes."""
        if self._phase != "body" or self._refused:
            return False
        self.flow.resume_reading()
        self._cancel_deadline()
        self._deadline = self.loop.call_later(self._limits.linger_s, self.transport.abort)
        return True

    def _discard(self, size: int) -> None:
        self._discarded += size
        self._shared.discards_left -= size
        if self._shared.discards_left < 0:
            self.transport.abort()

    def _may_answer(self) -> bool:
        """Whether the next answer belongs to the request that came last; a client matches them by their order."""
        if self._phase == "body":
            return self._busy and not self.cycle.response_started and not self.pipeline
        return not self._busy

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self._limits.header_bytes_max:
            self._refusal = _headers_too_large()
            raise self._refusal

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _cancel_writing(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None


def _headers_too_large() -> Refusal:
    return Refusal(431, "The headers are too large")


def _answer(refusal: Refusal) -> bytes:
    body = json.dumps({"error": refusal.message}).encode()
    head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
    return STATUS_LINE[refusal.status] + head + body
