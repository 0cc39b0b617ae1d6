"""A webhook receiver in a process of its own, which keeps its own record: what arrived, not what a sender believes.

As a program, `python tests/receiver.py --log FILE` prints `{"ports": [...]}` and appends one JSON line per request:
`{"at_ms", "at_s", "method", "target", "headers", "body", "status"}` (`at_s`: seconds of CLOCK_MONOTONIC, comparable
with other processes here; `status`: what was answered, null if nothing). As a module, `Receiver` starts and reads it.

The first segment of the path is the behaviour: ok, hang, gone, close, endless (body without end), heads (headers
without end), informs (1xx without end), bulky (the same, of 940 KiB each), hints (two 1xx, then 200), drip (one byte a
second), `status-503`, `retry-7` (503 with Retry-After: 7), `slow-0.2` (then 200), `fail-3` (500 for the first 3
requests of each webhook-id, then 200), `poison-WORD` (500 if the body holds WORD), `slowpoison-WORD` (the same, 0.4 s
later), `redirect-302` (to /stolen on the same receiver), mute (200, counted but not recorded: see `count`), `named-X`
(whatever `PUT /_set/X/BEHAVIOUR` said last; 500 before).
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from io import FileIO
from pathlib import Path
from typing import Any

# --- the module's side ------------------------------------------------------------------------------------------------


class Receiver:
    """A running receiver. `close` ends the process."""

    def __init__(self, folder: Path, name: str = "receiver", ports: int = 1) -> None:
        self.log = folder / f"{name}.jsonl"
        self.log.touch()
        command = [sys.executable, __file__, "--log", str(self.log), "--ports", str(ports)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.ports: list[int] = json.loads(self._process.stdout.readline())["ports"]
        self.port = self.ports[0]
        self.pid = self._process.pid
        self._read_bytes = 0
        self._requests: list[dict[str, Any]] = []

    def url(self, path: str = "ok", port: int = 0) -> str:
        """The URL whose first path segment is the behaviour; `port` counts the ports it listens on."""
        return f"http://127.0.0.1:{self.ports[port]}/{path}"

    def requests(self) -> list[dict[str, Any]]:
        """Everything that arrived so far, in order; only what is new is read from the file."""
        with self.log.open("rb") as file:
            file.seek(self._read_bytes)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        self._requests += [json.loads(line) for line in whole.splitlines()]
        return self._requests

    async def wait_for(self, count: int, timeout_s: float = 20.0) -> list[dict[str, Any]]:
        """Wait until `count` requests have arrived."""
        deadline = time.monotonic() + timeout_s
        while len(self.requests()) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self.requests())} of {count} requests arrived in {timeout_s} s")
            await asyncio.sleep(0.02)
        return self.requests()

    async def set(self, name: str, behaviour: str) -> None:
        """Give the name behind `named-X` a behaviour."""
        await self._ask(f"/_set/{name}/{behaviour}")

    async def count(self) -> int:
        """How many requests the mute behaviour has answered."""
        return int((await self._ask("/_count")).split()[-1])

    async def _ask(self, path: str) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"PUT {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return head

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait(10)
        if self._process.stdout:
            self._process.stdout.close()


# --- the program's side -----------------------------------------------------------------------------------------------


_INFORMATION = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
_FILLER = b"x-filler: " + b"y" * 8000 + b"\r\n"


class _State:
    """Shared by all connections: the log, and what named and failing behaviours remember."""

    def __init__(self, log: FileIO) -> None:
        self.log = log
        self.named: dict[str, str] = {}
        self.seen: Counter[str] = Counter()
        self.muted = 0

    def write(self, record: dict[str, Any]) -> None:
        """At once, and before the answer: whoever has heard of our answer may look for the request here."""
        self.log.write(json.dumps(record, separators=(",", ":")).encode() + b"\n")


class _Connection(asyncio.Protocol):
    """HTTP/1.1 with Content-Length bodies, which is what a webhook sender speaks."""

    def __init__(self, state: _State) -> None:
        self._state = state
        self._buffer = b""
        self._answers: list[bytes] | None = None  # held back until the request is in the record
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        for task in self._tasks:
            task.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while True:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            lines = self._buffer[:end].decode("latin-1").split("\r\n")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
            size = int(headers.get("content-length", "0"))
            if len(self._buffer) < end + 4 + size:
                return
            body = self._buffer[end + 4 : end + 4 + size]
            self._buffer = self._buffer[end + 4 + size :]
            method, target, _ = lines[0].split(" ", 2)
            self._request(method, target, headers, body.decode("utf-8", "replace"))

    def _request(self, method: str, target: str, headers: dict[str, str], body: str) -> None:
        segments = target.split("?", maxsplit=1)[0].split("/")
        if segments[1] == "_set":
            self._state.named[segments[2]] = segments[3]
            self._answer(200)
            return
        if segments[1] == "_count":
            self._answer(200, f"x-count: {self._state.muted}\r\n")
            return
        behaviour = segments[1] or "ok"
        if behaviour == "mute":
            self._state.muted += 1
            self._answer(200)
            return
        if behaviour.startswith("named-"):
            behaviour = self._state.named.get(behaviour[6:], "status-500")
        self._answers = []
        status = self._behave(behaviour, headers, body)
        self._state.write(
            {
                "at_ms": time.time_ns() // 1_000_000,
                "at_s": time.monotonic(),
                "method": method,
                "target": target,
                "headers": headers,
                "body": body,
                "status": status,
            }
        )
        answers, self._answers = self._answers, None
        for answer in answers:
            self._transport.write(answer)

    def _behave(self, behaviour: str, headers: dict[str, str], body: str) -> int | None:
        name, _, value = behaviour.partition("-")
        if name == "ok" or name == "stolen":
            return self._answer(200)
        if name == "slowpoison" and value not in body:
            return self._answer(200)
        if name == "hints":
            self._transport.write(2 * _INFORMATION)
            return self._answer(200)
        if name in ("hang", "endless", "heads", "informs", "bulky", "drip", "slow", "slowpoison"):
            task = asyncio.get_running_loop().create_task(self._slowly(name, value))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return {"slow": 200, "slowpoison": 500}.get(name)
        if name == "close":
            self._transport.close()
            return None
        if name == "fail":
            key = headers.get("webhook-id", "")
            self._state.seen[key] += 1
            return self._answer(500 if self._state.seen[key] <= int(value) else 200)
        if name == "poison":
            return self._answer(500 if value in body else 200)
        if name == "redirect":
            return self._answer(int(value), "location: /stolen\r\n")
        if name == "retry":
            return self._answer(503, f"retry-after: {value}\r\n")
        return self._answer({"gone": 410}.get(name) or int(value or 200))

    def _answer(self, status: int, extra: str = "") -> int:
        answer = f"HTTP/1.1 {status} X\r\ncontent-length: 2\r\n{extra}\r\nok".encode()
        if self._answers is None:
            self._transport.write(answer)
        else:
            self._answers.append(answer)
        return status

    async def _slowly(self, name: str, value: str) -> None:
        if name == "slow":
            await asyncio.sleep(float(value))
            self._answer(200)
        elif name == "slowpoison":
            await asyncio.sleep(0.4)
            self._answer(500)
        elif name == "endless":
            self._transport.write(b"HTTP/1.1 200 X\r\ncontent-length: 99999999999\r\n\r\n")
            await self._pour(b"x" * 65536)
        elif name == "heads":
            self._transport.write(b"HTTP/1.1 200 X\r\n")
            await self._pour(_FILLER)
        elif name == "informs":
            await self._pour(2000 * _INFORMATION)
        elif name == "bulky":
            await self._pour(b"HTTP/1.1 103 Early Hints\r\n" + 120 * _FILLER + b"\r\n")
        elif name == "drip":
            self._transport.write(b"HTTP/1.1 200 X\r\ncontent-length: 1000\r\n\r\n")
            for _ in range(1000):
                await asyncio.sleep(1.0)
                self._transport.write(b"x")
        else:
            await asyncio.sleep(3600)

    async def _pour(self, chunk: bytes) -> None:
        while not self._transport.is_closing():
            for _ in range(16):
                if self._transport.get_write_buffer_size() < 1 << 20 and not self._transport.is_closing():
                    self._transport.write(chunk)
            await asyncio.sleep(0.001)


async def _serve(log: Path, ports: int) -> None:
    with FileIO(log, "ab") as file:
        state = _State(file)
        loop = asyncio.get_running_loop()
        servers = [
            await loop.create_server(lambda: _Connection(state), "127.0.0.1", 0, backlog=4096) for _ in range(ports)
        ]
        print(json.dumps({"ports": [server.sockets[0].getsockname()[1] for server in servers]}), flush=True)  # noqa: T201
        parent = os.getppid()
        while os.getppid() == parent:
            await asyncio.sleep(1.0)
        for server in servers:
            server.close()


def main() -> None:
    """Run until terminated."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--ports", type=int, default=1)
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        arguments = parser.parse_args()
        asyncio.run(_serve(arguments.log, arguments.ports))


if __name__ == "__main__":
    main()
