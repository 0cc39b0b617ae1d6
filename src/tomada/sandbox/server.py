"""The sandbox process: TLS server for clients, proxy that leads them here, control routes for people and tests.

    python -m tomada.sandbox --dir DIR [--port 0] [--die-with-parent]

When everything listens, one line of JSON goes to standard output; launchers read it (`launch`). Logs go to standard
error. SIGTERM and SIGINT end it cleanly with status 0.

Ports are remembered in the directory and taken again at the next start if they are free: machines that outlive a crash
of the sandbox find it where it was. Only one process may use a directory at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import fcntl
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from random import Random  # noqa: TID251 - seeded here, once, and passed in from here on

import msgspec
from aiohttp import web

from tomada.kit.clock import Clock, SystemClock
from tomada.sandbox.certs import NoiseIdentity, TlsFiles, noise_identity, server_context, tls_files
from tomada.sandbox.connection import Connection
from tomada.sandbox.launch import Ready
from tomada.sandbox.media import add_routes
from tomada.sandbox.network import Network
from tomada.sandbox.network_session import serve_connection
from tomada.sandbox.proxy import Proxy

_HOST = "127.0.0.1"
_BACKLOG = 1024
_WS_BYTES_MAX = 1 << 25
_PR_SET_PDEATHSIG = 1
_SHUTDOWN_TIMEOUT_S = 2.0
_LOCK_TIMEOUT_S = 5.0
_IDLE_TIMEOUT_S = 240.0
"""Clients send a keepalive at least every 30 seconds; one that is silent for so long is gone."""

ControlApp = Callable[[Network], Awaitable[web.Application]]
"""Makes the control routes of a network."""


class Sandbox:
    """The running servers of one sandbox directory."""

    def __init__(self, directory: Path, clock: Clock, random: Random) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)  # it holds the phones' keys and messages
        self._lock = _lock(directory)
        self.network = Network(directory, clock, random)
        self.tls: TlsFiles = tls_files(directory, clock.now_ms())
        self.identity: NoiseIdentity = noise_identity(directory, clock.now_ms())
        self._runners: list[web.AppRunner] = []
        self._sockets: set[web.WebSocketResponse] = set()
        self.proxy: Proxy | None = None

    async def start(self, control: ControlApp | None = None, control_port: int = 0) -> Ready:
        """Listen everywhere; returns what a launcher must know (`control` is empty without control routes)."""
        control_url = ""
        if control:  # first, because it brings the stored phones back
            wanted = control_port or self._remembered("control")
            port = await self._listen(await control(self.network), wanted, tls=False)
            self._remember("control", port)
            control_url = f"http://{_HOST}:{port}"
        tls_port = await self._listen(self._client_app(), 0, tls=True)
        self.proxy = Proxy(tls_port)
        await self._start_proxy(self.proxy)
        return Ready(
            control=control_url,
            proxy=f"http://{_HOST}:{self.proxy.port}",
            ca_bundle=str(self.tls.bundle.resolve()),
            noise_root=self.identity.root_public.hex(),
        )

    async def stop(self) -> None:
        """End all connections and close the store."""
        for connection in tuple(self.network.connections):
            connection.abort()
        if self.proxy:
            await self.proxy.stop()
        for runner in reversed(self._runners):
            await runner.cleanup()
        await self.network.close()
        os.close(self._lock)

    async def _listen(self, app: web.Application, port: int, *, tls: bool) -> int:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT_S)
        await runner.setup()
        self._runners.append(runner)
        context = server_context(self.tls) if tls else None
        try:
            await web.TCPSite(runner, _HOST, port, ssl_context=context, backlog=_BACKLOG).start()
        except OSError:
            if not port:
                raise
            await web.TCPSite(runner, _HOST, 0, ssl_context=context, backlog=_BACKLOG).start()
        return int(runner.addresses[0][1])

    async def _start_proxy(self, proxy: Proxy) -> None:
        try:
            await proxy.start(_HOST, self._remembered("proxy"))
        except OSError:
            await proxy.start(_HOST, 0)
        self._remember("proxy", proxy.port)

    def _remembered(self, name: str) -> int:
        return int(self.network.storage.record("port", name) or 0)

    def _remember(self, name: str, port: int) -> None:
        self.network.storage.put_record("port", name, str(port).encode())

    def _client_app(self) -> web.Application:
        app = web.Application(client_max_size=_WS_BYTES_MAX)
        app.router.add_get("/ws/chat", self._serve_websocket)
        add_routes(app.router, self.network.media)
        return app

    async def _serve_websocket(self, request: web.Request) -> web.StreamResponse:
        faults = self.network.world.faults
        faults.connected()
        if faults.find("refuse", None):
            return web.Response(status=503)
        websocket = web.WebSocketResponse(
            compress=False, max_msg_size=_WS_BYTES_MAX, timeout=1.0, receive_timeout=_IDLE_TIMEOUT_S
        )
        await websocket.prepare(request)
        connection = Connection(self.network.world, websocket, request.transport)
        await serve_connection(self.network, connection, self.identity)
        return websocket


def _lock(directory: Path) -> int:
    """Take the directory for this process; the kernel gives it back however the process ends.

    Waits a while, because a predecessor whose parent was killed may still be ending.
    """
    handle = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline_s = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if time.monotonic() > deadline_s:
                os.close(handle)
                raise RuntimeError(f"{directory} is in use by another sandbox") from error
            time.sleep(0.05)
        else:
            return handle


def die_with_parent() -> None:
    """Have the kernel end this process when its parent ends (Linux); exits at once if that already happened."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent or parent == 1:
        sys.exit(0)


async def run(directory: Path, control_port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    from tomada.sandbox.control import control_app

    sandbox = Sandbox(directory, SystemClock(), Random(secrets.randbits(128)))  # noqa: S311 - ids of a simulation
    try:
        ready = await sandbox.start(control_app, control_port)
        sys.stdout.write(msgspec.json.encode(ready).decode() + "\n")
        sys.stdout.flush()
        await stop.wait()
    finally:
        await sandbox.stop()


def main(argv: Sequence[str] | None = None) -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m tomada.sandbox", description="A simulated WhatsApp network.")
    parser.add_argument("--dir", type=Path, required=True, help="where its state lies; made if it is not there")
    parser.add_argument("--port", type=int, default=0, help="port of the control routes; 0 = any free one")
    parser.add_argument("--die-with-parent", action="store_true", help="end when the starting process ends")
    parser.add_argument("--verbose", action="store_true", help="log what happens")
    arguments = parser.parse_args(argv)
    if arguments.die_with_parent:
        die_with_parent()
    logging.basicConfig(
        level=logging.INFO if arguments.verbose else logging.WARNING,
        format="%(asctime)s %(name)s %(message)s",
    )
    asyncio.run(run(arguments.dir, arguments.port))
