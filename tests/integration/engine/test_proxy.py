"""A session's own proxy: all of that session goes through it, and one that is not there leaves the session offline.

One that accepts and stays silent stands for every network that neither answers nor refuses.
"""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from tests.integration.machines.driven import Driven
from tests.integration.machines.stage import Stage, jid
from tomada.engine import told
from tomada.machines.protocol import CloseSession, OpenSession


class Gate:
    """A proxy before the sandbox's own: notes what it is asked for, and wants credentials."""

    def __init__(self, proxy: str, credentials: str) -> None:
        to = urlsplit(proxy)
        self._to = (to.hostname, to.port)
        self._wanted = b"Basic " + base64.b64encode(credentials.encode())
        self.asked: list[bytes] = []  # request lines that came with the credentials
        self.url = ""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Gate"]:
        """It listens for the time of the block."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = "{}:{}".format(*server.sockets[0].getsockname())
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            if b"Proxy-Authorization: " + self._wanted not in head:
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                writer.close()
                return
            self.asked.append(head.partition(b"\r\n")[0])
            there, back = await asyncio.open_connection(*self._to)
            back.write(head)
            await asyncio.gather(_copy(reader, back), _copy(there, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def silent_proxy() -> AsyncIterator[tuple[str, set[asyncio.StreamWriter]]]:
    """Its address, and the connections that it leaves without an answer."""
    callers: set[asyncio.StreamWriter] = set()
    server = await asyncio.start_server(lambda _, writer: callers.add(writer), "127.0.0.1", 0)
    async with server:
        host, number = server.sockets[0].getsockname()
        yield f"{host}:{number}", callers
        for caller in callers:
            caller.transport.abort()


async def test_own_proxy_with_credentials(stage: Stage, shared: Driven) -> None:
    """One session goes through its own proxy, with its credentials, which nobody reads in the log; others do not."""
    mine, other = stage.fresh("proxied"), stage.fresh("direct")
    async with Gate(stage.network.ready.proxy, "tenant:secret-word").running() as gate:
        url = f"http://tenant:secret-word@{gate.url}"
        number = await stage.network.phone("Proxied")
        await shared.open(stage.spec(mine, pair=True, proxy_url=url))
        await stage.network.scan(number, (await shared.event(mine, told.QrIssued)).code)
        await shared.event(mine, told.Connected)
        assert len(gate.asked) == 2  # to be paired, and as a device
        await stage.paired(shared, other)
        assert len(gate.asked) == 2
        await shared.done(CloseSession(mine))
        wrong = await shared.ask(OpenSession(stage.spec(mine, proxy_url=url.replace("secret-word", "guess"))), 60)
        assert wrong.kind == "retry"
        assert len(gate.asked) == 2  # nor does it go another way
        assert await shared.open(stage.spec(mine, proxy_url=url))
        await shared.until(lambda: len(shared.events(mine, told.Connected)) == 2)
        await shared.done(CloseSession(mine))
    assert b"secret-word" not in shared.log
    assert b"guess" not in shared.log


async def test_a_dead_proxy_leaves_the_session_offline(stage: Stage, shared: Driven) -> None:
    """Rather than to show WhatsApp another address: the opening is answered "ask again", and nothing connected."""
    mine = stage.fresh("nowhere")
    await stage.paired(shared, mine)
    await shared.done(CloseSession(mine))
    connects = len(await stage.network.connects_ms())
    answer = await shared.ask(OpenSession(stage.spec(mine, proxy_url="http://tenant:secret-word@127.0.0.1:1")), 60)
    assert answer.kind == "retry"
    assert "secret-word" not in answer.error
    assert len(await stage.network.connects_ms()) == connects
    assert len(shared.events(mine, told.Connected)) == 1
    await stage.reopen(shared, mine)


async def test_what_is_no_proxy_is_refused(stage: Stage, shared: Driven) -> None:
    """For good: asking again changes nothing."""
    for url in ("gopher://127.0.0.1:1", "127.0.0.1:8080", "http://", "s://x:secret-word@h"):
        answer = await shared.ask(OpenSession(stage.spec(stage.fresh("odd"), pair=True, proxy_url=url)))
        assert answer.kind == "refused", url
        assert "secret-word" not in answer.error


async def test_a_proxy_that_dies_takes_the_session_offline(stage: Stage, shared: Driven) -> None:
    """Disconnected, sends come back, no other way is taken; with the proxy the session is there again by itself."""
    mine = stage.fresh("proxy-dies")
    gate = Gate(stage.network.ready.proxy, "a:b")
    async with gate.running():
        url = f"http://a:b@{gate.url}"
        number = await stage.network.phone("Proxied")
        await shared.open(stage.spec(mine, pair=True, proxy_url=url))
        await stage.network.scan(number, (await shared.event(mine, told.QrIssued)).code)
        await shared.event(mine, told.Connected)
    connects = len(await stage.network.connects_ms())
    await stage.network.fault("drop", number=number)
    await shared.event(mine, told.Disconnected)
    await shared.send(mine, "3EB0PROXYDIED", jid(number), "x")
    failed = await shared.outcome(mine, "3EB0PROXYDIED")
    assert isinstance(failed, told.SendFailed)
    assert failed.kind == "retry"
    assert len(await stage.network.connects_ms()) == connects
    await shared.done(CloseSession(mine))


async def test_a_silent_proxy_does_not_hold_up_others(stage: Stage, shared: Driven) -> None:
    """While one opening waits for a network that neither answers nor refuses, another session is opened and works."""
    mine, other = stage.fresh("silent"), stage.fresh("not-held-up")
    async with silent_proxy() as (address, callers):
        opening = asyncio.create_task(
            shared.ask(OpenSession(stage.spec(mine, pair=True, proxy_url=f"http://{address}")), 60)
        )
        async with asyncio.timeout(10):
            while not callers:
                await asyncio.sleep(0.02)
        await stage.paired(shared, other)
        assert not opening.done()
        for caller in callers:
            caller.transport.abort()
        assert (await opening).kind == "retry"
    await stage.begin(shared, mine)
    await shared.done(CloseSession(mine))
