"""The sandbox process: TLS server for clients, proxy that leads them here, control routes for people and tests.

    python -m tomada.sandbox --dir DIR [--port 0] [--die-with-parent]

When everything listens, one line of JSON goes to standard output; launchers read it (`launch`). Logs go to standard
error. SIGTERM and SIGINT end it cleanly with status 0.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import logging
import os
import secrets
import signal
import sys
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

ControlApp = Callable[[Network], Awaitable[web.Application]]
"""Makes the control routes of a network."""


class Sandbox:
    """The running servers of one sandbox directory."""

    def __init__(self, directory: Path, clock: Clock, random: Random) -> None:
        directory.mkdir(parents=True, exist_ok=True)
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
            port = await self._listen(await control(self.network), control_port, tls=False)
            control_url = f"http://{_HOST}:{port}"
        tls_port = await self._listen(self._client_app(), 0, tls=True)
        self.proxy = Proxy(tls_port)
        await self.proxy.start()
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

    async def _listen(self, app: web.Application, port: int, *, tls: bool) -> int:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT_S)
        await runner.setup()
        self._runners.append(runner)
        context = server_context(self.tls) if tls else None
        await web.TCPSite(runner, _HOST, port, ssl_context=context, backlog=_BACKLOG).start()
        return int(runner.addresses[0][1])

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
        websocket = web.WebSocketResponse(compress=False, max_msg_size=_WS_BYTES_MAX, timeout=1.0)
        await websocket.prepare(request)
        connection = Connection(self.network.world, websocket, request.transport)
        await serve_connection(self.network, connection, self.identity)
        return websocket


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
