"""A real DNS server on loopback whose answers a test can change between two questions, and a resolver that asks it."""

import asyncio
import contextlib
import ipaddress
import socket
import struct
from collections.abc import AsyncIterator
from typing import cast

from aiohttp.abc import AbstractResolver, ResolveResult


class NameServer(asyncio.DatagramProtocol):
    """Answers A and AAAA questions. `answers[name]` is a list of answers (each a list of addresses), taken in turn."""

    def __init__(self) -> None:
        self.answers: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        self.port: int = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode())
            at += 1 + data[at]
        question = data[12 : at + 5]
        name, kind = ".".join(labels).lower(), struct.unpack(">H", data[at + 1 : at + 3])[0]
        wanted = 4 if kind == 1 else 6
        queue = self.answers.get(name, [[]])
        addresses = queue[0]
        if wanted == 4:  # the pair of questions (A, AAAA) gets one answer; the A question moves on
            self.asked.append(name)
            if len(queue) > 1:
                queue.pop(0)
        packed = [ip.packed for ip in map(ipaddress.ip_address, addresses) if ip.version == wanted]
        records = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 0, len(p)) + p for p in packed)
        self._transport.sendto(
            data[:2] + struct.pack(">HHHHH", 0x8180, 1, len(packed), 0, 0) + question + records, addr
        )


@contextlib.asynccontextmanager
async def name_server() -> AsyncIterator[NameServer]:
    """A name server for the length of the block."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(NameServer, local_addr=("127.0.0.1", 0))
    try:
        yield server
    finally:
        transport.close()


class Resolver(AbstractResolver):
    """Asks one name server, AAAA first and A last, and keeps nothing."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        addresses = [*await self._ask(host, 28), *await self._ask(host, 1)]
        if not addresses:
            raise OSError("no such name")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=0,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """Nothing is held."""

    async def _ask(self, host: str, kind: int) -> list[str]:
        loop = asyncio.get_running_loop()
        name = b"".join(bytes([len(label)]) + label.encode() for label in host.rstrip(".").split(".")) + b"\0"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(("127.0.0.1", self._port))
            query = struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + name + struct.pack(">HH", kind, 1)
            await loop.sock_sendall(sock, query)
            async with asyncio.timeout(5):
                answer = await loop.sock_recv(sock, 4096)
        count = struct.unpack(">H", answer[6:8])[0]
        found, at = [], 12 + len(name) + 4
        for _ in range(count):
            size = struct.unpack(">H", answer[at + 10 : at + 12])[0]
            found.append(str(ipaddress.ip_address(answer[at + 12 : at + 12 + size])))
            at += 12 + size
        return found
