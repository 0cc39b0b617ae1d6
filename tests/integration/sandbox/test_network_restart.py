"""The sandbox as a process: it starts, is killed, comes back and has forgotten nothing."""

import asyncio
import json
import tempfile
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.sandbox.conftest import Clients
from tests.integration.sandbox.engine_client import EngineError
from tomada.sandbox.launch import RunningSandbox, start_sandbox

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


async def call(sandbox: RunningSandbox, method: str, path: str, body: Any = None) -> Any:
    """One control request; the decoded answer."""

    def send() -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(sandbox.ready.control + path, data, method=method)
        with _opener.open(request, timeout=20) as response:
            return json.load(response)

    return await asyncio.to_thread(send)


async def texts_of(sandbox: RunningSandbox, number: str) -> list[str]:
    """The texts in a phone's log."""
    return [m["text"] for m in await call(sandbox, "GET", f"/sandbox/phones/{number}/messages") if "text" in m]


@pytest.fixture
async def folder() -> AsyncIterator[Path]:
    """A directory that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="tomada-sandbox-") as made:
        yield Path(made)


async def test_kill_and_restart_lose_nothing(folder: Path, clients: Clients) -> None:
    """Pairing, messages, queue, ports and keys survive `kill -9`; the engine reconnects by itself."""
    sandbox = await start_sandbox(folder / "network")
    for number, name in (("15551110001", "Ann"), ("15551110002", "Ben")):
        await call(sandbox, "POST", "/sandbox/phones", {"number": number, "name": name})
    ann = await clients.start(sandbox.ready, "Ann Desk")
    qr = await ann.qr()
    linked = await call(sandbox, "POST", "/sandbox/phones/15551110001/scan", {"qr": qr})
    assert linked["name"] == "Ann Desk"
    await ann.wait("Connected")
    await ann.do("send", to="15551110002", text="before the crash")
    await call(sandbox, "POST", "/sandbox/phones/15551110002/send", {"to": "15551110001", "text": "to ann"})
    await ann.text("to ann")
    await ann.stop()
    await call(sandbox, "POST", "/sandbox/phones/15551110002/send", {"to": "15551110001", "text": "queued"})
    ready = sandbox.ready
    sandbox.process.kill()
    await sandbox.process.wait()

    sandbox = await start_sandbox(folder / "network")
    assert sandbox.ready == ready
    again = await clients.start(sandbox.ready, "Ann Desk")
    await again.wait("Connected")
    await again.text("queued")
    assert "before the crash" in await texts_of(sandbox, "15551110002")
    assert {"to ann", "queued"} <= set(await texts_of(sandbox, "15551110002"))

    sandbox.process.kill()
    await sandbox.process.wait()
    sandbox = await start_sandbox(folder / "network")
    await again.wait("Disconnected")
    await again.wait("Connected")
    await again.do("send", to="15551110002", text="after two crashes")
    async with asyncio.timeout(10):
        while "after two crashes" not in await texts_of(sandbox, "15551110002"):
            await asyncio.sleep(0.05)
    await again.stop()
    assert await sandbox.stop() == 0


async def test_what_was_acknowledged_survives_kills_under_traffic(folder: Path, clients: Clients) -> None:
    """Three kills while texts go both ways: each acknowledged one arrives, on the phone only once.

    The engine may report one twice, under one id: a sender that got no answer sends again. In and out are two chats,
    because the engine spoils its own keys when it sends to and receives from one device at the same moment.
    """
    sandbox = await start_sandbox(folder / "network")
    for number in ("15551110003", "15551110004", "15551110005"):
        await call(sandbox, "POST", "/sandbox/phones", {"number": number, "name": "Someone"})
    client = await clients.start(sandbox.ready, "Kim Desk")
    await call(sandbox, "POST", "/sandbox/phones/15551110003/scan", {"qr": await client.qr()})
    await client.wait("Connected")
    sent: list[str] = []
    received: list[str] = []
    ending = asyncio.Event()

    async def from_client() -> None:
        number = 0
        while not ending.is_set():
            number += 1
            try:
                await client.do("send", to="15551110004", text=f"out {number}")
            except EngineError:  # cut off before the answer: it may have arrived or not
                await asyncio.sleep(0.05)
            else:
                sent.append(f"out {number}")

    async def from_phone() -> None:
        number = 0
        while not ending.is_set():
            number += 1
            body = {"to": "15551110003", "text": f"in {number}"}
            try:
                await call(sandbox, "POST", "/sandbox/phones/15551110005/send", body)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                received.append(f"in {number}")

    traffic = [asyncio.create_task(from_client()), asyncio.create_task(from_phone())]
    for _ in range(3):
        await asyncio.sleep(0.7)
        sandbox.process.kill()
        await sandbox.process.wait()
        sandbox = await start_sandbox(folder / "network")
        await client.wait("Connected")
    await asyncio.sleep(0.5)
    ending.set()
    await asyncio.gather(*traffic)
    await client.do("send", to="15551110004", text="the end")
    await call(sandbox, "POST", "/sandbox/phones/15551110005/send", {"to": "15551110003", "text": "in end"})
    await client.wait("Message", lambda e: e["text"] == "in end")

    seen = {e["id"]: e["text"] for e in client.events if e["event"] == "Message"}
    assert len(sent) > 10
    assert len(received) > 10
    async with asyncio.timeout(15):  # some are asked for again
        while missing := set(sent) - set(arrived := await texts_of(sandbox, "15551110004")):
            await asyncio.sleep(0.2)
    assert not missing
    assert sorted(set(received) - set(seen.values())) == []
    assert len(arrived) == len(set(arrived))
    await client.stop()
    assert await sandbox.stop() == 0


async def test_a_directory_serves_one_process(folder: Path) -> None:
    """A second sandbox on the same directory refuses to start; after the first ended, or while it ends, it may."""
    first = await start_sandbox(folder)
    with pytest.raises(RuntimeError):
        await start_sandbox(folder)
    assert await first.stop() == 0

    second = await start_sandbox(folder)
    second.process.terminate()
    third = await start_sandbox(folder)
    assert await second.process.wait() == 0
    assert await third.stop() == 0


async def test_the_proxy_refuses_everything_else(folder: Path) -> None:
    """CONNECT to any other host, and anything that is not CONNECT, gets 403."""
    sandbox = await start_sandbox(folder)
    host, _, port = sandbox.ready.proxy.removeprefix("http://").partition(":")
    for head in ("CONNECT example.com:443", "CONNECT whatsapp.com.evil.org:443", "GET http://web.whatsapp.com/"):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"{head} HTTP/1.1\r\n\r\n".encode())
        assert b" 403 " in await reader.readline()
        writer.close()
    assert await sandbox.stop() == 0


async def test_bad_faults_are_refused_with_a_reason(folder: Path) -> None:
    """The control route answers 400 and says why."""
    sandbox = await start_sandbox(folder)
    bodies: list[Any] = [{}, {"kind": "nonsense"}, {"kind": "delay", "ms": -1}, [], "x"]
    for body in bodies:
        with pytest.raises(urllib.error.HTTPError) as caught:
            await call(sandbox, "POST", "/sandbox/faults", body)
        with caught.value as answer:
            assert answer.code == 400
            assert json.load(answer)["error"]
    assert await sandbox.stop() == 0
