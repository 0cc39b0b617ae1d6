"""What the benches of the whole product share: the receiver, CPU by kind of process, the load, the machine described.

CPU is what the operating system charged to the product's processes (psutil), those of PostgreSQL that ended included;
what the load, the receiver and the bench itself use is in processes of their own and is not counted.
"""

import asyncio
import contextlib
import datetime
import json
import platform
import sqlite3
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import psutil
from aiohttp import web
from tests.acceptance.product import Product

SETTLE_S = 1.0  # for what still runs after the last callback


def note(what: str, figure: str) -> None:
    """A row of the table, shown at once."""
    print(f"| {what} | {figure} |", flush=True)


def milliseconds(samples: list[float]) -> str:
    """p50, p95 and p99."""
    cuts = statistics.quantiles(samples, n=100)
    return f"p50 {cuts[49] * 1000:.1f} ms, p95 {cuts[94] * 1000:.1f} ms, p99 {cuts[98] * 1000:.1f} ms"


def machine() -> str:
    """What this ran on."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return (
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC; {model}, {psutil.cpu_count()} cores, "  # noqa: TID251 - a report
        f"{psutil.virtual_memory().total / 1e9:.0f} GB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}; load average at start {psutil.getloadavg()[0]:.1f}"
    )


Session = aiohttp.ClientSession  # noqa: TID251 - the load is not the product


# --- the receiver ---------------------------------------------------------------------------------------------------


class Callbacks:
    """A receiver in this process: how many callbacks came, and when which text did."""

    def __init__(self) -> None:
        self.count = 0
        self.texts: dict[str, float] = {}  # text of a ReceivedCallback -> when it came
        self.url = ""
        self._came = asyncio.Condition()

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
        body = json.loads(await request.read())
        self.count += 1
        if "text" in body:
            self.texts[body["text"]["message"]] = at_s
        async with self._came:
            self._came.notify_all()
        return web.Response()

    async def until(self, what: str, condition: Callable[[], bool], limit_s: float = 120.0) -> None:
        """Wait until the condition on what came holds."""
        try:
            async with asyncio.timeout(limit_s), self._came:
                await self._came.wait_for(condition)
        except TimeoutError:
            raise AssertionError(f"{what}: not within {limit_s:g} s") from None

    async def text(self, text: str) -> float:
        """When the callback with this text came."""
        await self.until(f"callback for {text}", lambda: text in self.texts)
        return self.texts[text]

    async def stop(self) -> None:
        """Close the port."""
        await self._runner.cleanup()


# --- processes ------------------------------------------------------------------------------------------------------


def processes(product: Product) -> dict[str, list[psutil.Process]]:
    """The product's processes by what they are."""
    kinds: dict[str, list[psutil.Process]] = {"main": [], "PostgreSQL": [], "machines": [], "sandbox": []}
    main = psutil.Process(product.pid)
    kinds["main"].append(main)
    for process in main.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            line = " ".join(process.cmdline())
            if "tomada-machine" in line:
                kinds["machines"].append(process)
            elif "tomada.sandbox" in line:
                kinds["sandbox"].append(process)
            elif "postgres" in line.lower():
                kinds["PostgreSQL"].append(process)
    return kinds


def rss_mb(members: list[psutil.Process]) -> float:
    """Resident memory together."""
    return float(sum(process.memory_info().rss for process in members)) / 1e6


def cpu_s(product: Product) -> dict[str, float]:
    """CPU seconds used so far, by kind. PostgreSQL's include those of its processes that have ended."""
    used = {}
    for kind, members in processes(product).items():
        used[kind] = 0.0
        for process in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                used[kind] += times.user + times.system
                if kind == "PostgreSQL":
                    used[kind] += times.children_user + times.children_system
    return used


class Spent:
    """CPU seconds by kind between entering and leaving, and how long that took."""

    def __init__(self, product: Product) -> None:
        self._product = product
        self.cpu: dict[str, float] = {}
        self.took_s = 0.0

    async def __aenter__(self) -> "Spent":
        self._before = await asyncio.to_thread(cpu_s, self._product)
        self._began_s = time.perf_counter()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.took_s = time.perf_counter() - self._began_s
        await asyncio.sleep(SETTLE_S)
        after = await asyncio.to_thread(cpu_s, self._product)
        self.cpu = {kind: after[kind] - self._before[kind] for kind in after}

    def per(self, count: int, less_ms: float = 0.0) -> str:
        """Milliseconds of main and PostgreSQL for each of `count` (`less_ms` of it left out), and of the others."""
        each = {kind: seconds / count * 1e3 for kind, seconds in self.cpu.items()}
        ours = f"{each['main'] + each['PostgreSQL'] - less_ms:.2f} ms"
        if less_ms:
            return ours
        parts = ", ".join(f"{kind} {value:.2f}" for kind, value in each.items())
        return f"{ours} ({parts})"

    @property
    def ours_s(self) -> float:
        """CPU seconds of main and PostgreSQL."""
        return self.cpu["main"] + self.cpu["PostgreSQL"]


# --- load -----------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def client(headers: dict[str, str] | None = None) -> AsyncIterator[Session]:
    """A load generator's connections."""
    connector = aiohttp.TCPConnector(limit=64)
    async with Session(connector=connector, headers=headers) as session:
        yield session


async def post(session: Session, url: str, body: object) -> None:
    """One call that must be accepted."""
    async with session.post(url, json=body) as reply:
        assert reply.status == 200, await reply.text()
        await reply.read()


async def rate(clients: int, calls: int, call: Callable[[int], Awaitable[None]]) -> tuple[float, list[float]]:
    """Calls per second with so many clients, and the latency of each."""
    numbers = iter(range(calls))
    latencies: list[float] = []

    async def work() -> None:
        for number in numbers:
            began_s = time.perf_counter()
            await call(number)
            latencies.append(time.perf_counter() - began_s)

    began_s = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(clients)))
    return calls / (time.perf_counter() - began_s), latencies


def network_of(product: Product) -> Product:
    """The simulated network's own control port, spoken to as the product's `/sandbox` is."""
    network = Product(product.data)
    with contextlib.closing(sqlite3.connect(product.data / "sandbox" / "sandbox.db")) as records:
        row = records.execute("select value from records where kind = 'port' and key = 'control'").fetchone()
    network.base = f"http://127.0.0.1:{int(row[0])}"
    return network
