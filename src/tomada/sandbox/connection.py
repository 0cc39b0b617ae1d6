"""One client connection: frames over a WebSocket, the handshake, and a queue of what is to be sent.

Frames are a 3-byte length and a payload; a WebSocket message may hold a part of one or several. The client starts
with `WA` 06 03 (sometimes routing information before it), which is also the handshake's prologue.

Sending never waits: `push` puts a stanza into a bounded queue and one task seals and writes it, several frames in
one message when they pile up. A client too slow for the bound is cut; it loses nothing, because what must arrive
is in the store. Standing faults that concern delivery (`delay`, `deaf`, `corrupt`, `redeliver`) act here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import msgspec
from aiohttp import WSMsgType, web
from google.protobuf.message import DecodeError

from tomada.sandbox.certs import NoiseIdentity
from tomada.sandbox.codec import BODY_BYTES_MAX, decode, encode
from tomada.sandbox.network_state import World, log
from tomada.sandbox.node import Node
from tomada.sandbox.noise import FrameCipher, ServerHandshake
from tomada.sandbox.protos import wa6

OUTBOX_MAX = 40_000
_BATCH_BYTES = 65_536
_HANDSHAKE_TIMEOUT_S = 20.0
_REQUEST_TIMEOUT_S = 20.0
_LINGER_S = 0.25
"""Pause between a last stanza and the close: a client that sees both at once may forget what the stanza said."""
_HEADER_BYTES = 4
_ROUTING_MAGIC = b"ED"
_CLIENT_MAGIC = b"WA"


class ProtocolError(Exception):
    """The client does not speak the protocol; the connection is closed."""


class Hello(msgspec.Struct, frozen=True):
    """Who connected: its public transport key and the decoded `ClientPayload`."""

    static: bytes
    payload: Any


class Connection:
    """A client's connection; it is the `Link` of a device once that device has logged in."""

    _numbers = count(1)

    def __init__(self, world: World, websocket: web.WebSocketResponse, transport: asyncio.Transport | None):
        self.number = next(self._numbers)
        self.active = False
        self.account_number = ""
        """The phone number it logged in as; empty before."""
        self._world, self._websocket, self._transport = world, websocket, transport
        self._cipher: FrameCipher | None = None
        self._outbox: deque[tuple[float, Node]] = deque()
        self._wake = asyncio.Event()
        self._closing = False
        self._waiting: dict[str, asyncio.Future[Node]] = {}
        self._ids = count(1)
        self._opened_s = world.clock.monotonic_s()
        self._frames = _frames(websocket)
        self._writer: asyncio.Task[None] | None = None

    @property
    def deaf(self) -> bool:
        """Whether a fault makes this connection deaf now: open, alive, and useless."""
        return self._world.faults.deaf(self.account_number, self._opened_s)

    async def greet(self, identity: NoiseIdentity) -> Hello:
        """Do the handshake; `ProtocolError` if it fails or takes too long."""
        try:
            async with asyncio.timeout(_HANDSHAKE_TIMEOUT_S):
                hello = await self._handshake(identity)
        except (TimeoutError, DecodeError, StopAsyncIteration) as error:
            raise ProtocolError(f"handshake: {error!r}") from error
        self._writer = asyncio.create_task(self._write())
        return hello

    async def stanzas(self) -> AsyncIterator[Node]:
        """Everything the client sends after the handshake, save answers to our own requests."""
        assert self._cipher is not None
        async for frame in self._frames:
            node = decode(self._cipher.open(frame))
            if node.tag == "iq" and node.attrs.get("type") in ("result", "error"):
                future = self._waiting.pop(node.text("id"), None)
                if future and not future.done():
                    future.set_result(node)
            elif node.tag == "xmlstreamend":
                return
            else:
                yield node

    async def request(self, iq: Node) -> Node:
        """Send an `iq` of ours and wait for the answer; `ConnectionError` if the client goes or stays silent."""
        request_id = f"tmd-{self.number}-{next(self._ids)}"
        future: asyncio.Future[Node] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = future
        self.push(iq.with_attrs({"id": request_id}))
        try:
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                return await future
        except TimeoutError as error:
            raise ConnectionError("the client did not answer") from error
        finally:
            self._waiting.pop(request_id, None)

    def push(self, node: Node, seq: int = 0) -> None:
        """Queue a stanza; see the module docstring for the faults that may change its fate."""
        faults = self._world.faults
        if self._closing or self.deaf:
            return
        if node.tag == "message":
            if faults.use("corrupt", self.account_number):
                node = _corrupted(node)
            if faults.use("redeliver", self.account_number):
                self._enqueue(node)
        self._enqueue(node)

    def push_always(self, node: Node) -> None:
        """Queue a stanza even while the connection is deaf (keepalive answers)."""
        self._enqueue(node)

    def close(self, last: Node | None = None) -> None:
        """Send this last node after what is queued, then close."""
        if self._closing:
            return
        if last:
            self._enqueue(last)
        self._closing = True
        self._wake.set()

    def abort(self) -> None:
        """Cut the TCP connection at once."""
        self._closing = True
        self._outbox.clear()
        if self._transport:
            self._transport.abort()

    async def finish(self) -> None:
        """Free everything; called once, at the end of the connection."""
        self._closing = True
        self._wake.set()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionError("the client is gone"))
        if self._writer:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        with contextlib.suppress(ConnectionError, RuntimeError):
            await self._websocket.close()

    async def _handshake(self, identity: NoiseIdentity) -> Hello:
        header = await anext(self._frames)
        hello = wa6.HandshakeMessage.FromString(await anext(self._frames)).clientHello
        if len(hello.ephemeral) != 32:
            raise ProtocolError("no ephemeral key")
        handshake = ServerHandshake(header, identity.static, identity.chain)
        ephemeral, static, payload = handshake.answer(hello.ephemeral)
        answer = wa6.HandshakeMessage()
        answer.serverHello.ephemeral = ephemeral
        answer.serverHello.static = static
        answer.serverHello.payload = payload
        await self._websocket.send_bytes(_framed(answer.SerializeToString()))
        finish = wa6.HandshakeMessage.FromString(await anext(self._frames)).clientFinish
        client_static, client_payload, self._cipher = handshake.finish(finish.static, finish.payload)
        return Hello(client_static, wa6.ClientPayload.FromString(client_payload))

    def _enqueue(self, node: Node) -> None:
        if len(self._outbox) >= OUTBOX_MAX:
            self.abort()
            return
        loop_time = asyncio.get_running_loop().time()
        due = loop_time + self._world.faults.delay_s(self.account_number)
        if self._outbox:
            due = max(due, self._outbox[-1][0])
        self._outbox.append((due, node))
        self._wake.set()

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self._outbox:
                if self._closing:
                    break
                self._wake.clear()
                await self._wake.wait()
                continue
            late_s = self._outbox[0][0] - loop.time()
            if late_s > 0:
                await asyncio.sleep(late_s)
                continue
            try:
                await self._websocket.send_bytes(self._next_batch(loop.time()))
            except (ConnectionError, RuntimeError, ValueError) as error:
                log.info("connection %d cannot be written to: %r", self.number, error)
                self.abort()
                return
        await asyncio.sleep(_LINGER_S)
        with contextlib.suppress(ConnectionError, RuntimeError):
            await self._websocket.close()

    def _next_batch(self, now: float) -> bytes:
        assert self._cipher is not None
        batch = bytearray()
        while self._outbox and self._outbox[0][0] <= now and len(batch) < _BATCH_BYTES:
            batch += _framed(self._cipher.seal(encode(self._outbox.popleft()[1])))
        return bytes(batch)


async def _frames(websocket: web.WebSocketResponse) -> AsyncIterator[bytes]:
    """The 4-byte header first, then the payload of each frame."""
    buffer = bytearray()
    greeted = False
    async for message in websocket:
        if message.type != WSMsgType.BINARY:
            continue
        buffer += message.data
        if not greeted:
            header = _take_header(buffer)
            if header is None:
                continue
            greeted = True
            yield header
        while len(buffer) >= 3:
            end = 3 + int.from_bytes(buffer[:3], "big")
            if end > BODY_BYTES_MAX:
                raise ProtocolError("frame too long")
            if len(buffer) < end:
                break
            frame = bytes(buffer[3:end])
            del buffer[:end]
            yield frame


def _take_header(buffer: bytearray) -> bytes | None:
    """Remove routing information and header from the start; None if more bytes are needed."""
    if buffer[:2] == _ROUTING_MAGIC:
        if len(buffer) < 7 or len(buffer) < 7 + int.from_bytes(buffer[4:7], "big") + _HEADER_BYTES:
            return None
        del buffer[: 7 + int.from_bytes(buffer[4:7], "big")]
    if len(buffer) < _HEADER_BYTES:
        return None
    header = bytes(buffer[:_HEADER_BYTES])
    if header[:2] != _CLIENT_MAGIC:
        raise ProtocolError(f"unknown header {header.hex()}")
    del buffer[:_HEADER_BYTES]
    return header


def _framed(payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + payload


def _corrupted(node: Node) -> Node:
    """The same message with one bit of each ciphertext flipped.

    Not at the very end: there a first message of a session carries a key id, which no code protects.
    """
    children = tuple(
        child.with_content(_flipped(child.data)) if child.tag == "enc" and child.data else child for child in node.nodes
    )
    return node.with_content(children)


def _flipped(data: bytes) -> bytes:
    at = max(len(data) - 20, 0)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
