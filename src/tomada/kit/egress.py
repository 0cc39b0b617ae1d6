"""The one way out of the house: callbacks, media by URL and every other outgoing request go through this client.

What each bound rests on:

- *Addresses*: `_open_socket` is called by aiohttp for every socket it connects, with the numeric address, after all
  name resolution; it refuses by the table of `addresses.py`. So a name that changes its answer, a literal in an odd
  spelling and a redirect have no way round it. Redirects are not followed at all.
- *Time*: one deadline from dial to the last byte (30 s), of which connecting (name, TCP, TLS) may take 10 s.
- *Size*: of the answer at most `body_bytes_max` are read (64 KiB), then the connection is dropped. All that comes
  before the body is bounded by `_Protocol`, in bytes (256 KiB and what one read brings) and in heads: "100 Continue"
  and the like aiohttp would read for ever, faster than its own deadline can ring. Nothing is decompressed.
- *No help from outside*: no proxy or netrc from the environment, no cookies.
- *Names*: resolved by threads of our own, at most 320, each look-up waited for 5 s. One that hangs keeps its thread for
  as long as the system's resolver waits: 10 s with one name server, more with several. So an account whose names are
  all silent holds twice its places (128 lanes, 2 test events) and leaves 60 threads to the others. A silent name is
  not asked again for 30 s; answers are kept for as long, which is safe because the address is checked at the socket.

A blocked target is told as `Blocked` with a reason that names no address and quotes no answer: the caller may show it.
"""

import asyncio
import functools
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

from tomada.kit.addresses import AddressRefused, AddressRules, check_url, parsed, refusal

TOTAL_S = 30.0
CONNECT_S = 10.0
RESOLVE_S = 5.0
RESOLVER_THREADS = 320
NAMES_KEPT_S = 30
SILENT_NAMES_MAX = 10_000
BODY_BYTES_MAX = 64 * 1024
HEADS_MAX = 8  # of one answer: some 1xx, and its own
HEAD_BYTES_MAX = 256 * 1024  # of all these together
CONNECTIONS_MAX = 512
CONNECTIONS_PER_DESTINATION_MAX = 80  # 64 lanes of a dispatcher, and some to spare for test events


Gate = Callable[[str, AddressRules], str | None]
"""Says why a numeric address may not be connected to; only tests give another than `addresses.refusal`."""


class EgressFailed(Exception):
    """There was no answer; `reason` is a short word for records and people, without anything the other side said."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Blocked(EgressFailed):
    """The target may not be called; nothing was connected."""


class _BlockedAddress(OSError):
    """Raised at the socket; aiohttp carries it out inside its own error."""


class Answer(msgspec.Struct, frozen=True):
    """Status and what was read of the body; `complete` is False if the body was cut off at the limit."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    complete: bool


class Egress:
    """One client for the process; make it inside the event loop and close it. Safe for concurrent use."""

    def __init__(
        self,
        rules: AddressRules,
        *,
        resolver: AbstractResolver | None = None,
        total_s: float = TOTAL_S,
        connect_s: float = CONNECT_S,
        gate: Gate = refusal,
    ) -> None:
        self.rules = rules
        self._gate = gate
        self._resolver = resolver or ThreadResolver()
        connector = _Connector(
            resolver=self._resolver,
            socket_factory=self._open_socket,
            limit=CONNECTIONS_MAX,
            limit_per_host=CONNECTIONS_PER_DESTINATION_MAX,
            ttl_dns_cache=NAMES_KEPT_S,
            keepalive_timeout=20.0,
        )
        self._session = aiohttp.ClientSession(  # noqa: TID251 - the one place
            connector=connector,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=total_s, connect=connect_s, ceil_threshold=3600),
            headers={"accept": "*/*", "accept-encoding": "identity", "user-agent": "Tomada"},
        )

    async def close(self) -> None:
        """Close all connections; requests under way fail."""
        await self._session.close()
        await self._resolver.close()

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], *, body_bytes_max: int = BODY_BYTES_MAX
    ) -> Answer:
        """POST; the URL goes out byte for byte. Raises Blocked or EgressFailed."""
        return await self._request("POST", url, body, headers, body_bytes_max)

    async def get(self, url: str, headers: Mapping[str, str], *, body_bytes_max: int = BODY_BYTES_MAX) -> Answer:
        """GET, at most `body_bytes_max` of the body. Raises Blocked or EgressFailed."""
        return await self._request("GET", url, None, headers, body_bytes_max)

    async def _request(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], body_bytes_max: int
    ) -> Answer:
        try:
            check_url(url, self.rules)
        except AddressRefused as error:
            raise Blocked("blocked address") from error
        try:
            async with self._session.request(
                method, parsed(url), data=body, headers=headers, allow_redirects=False
            ) as response:
                read, complete = await _read(response, body_bytes_max)
                return Answer(response.status, response.headers, read, complete)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _translated(error) from None

    def _open_socket(self, info: Any) -> socket.socket:
        """Called for every address that would be connected to; the gate."""
        family, kind, protocol, _name, address = info
        if family not in (socket.AF_INET, socket.AF_INET6) or self._gate(str(address[0]), self.rules) is not None:
            raise _BlockedAddress("blocked address")
        return socket.socket(family=family, type=kind, proto=protocol)


class _Protocol(ResponseHandler):
    """One connection's answers; drops a peer that sends more heads, or longer ones, than an answer needs."""

    _heads = 0
    _head_bytes = 0
    _answered = False

    def set_response_params(self, **params: Any) -> None:
        """Called before each request."""
        self._heads = self._head_bytes = 0
        self._answered = False
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """Called with what one read brought, at most 256 KiB."""
        super().data_received(data)
        if not self._answered:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self._drop()

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Called for each head that was read."""
        self._heads += 1
        self._answered = self._answered or data[0].code >= 200
        if self._heads <= HEADS_MAX:
            super().feed_data(data, size)
        else:
            self._drop()

    def _drop(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.set_exception(HttpProcessingError(code=502, message="too much before the answer"))
            self.transport.abort()


class _Connector(aiohttp.TCPConnector):
    """Connections that speak `_Protocol`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = functools.partial(_Protocol, loop=self._loop)  # type: ignore[assignment]  # a subclass


async def _read(response: aiohttp.ClientResponse, body_bytes_max: int) -> tuple[bytes, bool]:
    """At most `body_bytes_max` bytes; if there is more, the connection is closed rather than read out."""
    if response.content_length is not None and response.content_length <= body_bytes_max:
        return await response.read(), True
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        chunks.append(chunk)
        if size > body_bytes_max:
            response.close()
            return b"".join(chunks)[:body_bytes_max], False
    return b"".join(chunks), True


def _translated(error: Exception) -> EgressFailed:
    """Our own words for what went wrong; the library's texts may quote addresses and answers."""
    if isinstance(error, aiohttp.ClientConnectorError) and _is_blocked(error.os_error):
        return Blocked("blocked address")
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return EgressFailed("connect timed out")
    if isinstance(error, TimeoutError):
        return EgressFailed("timed out")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return EgressFailed("name not found")
    if isinstance(error, aiohttp.ClientSSLError | aiohttp.ClientConnectorCertificateError):
        return EgressFailed("tls failed")
    if isinstance(error, aiohttp.ClientConnectorError):
        return EgressFailed("connect failed")
    if isinstance(error, aiohttp.InvalidURL):
        return Blocked("blocked address")
    if isinstance(error, aiohttp.ClientResponseError | ValueError):
        return EgressFailed("answer not understood")
    return EgressFailed("connection lost")


def _is_blocked(error: BaseException | None) -> bool:
    """Whether the gate refused; with several addresses, aiohttp chains or groups what each of them gave."""
    while error is not None:
        if isinstance(error, _BlockedAddress) or "blocked address" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


class ThreadResolver(AbstractResolver):
    """The system's resolver in threads of its own, with a limit on how long an answer is waited for."""

    def __init__(self, timeout_s: float = RESOLVE_S) -> None:
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="resolve")
        self._timeout_s = timeout_s
        self._silent: dict[str, float] = {}  # name -> until when it is not asked again

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """All addresses of a host; OSError if there are none in time."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._silent.get(host, 0.0):
            raise OSError("name look-up timed out a moment ago")
        look_up = self._threads.submit(_look_up, host, port, family)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(look_up), self._timeout_s)
        except TimeoutError as error:
            if not look_up.cancel():  # else it waited for a thread, and nobody was asked
                self._remember_silent(host, loop.time() + NAMES_KEPT_S)
            raise OSError("name look-up timed out") from error

    def _remember_silent(self, host: str, until_s: float) -> None:
        self._silent.pop(host, None)
        self._silent[host] = until_s
        if len(self._silent) > SILENT_NAMES_MAX:
            del self._silent[next(iter(self._silent))]

    async def close(self) -> None:
        """Wait for nobody: a look-up that hangs ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [
        ResolveResult(hostname=host, host=str(address[0]), port=port, family=kind, proto=protocol, flags=0)
        for kind, _type, protocol, _name, address in found
    ]
