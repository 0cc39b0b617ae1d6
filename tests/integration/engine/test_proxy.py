"""A session's own proxy: all of that session goes through it, and one that is not there refuses the opening.

One that accepts and stays silent stands for every network that neither answers nor refuses.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tomada.engine.environment import ENGINE_ENVIRONMENT

from tests.integration.machines.bench import Bench
from tests.integration.machines.driven import Driven, machine
from tomada.engine import port
from tomada.machines.protocol import CloseSession


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


async def test_own_proxy(bench: Bench) -> None:
    """Without any proxy in the environment the session reaches WhatsApp through its own, with credentials."""
    ready = bench.ready
    launcher = ("-m", "tomada.sandbox.machine", "--noise-root", ready.noise_root, "--")
    no_proxy = {"HTTPS_PROXY": "", "https_proxy": "", "SSL_CERT_FILE": ready.ca_bundle}
    environment = no_proxy | ENGINE_ENVIRONMENT
    async with machine(bench.folder / "proxied", launcher=launcher, environment=environment) as driven:
        proxy_url = ready.proxy.replace("http://", "http://tenant:secret@")
        answer = await driven.open("proxied", bench.store("proxied"), "Acme", proxy_url)
        assert answer.error is None
        await driven.event("proxied", port.QrIssued)
        answer = await driven.open("nowhere", bench.store("nowhere"), "Acme", "http://127.0.0.1:1")
        assert answer.error
        answer = await driven.open("odd", bench.store("odd"), "Acme", "gopher://127.0.0.1:1")
        assert answer.error
        assert b"secret" not in driven.log
        assert await driven.end() == 0


async def test_a_connect_that_fails_late_is_told(bench: Bench, well: Driven) -> None:
    """An opening does not wait for a silent network; when the connect fails after all, ConnectFailed says so."""
    async with silent_proxy() as (address, callers):
        answer = await well.open("late", bench.store("late"), "Acme", f"http://{address}")
        assert answer.error is None
        assert not well.events("late", port.ConnectFailed)
        for caller in callers:
            caller.transport.abort()
        await well.event("late", port.ConnectFailed)
        assert (await well.ask(CloseSession("late"))).error is None


async def test_a_connect_that_hangs_does_not_hold_up_its_close(bench: Bench, well: Driven) -> None:
    """A proxy may be silent for ever: the session is closed all the same, and can be opened another way."""
    async with silent_proxy() as (address, _):
        answer = await well.open("hanging", bench.store("hanging"), "Acme", f"socks5://{address}")
        assert answer.error is None
        assert (await well.ask(CloseSession("hanging"), 30)).error is None
        await bench.open(well, "hanging")
        await well.event("hanging", port.QrIssued)
