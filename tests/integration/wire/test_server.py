"""The server against clients that are slow, silent, greedy or broken. Deadlines are made short by settings."""

import asyncio
import contextlib
import http.client
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import msgspec
import pytest

from tests.integration.wire.client import Answer, Client, read_answer
from tomada.wire.protocol import ServerLimits
from tomada.wire.server import AddressInUse, serving

LIMITS = ServerLimits(
    headers_s=0.5,
    body_s=0.5,
    writing_s=0.5,
    idle_s=0.5,
    connections_max=12,
    connections_per_peer_max=8,
    pipelined_max=4,
)
LONG_S = 20.0  # a deadline that does not work fails its test after this time
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"


class Echo:
    """An ASGI application: answers with the body's length, or with as many bytes as `/big/<n>` asks for."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.ended_early = 0
        self.arrived = asyncio.Event()
        self.hold = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer."""
        if scope["path"] == "/early":
            await _answer(send, b"early", status=413)
            return
        body = b""
        while True:
            message = await receive()
            if message["type"] != "http.request":
                self.ended_early += 1
                return
            body += message["body"]
            if not message["more_body"]:
                break
        self.bodies.append(body)
        self.arrived.set()
        if scope["path"] == "/hold":
            await self.hold.wait()
        size = int(scope["path"].removeprefix("/big/")) if scope["path"].startswith("/big/") else 0
        await _answer(send, b"x" * size or str(len(body)).encode())


async def _answer(send: Any, body: bytes, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def _serve(limits: ServerLimits = LIMITS) -> AsyncIterator[tuple[Echo, Client]]:
    app = Echo()
    async with serving(app, "127.0.0.1", 0, limits, grace_s=1) as url:
        yield app, Client(url)
        app.hold.set()


async def _connect(client: Client) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(client.host, client.port)


async def _until_closed(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, drip: bytes = b""
) -> tuple[bytes, float]:
    """Send `drip` again and again until the server closes; gives what it said and after how many seconds.

    Fails after LONG_S. What was said counts although a reset follows, as for a client that goes on writing.
    """
    began_s, said = monotonic(), b""

    async def drop() -> None:
        while True:
            writer.write(drip)
            await writer.drain()
            await asyncio.sleep(0.1)

    dripping = asyncio.create_task(drop()) if drip else None
    try:
        async with asyncio.timeout(LONG_S):
            with contextlib.suppress(ConnectionError):
                while chunk := await reader.read(65536):
                    said += chunk
    finally:
        if dripping:
            dripping.cancel()
            await asyncio.gather(dripping, return_exceptions=True)
        writer.close()
    return said, monotonic() - began_s


async def test_silent_client() -> None:
    """A client that connects and says nothing is disconnected when the header time is up."""
    async with _serve() as (_, client):
        said, after_s = await _until_closed(*await _connect(client))
        assert said == b""
        assert after_s > 0.4


async def test_slow_headers() -> None:
    """One header byte at a time does not extend the time for headers: 408."""
    async with _serve() as (app, client):
        reader, writer = await _connect(client)
        writer.write(HEAD)
        said, after_s = await _until_closed(reader, writer, b"x")
        assert b" 408 " in said
        assert b'{"error"' in said
        assert after_s > 0.4
        assert app.bodies == []


async def test_slow_body() -> None:
    """One body byte at a time does not extend the time for the body: 408, and the application is told."""
    async with _serve() as (app, client):
        reader, writer = await _connect(client)
        writer.write(HEAD + b"Content-Length: 1000\r\n\r\n")
        said, after_s = await _until_closed(reader, writer, b"x")
        assert b" 408 " in said
        assert after_s > 0.4
        assert (app.bodies, app.ended_early) == ([], 1)


async def test_body_that_never_comes() -> None:
    """A body that was announced and does not come is 408."""
    async with _serve() as (_, client):
        reader, writer = await _connect(client)
        writer.write(HEAD + b"Content-Length: 10\r\n\r\n")
        said, _ = await _until_closed(reader, writer)
        assert b" 408 " in said


async def test_body_after_an_early_answer() -> None:
    """Who goes on sending a body after the answer is cut off when the body's time is up."""
    async with _serve() as (_, client):
        reader, writer = await _connect(client)
        writer.write(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        said, _ = await _until_closed(reader, writer, b"x")
        assert said.endswith(b"early")
        assert b"408" not in said


def _post_everything_first(host: str, port: int, size: int) -> tuple[int, bytes]:
    """http.client, which reads only when all is sent, with a body that nobody wants."""
    connection = http.client.HTTPConnection(host, port, timeout=20)
    connection.request("POST", "/early", b"x" * size, {"Connection": "close"})
    answer = connection.getresponse()
    said = answer.status, answer.read()
    connection.close()
    return said


@pytest.mark.parametrize("connection", [b"close", b"keep-alive"])
async def test_an_early_answer_reaches_who_sends_everything_first(connection: bytes) -> None:
    """30 MB after an answer that ended the request: our answer, and no reset; by http.client and by a bare socket."""
    size = 30_000_000
    async with _serve(ServerLimits()) as (_, client):
        said = await asyncio.to_thread(_post_everything_first, client.host, client.port, size)
        reader, writer = await _connect(client)
        writer.write(HEAD.replace(b"POST /", b"POST /early") + b"Connection: %s\r\n" % connection)
        writer.write(b"Content-Length: %d\r\n\r\n" % size + b"x" * size)
        async with asyncio.timeout(20):
            await writer.drain()
            answer = await read_answer(reader)
        writer.close()
    assert said == (413, b"early")
    assert (answer.status, answer.body) == (413, b"early")


async def _send_for_ever(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x" * 5_000)
        await writer.drain()
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("limits", [ServerLimits(linger_bytes_max=100_000), ServerLimits(linger_s=0.3)])
async def test_reading_on_has_bounds(limits: ServerLimits) -> None:
    """In bytes of all connections together, which are given back at the end, and in time: then it is cut off."""
    async with _serve(limits) as (_, client):
        for _ in range(2):
            reader, writer = await _connect(client)
            head = HEAD.replace(b"POST /", b"POST /early") + b"Connection: close\r\nContent-Length: 100000000\r\n\r\n"
            writer.write(head)
            async with asyncio.timeout(20):
                assert (await reader.read()).endswith(b"early")
                with pytest.raises(ConnectionError):
                    await _send_for_ever(writer)
            writer.close()


async def test_idle_connection() -> None:
    """A connection is kept for the next request, and closed when it stays idle; stray line ends do not keep it."""
    async with _serve() as (_, client):
        reader, writer = await _connect(client)
        for _ in range(3):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await read_answer(reader)).status == 200
        _, after_s = await _until_closed(reader, writer)
        assert after_s > 0.4
        reader, writer = await _connect(client)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await read_answer(reader)).status == 200
        await _until_closed(reader, writer, b"\r\n")


async def test_second_request_has_the_same_deadlines() -> None:
    """Slow headers of a later request on the same connection are cut off too."""
    async with _serve() as (_, client):
        reader, writer = await _connect(client)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await read_answer(reader)).status == 200
        writer.write(HEAD)
        said, _ = await _until_closed(reader, writer, b"x")
        assert b" 408 " in said


READING = ServerLimits(writing_s=0.5, idle_s=0.5, writing_bytes_min=4096)


async def _slow_socket(client: Client) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that takes in little at a time."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plain, (client.host, client.port))
    return await asyncio.open_connection(sock=plain, limit=1024)


@pytest.mark.parametrize("limits", [READING, msgspec.structs.replace(READING, idle_s=60.0)])
async def test_client_that_does_not_read(limits: ServerLimits) -> None:
    """An answer that nobody reads is aborted when the writing time is up."""
    async with _serve(limits) as (_, client):
        reader, writer = await _slow_socket(client)
        writer.write(b"GET /big/50000000 HTTP/1.1\r\nHost: x\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(1.5)  # the time in which a client reads nothing is what this test is about
        received = 0
        async with asyncio.timeout(LONG_S):
            try:
                while chunk := await reader.read(1 << 20):
                    received += len(chunk)
            except ConnectionError:
                pass
        assert received < 50_000_000
        writer.close()


async def test_slow_reader_that_keeps_reading() -> None:
    """A client that reads slowly but steadily gets a large answer whole, long after every deadline."""
    limits = msgspec.structs.replace(READING, writing_s=1.5)  # a busy computer may keep the client from reading for one
    async with _serve(limits) as (_, client):
        reader, writer = await _slow_socket(client)
        writer.write(b"GET /big/20000000 HTTP/1.1\r\nHost: x\r\n\r\n")
        began_s, received = monotonic(), 0
        async with asyncio.timeout(60):
            head = await reader.readuntil(b"\r\n\r\n")
            while received < 20_000_000:
                received += len(await reader.readexactly(min(1_000_000, 20_000_000 - received)))
                await asyncio.sleep(0.2)
        assert b" 200 " in head
        assert monotonic() - began_s > 2 * limits.writing_s
        writer.close()


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Large: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(3000)) + b"\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
async def test_large_headers(head: bytes) -> None:
    """More than 16 KiB of headers are 431, in one line, in many, or in the path."""
    async with _serve() as (app, client):
        answer = await client.raw(head)
        assert answer.status == 431
        assert answer.json() == {"error": "The headers are too large"}
        assert app.bodies == []


async def test_endless_header() -> None:
    """A header that never ends is refused when it has grown too large, not kept."""
    async with _serve(ServerLimits()) as (_, client):
        reader, writer = await _connect(client)
        writer.write(HEAD + b"X-Endless: ")
        said, _ = await _until_closed(reader, writer, b"a" * 4096)
        assert b" 431 " in said


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS spoken to a plain port
        b"GET / HTTP/1.1\r\nBad Header\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
async def test_what_is_not_http(request_bytes: bytes) -> None:
    """Bytes that are not HTTP, or could be read in two ways, are 400 as flat JSON."""
    async with _serve() as (app, client):
        answer = await client.raw(request_bytes)
        assert (answer.status, answer.json()) == (400, {"error": "This is not HTTP"})
        assert answer.headers["content-type"] == "application/json"
        assert app.bodies == []


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nhost: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 200),  # allowed where the target has no authority
        (b"GET / HTTP/1.0\r\n\r\n", 200),  # which needs none
    ],
)
async def test_a_request_has_one_host(head: bytes, status: int) -> None:
    """RFC 9112, 3.2: none or two are 400, since two servers on the way may read them in two ways."""
    async with _serve() as (app, client):
        assert (await client.raw(head)).status == status
        assert len(app.bodies) == (status == 200)


async def test_nul_in_the_path() -> None:
    """A path or query with U+0000 is refused before any route sees it: no text of the database can hold it."""
    async with _serve() as (app, client):
        for path in (b"/a%00b", b"/x?query=%00"):
            assert (await client.raw(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")).status == 400
        assert app.bodies == []


async def test_offer_of_http2_keeps_the_body() -> None:
    """A request that offers an upgrade to HTTP/2, as Java's client does, is served with its body."""
    async with _serve() as (app, client):
        reader, writer = await _connect(client)
        head = HEAD + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
        for body in (b"0123456789", b""):
            writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            answer = await read_answer(reader)
            assert (answer.status, answer.body) == (200, b"%d" % len(body))
        writer.write(head + b"Content-Length: 10\r\n\r\n01234")
        await asyncio.sleep(0.05)
        writer.write(b"56789")
        assert (await read_answer(reader)).body == b"10"
        assert app.bodies == [b"0123456789", b"", b"0123456789"]
        writer.close()


async def test_connect_method() -> None:
    """CONNECT asks for a tunnel, which this is not."""
    async with _serve() as (_, client):
        assert (await client.raw(b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n")).status in (400, 405)


async def test_expect_continue() -> None:
    """A client that waits for 100 Continue, as curl and .NET do, is told to go on."""
    async with _serve() as (app, client):
        reader, writer = await _connect(client)
        writer.write(HEAD + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert (await read_answer(reader)).body == b"3"
        assert app.bodies == [b"abc"]
        writer.close()


async def test_pipelined_requests() -> None:
    """A few requests without waiting are answered in order; too many end the connection."""
    one = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
    async with _serve() as (_, client):
        reader, writer = await _connect(client)
        writer.write(b"".join(one % (size, b"x" * size) for size in range(1, 5)))
        assert [(await read_answer(reader)).body for _ in range(4)] == [b"1", b"2", b"3", b"4"]
        writer.write(b"POST /hold HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" + one % (1, b"x") * 50)
        said, _ = await _until_closed(reader, writer)
        assert said.count(b"HTTP/1.1 200") == 0


@pytest.mark.parametrize(
    "second",
    [
        b"GET /a%00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nX-Large: " + b"a" * 20_000 + b"\r\n\r\n",
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
async def test_refusal_is_not_the_answer_to_another_request(second: bytes, at_once: bool) -> None:
    """What is refused behind a request that waits for its answer ends the connection; the client is told nothing."""
    async with _serve() as (app, client):
        reader, writer = await _connect(client)
        writer.write(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n" + (second if at_once else b""))
        if not at_once:
            async with asyncio.timeout(LONG_S):
                await app.arrived.wait()
            writer.write(second)
        said, _ = await _until_closed(reader, writer)
        assert said == b""


@pytest.mark.parametrize(("path", "said_first"), [(b"/", b""), (b"/early", b"early")])
async def test_body_that_is_not_http(path: bytes, said_first: bytes) -> None:
    """A body that breaks off into nonsense is 400, unless its request has been answered already."""
    async with _serve() as (app, client):
        reader, writer = await _connect(client)
        writer.write(b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        if said_first:
            assert (await read_answer(reader)).body == said_first
        writer.write(b"nonsense\r\n")
        said, _ = await _until_closed(reader, writer)
        assert said.count(b" 400 ") == (0 if said_first else 1)
        assert app.bodies == []


async def _open(client: Client, count: int) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    return [await _connect(client) for _ in range(count)]


async def test_too_many_connections_of_one_peer() -> None:
    """One address may hold so many connections and no more; when they close, it may again."""
    limits = ServerLimits(connections_per_peer_max=3, connections_max=100)
    async with _serve(limits) as (_, client):
        held = await _open(client, 3)
        reader, writer = await _connect(client)
        said, _ = await _until_closed(reader, writer)
        assert b" 429 " in said
        for _, writer in held:
            writer.close()
        assert (await _eventually(client)).status == 200


async def test_too_many_connections() -> None:
    """The whole server holds so many connections and no more."""
    limits = ServerLimits(connections_per_peer_max=100, connections_max=3)
    async with _serve(limits) as (_, client):
        held = await _open(client, 3)
        reader, writer = await _connect(client)
        said, _ = await _until_closed(reader, writer)
        assert b" 503 " in said
        for _, writer in held:
            writer.close()
        assert (await _eventually(client)).status == 200


async def _eventually(client: Client) -> Answer:
    """A 200, once the server has noticed that connections were closed."""
    async with asyncio.timeout(LONG_S):
        while True:
            try:
                answer = await client.raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            except (ConnectionError, asyncio.IncompleteReadError):
                continue
            if answer.status == 200:
                return answer


async def test_stop_lets_a_running_request_finish() -> None:
    """Stopping waits for a request that runs, and closes idle connections at once."""
    app = Echo()
    async with serving(app, "127.0.0.1", 0, ServerLimits(), grace_s=5) as url:
        client = Client(url)
        idle_reader, idle_writer = await _connect(client)
        running = asyncio.create_task(client.raw(HEAD.replace(b"/", b"/hold", 1) + b"Content-Length: 0\r\n\r\n"))
        async with asyncio.timeout(LONG_S):
            await app.arrived.wait()
        asyncio.get_running_loop().call_later(0.2, app.hold.set)
    assert (await running).status == 200
    assert await idle_reader.read() == b""
    idle_writer.close()
    with pytest.raises(OSError, match=r"refused|Connect"):
        await client.raw(b"")


async def test_address_in_use() -> None:
    """A port that is taken is said so in words."""
    async with _serve() as (_, client):
        with pytest.raises(AddressInUse, match="cannot listen"):
            async with serving(Echo(), client.host, client.port):
                pass
