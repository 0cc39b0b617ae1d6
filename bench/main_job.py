"""Figures of the whole product on this machine: `python -m bench.main_job [--instances 50,200]`.

Everything is real and on one computer: server, PostgreSQL, machines, simulated network, load and receiver share its
cores, so read the CPU figures and the ratios, and take latencies as upper bounds. Prints a table in Markdown.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from aiohttp import web
from tests.acceptance.product import Account, Instance, Phone, Product, http, wait_for

CREATES = 1000
INBOUND = 300
ROWS: list[tuple[str, str]] = []


def note(what: str, figure: str) -> None:
    """A row of the table, shown at once."""
    ROWS.append((what, figure))
    print(f"| {what} | {figure} |", flush=True)


def milliseconds(samples: list[float]) -> str:
    """p50, p95 and p99."""
    cuts = statistics.quantiles(samples, n=100)
    return f"p50 {cuts[49] * 1000:.1f} ms, p95 {cuts[94] * 1000:.1f} ms, p99 {cuts[98] * 1000:.1f} ms"


class Callbacks:
    """A receiver in this process: when each callback came."""

    def __init__(self) -> None:
        self.arrived: list[tuple[float, dict[str, Any]]] = []
        self.url = ""

    async def start(self) -> None:
        """Listen on a free port."""
        application = web.Application()
        application.router.add_post("/{tail:.*}", self._take)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _take(self, request: web.Request) -> web.Response:
        at_s = time.perf_counter()
        self.arrived.append((at_s, json.loads(await request.read())))
        return web.Response()

    async def stop(self) -> None:
        """Close the port."""
        await self._runner.cleanup()


async def rate(clients: int, calls: int, call: Callable[[int], Awaitable[None]]) -> tuple[float, list[float]]:
    """Calls per second with so many clients, and the latency of each."""
    numbers = iter(range(calls))
    latencies: list[float] = []

    async def client() -> None:
        for number in numbers:
            began_s = time.perf_counter()
            await call(number)
            latencies.append(time.perf_counter() - began_s)

    began_s = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return calls / (time.perf_counter() - began_s), latencies


async def creates(account: Account, hooks: str) -> None:
    """The create call of the seed page."""
    body = {"name": "Bench", **{f"{kind}CallbackUrl": f"{hooks}/x" for kind in ("delivery", "received", "connected")}}
    url = f"{account.product.base}/instances/integrator/on-demand"
    connector = aiohttp.TCPConnector(limit=64)
    async with aiohttp.ClientSession(connector=connector, headers=account.headers) as session:  # noqa: TID251 - the load

        async def create(_: int) -> None:
            async with session.post(url, json=body) as reply:
                assert reply.status == 200, await reply.text()
                await reply.read()

        await rate(1, 50, create)  # warm
        for clients in (1, 64):
            per_s, latencies = await rate(clients, CREATES, create)
            note(f"create, {clients} client{'s' if clients > 1 else ''}", f"{per_s:.0f}/s, {milliseconds(latencies)}")


def create_to_qr(account: Account) -> None:
    """From the create call's answer to a readable QR code, once the first machine runs."""
    took = []
    for _ in range(10):
        instance = account.create_instance()
        began_s = time.perf_counter()
        assert instance.get("qr-code").status == 200
        took.append(time.perf_counter() - began_s)
    note("create to QR readable, first (a machine starts)", f"{took[0] * 1000:.0f} ms")
    note("create to QR readable, next", f"median {statistics.median(took[1:]) * 1000:.0f} ms")


def pair_all(account: Account, hooks: str, count: int) -> tuple[list[Instance], list[Phone], float]:
    """So many paired instances, four at a time; and seconds per pairing."""
    began_s = time.perf_counter()

    def pair(number: int) -> tuple[Instance, Phone]:
        instance = account.create_instance(hooks)
        phone = account.product.phone(f"55119{count:04d}{number:04d}", f"Phone {number}")
        instance.pair(phone)
        return instance, phone

    with ThreadPoolExecutor(4) as pool:
        pairs = list(pool.map(pair, range(count)))
    return [one for one, _ in pairs], [phone for _, phone in pairs], time.perf_counter() - began_s


def processes(product: Product) -> dict[str, list[psutil.Process]]:
    """The product's processes by what they are."""
    kinds: dict[str, list[psutil.Process]] = {"main": [], "machine": [], "postgresql": [], "sandbox": []}
    main = psutil.Process(product.pid)
    for process in (main, *main.children(recursive=True)):
        line = " ".join(process.cmdline())
        kind = "postgresql" if "postgres" in line.lower() and "tomada serve" not in line else "main"
        if "sandbox.machine" in line or "machines.process" in line:
            kind = "machine"
        elif "tomada.sandbox" in line:
            kind = "sandbox"
        kinds["main" if process == main else kind].append(process)
    return kinds


def rss_mb(members: list[psutil.Process]) -> float:
    """Resident memory together."""
    return float(sum(process.memory_info().rss for process in members)) / 1e6


def cpu_s(members: list[psutil.Process]) -> float:
    """CPU seconds used so far."""
    return float(sum(sum(process.cpu_times()[:2]) for process in members))


async def inbound(product: Product, instances: list[Instance], phones: list[Phone], callbacks: Callbacks) -> None:
    """A customer's message to the callback at the receiver, one at a time; then CPU in a burst."""
    customer = await asyncio.to_thread(product.phone, "5521900000001", "Customer")
    took = []
    for number in range(INBOUND):
        text = f"in {number}"
        began_s = time.perf_counter()
        await asyncio.to_thread(customer.send_text, phones[number % len(phones)].number, text)
        took.append(await _arrival(callbacks, text) - began_s)
    note("inbound message to callback received", milliseconds(took))
    kinds = processes(product)
    before = {kind: cpu_s(members) for kind, members in kinds.items()}
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(lambda number: customer.send_text(phones[number % len(phones)].number, f"b {number}"), range(600))
        )
    await _arrival(callbacks, "b 599")
    await asyncio.sleep(1)
    for kind, members in kinds.items():
        note(
            f"CPU per inbound message with its callback: {kind}",
            f"{(cpu_s(members) - before[kind]) / 600 * 1e3:.2f} ms",
        )


async def _arrival(callbacks: Callbacks, text: str) -> float:
    deadline_s = time.perf_counter() + 30
    while time.perf_counter() < deadline_s:
        for at_s, body in reversed(callbacks.arrived[-800:]):
            if body.get("text", {}).get("message") == text:
                return float(at_s)
        await asyncio.sleep(0.001)
    raise AssertionError(f"no callback for {text}")


def restart(product: Product, instances: list[Instance]) -> None:
    """Stop, start, and wait until every paired instance is connected again."""
    assert product.stop() == 0
    began_s = time.perf_counter()
    product.start()
    ready_s = time.perf_counter() - began_s

    def connected() -> int:
        reply = http("GET", f"{product.base}/instances?page=1&pageSize=1000", headers=instances[0].account.headers)
        return sum(bool(one["whatsappConnected"]) for one in reply.body["content"])

    wait_for("all connected", lambda: connected() >= len(instances), 120)
    note(
        f"restart with {len(instances)} paired instances",
        f"HTTP ready after {ready_s:.1f} s, all connected after {time.perf_counter() - began_s:.1f} s",
    )


async def run(counts: list[int]) -> None:
    """All figures."""
    print(
        f"{platform.processor() or platform.machine()}, {psutil.cpu_count()} cores, Python {platform.python_version()}"
    )
    print(f"load average at start {psutil.getloadavg()[0]:.1f}\n\n| what | figure |\n| --- | --- |")
    callbacks = Callbacks()
    await callbacks.start()
    with tempfile.TemporaryDirectory() as scratch:
        os.chmod(scratch, 0o755)  # noqa: PTH101 - as root the database runs under another uid and must pass here
        product = Product(Path(scratch) / "data", {"TOMADA_INSTANCES_PER_MACHINE": "50"})
        await asyncio.to_thread(product.start)
        try:
            account = await asyncio.to_thread(product.create_account, "--limit", "100000")
            await creates(account, callbacks.url)
            paired_by = await asyncio.to_thread(product.create_account, "--limit", "100000")
            await asyncio.to_thread(create_to_qr, paired_by)
            for count in counts:
                paired_by = await asyncio.to_thread(product.create_account, "--limit", "100000")
                await asyncio.to_thread(wait_for, "machines", lambda: True)
                idle_mb = rss_mb(processes(product)["machine"])
                instances, phones, took_s = await asyncio.to_thread(pair_all, paired_by, callbacks.url, count)
                kinds = processes(product)
                note(f"pairing {count} instances, 4 at a time", f"{took_s / count * 1000:.0f} ms each")
                machines_mb = rss_mb(kinds["machine"])
                note(
                    f"RSS with {count} connected",
                    f"{len(kinds['machine'])} machines {machines_mb:.0f} MB (idle before {idle_mb:.0f} MB): "
                    f"{(machines_mb - 80 * len(kinds['machine'])) / count:.2f} MB per instance beyond 80 per machine; "
                    f"main {rss_mb(kinds['main']):.0f} MB",
                )
                await inbound(product, instances, phones, callbacks)
                await asyncio.to_thread(restart, product, instances)
        finally:
            await asyncio.to_thread(product.stop)
    await callbacks.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", default="50,200", help="paired instances, one round each")
    asyncio.run(run([int(count) for count in parser.parse_args().instances.split(",")]))
