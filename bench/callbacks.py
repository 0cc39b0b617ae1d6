"""Callbacks: throughput, latency, cost, neighbours and recovery, on this machine, with full durability (fsync on).

    .venv/bin/python -m bench.callbacks [bulk] [company] [latency] [neighbour] [backlog] [--seconds 20]   (all: minutes)

Everything runs here at once: recorder and dispatcher in this process, the receiver in another, PostgreSQL in its own. A
bare aiohttp client posts the same bodies to the same receiver in the same run, turn and turn about, so that ratios hold
where absolute figures do not. The receiver counts; a phase fails if it did not get every event.

    bulk       events/s recorded, and delivered from a backlog, beside the bare client; CPU and transactions per event
    company    CPU of a callback from its recording to its settlement, when 1, 8 and 64 instances have one at a time
    latency    W9: from commit to the receiver's first byte, at 100/s and 1,000/s for `--seconds` each: p50, p99, p99.9
    neighbour  100 destinations, all well, and with one of them hanging, in turns: what the other 99 get. p99 at 300/s;
               and deliveries/s from a backlog, all busy. The promise: <= 2 times the p99, >= 0.9 of the rate
    backlog    100,000 events that waited while the receiver was down
"""

import argparse
import asyncio
import contextlib
import os
import platform
import random  # noqa: TID251 - seeded
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import psutil
import uvloop
from prometheus_client import CollectorRegistry
from tests.integration.callbacks.harness import OPEN_RULES, SEALER, Account, Instance, make_account, make_instance
from tests.receiver import Receiver

from tomada.callbacks import shapes
from tomada.callbacks.backoff import Policy
from tomada.callbacks.dispatcher import Dispatcher
from tomada.callbacks.metrics import Metrics
from tomada.callbacks.recorder import Recorder
from tomada.callbacks.sending import Sender
from tomada.callbacks.types import NewEvent, Target
from tomada.engine.port import MessageReceived, TextReceived
from tomada.kit.clock import SystemClock
from tomada.kit.egress import Answer, Egress
from tomada.postgres.launcher import EmbeddedServer, embedded_server
from tomada.postgres.migrate import migrate
from tomada.postgres.pool import Pool, connect

CHUNK = 500


class Bench:
    """A server, a receiver and an account."""

    def __init__(self, server: EmbeddedServer, pool: Pool, folder: Path, account: Account) -> None:
        self.server = server
        self.pool = pool
        self.folder = folder
        self.account = account

    async def instances(self, urls: Sequence[str]) -> list[Instance]:
        """One instance per URL."""
        return [await make_instance(self.pool, self.account, url) for url in urls]

    def postgres_cpu_s(self) -> float:
        """CPU seconds of all processes of the database server so far."""
        process = psutil.Process(self.server.pid)
        total = 0.0
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                times = one.cpu_times()
                total += times.user + times.system
        return total


def body(instance: Instance, key: str) -> str:
    """A text message as it goes out: about 600 bytes."""
    event = MessageReceived(
        wa_id=key,
        chat="5511900000002",
        chat_lid="900000000000002@lid",
        sender="5511900000002",
        sender_lid=None,
        from_me=False,
        is_group=False,
        at_ms=1800000000000,
        push_name="Bia",
        content=TextReceived(message="Bom dia, o pedido 1234 j\u00e1 saiu para entrega?"),
    )
    return shapes.encode(shapes.received(shapes.Facts(instance.id, "5511900000001"), event, message_id=key))


def new_event(instance: Instance, key: str) -> NewEvent:
    """An event for the instance's URL."""
    return NewEvent(instance.id, Target.RECEIVED, "ReceivedCallback", body(instance, key), key)


class TellingEgress(Egress):
    """Says when a request to a URL was answered."""

    def __init__(self) -> None:
        super().__init__(OPEN_RULES)
        self.answered: dict[str, asyncio.Event] = {}

    async def post(self, url: str, *rest: Any, **options: Any) -> Answer:
        """As always, and then say so."""
        answer = await super().post(url, *rest, **options)
        if url in self.answered:
            self.answered[url].set()
        return answer


@contextlib.asynccontextmanager
async def dispatching(pool: Pool, egress: Egress | None = None) -> AsyncIterator[Dispatcher]:
    """A dispatcher with the product's own settings."""
    egress = egress or Egress(OPEN_RULES)
    sender = Sender(egress, SystemClock(), random.Random(1), Policy(), "http://bench.test")
    dispatcher = Dispatcher(pool, sender, SEALER, Metrics(CollectorRegistry()))
    task = asyncio.create_task(dispatcher.run())
    try:
        yield dispatcher
    finally:
        dispatcher.stop()
        await task
        await egress.close()


async def fill(recorder: Recorder, instances: Sequence[Instance], count: int, tag: str) -> float:
    """Record `count` events over the instances, eight callers at a time; seconds taken."""
    events = [new_event(instances[n % len(instances)], f"{tag}{n}") for n in range(count)]
    chunks = [events[start : start + CHUNK] for start in range(0, count, CHUNK)]
    began = time.perf_counter()
    for start in range(0, len(chunks), 8):
        await asyncio.gather(*(recorder.record(chunk) for chunk in chunks[start : start + 8]))
    return time.perf_counter() - began


async def drained(pool: Pool) -> None:
    """Wait until no lane is due and nothing is waiting; the cheap question first."""
    while await pool.fetchval("select exists (select from lane where due_ms is not null)"):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    assert not await pool.fetchval("select exists (select from callback)")


async def bare(url: str, bodies: Sequence[bytes], callers: int = 64) -> tuple[float, float]:
    """The same posts by aiohttp alone: requests/s, and CPU microseconds per request."""
    todo = iter(bodies)
    connector = aiohttp.TCPConnector(limit=callers)
    async with aiohttp.ClientSession(connector=connector) as session:  # noqa: TID251 - what we compare ourselves with

        async def caller() -> None:
            for one in todo:
                async with session.post(url, data=one, headers={"content-type": "application/json"}) as response:
                    await response.read()

        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(caller() for _ in range(callers)))
        return len(bodies) / (time.perf_counter() - began), (time.process_time() - cpu) / len(bodies) * 1e6


async def bulk(bench: Bench, events: int = 40_000, rounds: int = 3) -> None:
    """Record, deliver from the backlog, and the bare client, in turns."""
    receiver = Receiver(bench.folder, "bulk")
    try:
        instances = await bench.instances([receiver.url("mute")] * 100)
        bodies = [body(instances[0], f"b{n}").encode() for n in range(events)]
        for number in range(rounds):
            rate, cpu_us = await bare(receiver.url("mute"), bodies)
            print(f"  bare aiohttp         {rate:8.0f} requests/s  {cpu_us:6.0f} us CPU/request")
            recorder = Recorder(bench.pool)
            took_s = await fill(recorder, instances, events, f"{number}-")
            before, began = await receiver.count(), time.perf_counter()
            cpu, database_cpu = time.process_time(), bench.postgres_cpu_s()
            async with dispatching(bench.pool) as dispatcher:
                await drained(bench.pool)
                spent_s = time.perf_counter() - began
                cpu, database_cpu = time.process_time() - cpu, bench.postgres_cpu_s() - database_cpu
            assert await receiver.count() == before + events
            print(
                f"  recorded             {events / took_s:8.0f} events/s  {recorder.transactions / events:.4f} tx/event"
            )
            cost = f"{cpu / events * 1e6:6.0f} us CPU/event (PostgreSQL {database_cpu / events * 1e6:.0f} us)"
            print(f"  delivered, durable   {events / spent_s:8.0f} events/s    {cost}  ", end="")
            print(f"{dispatcher.transactions / events:.4f} tx/event  ratio to bare {events / spent_s / rate:.2f}")
    finally:
        receiver.close()


async def company(bench: Bench, seconds: float = 4.0) -> None:
    """As many at a time as there are instances: each has its next event when the one before was answered."""
    receiver = Receiver(bench.folder, "company")
    try:
        for many in (1, 8, 64):
            egress = TellingEgress()
            urls = [f"{receiver.url('mute')}?n={number}" for number in range(many)]
            instances = await bench.instances(urls)
            egress.answered = {url: asyncio.Event() for url in urls}
            async with dispatching(bench.pool, egress) as dispatcher:
                recorder = Recorder(bench.pool, wake=dispatcher.wake)
                cpu, database_cpu = time.process_time(), bench.postgres_cpu_s()
                counts = await asyncio.gather(
                    *(
                        one_by_one(recorder, instance, egress.answered[url], seconds)
                        for instance, url in zip(instances, urls, strict=True)
                    )
                )
                cpu, database_cpu = time.process_time() - cpu, bench.postgres_cpu_s() - database_cpu
            events = sum(counts)
            cost = f"{cpu / events * 1e6:6.0f} us CPU/event (PostgreSQL {database_cpu / events * 1e6:.0f} us)"
            transactions = (recorder.transactions + dispatcher.transactions) / events
            print(
                f"  {many:2} at a time         {events / seconds:8.0f} events/s    {cost}  {transactions:.2f} tx/event"
            )
    finally:
        receiver.close()


async def one_by_one(recorder: Recorder, instance: Instance, answered: asyncio.Event, seconds: float) -> int:
    """Record one event after the other for so long; how many."""
    ends_s = time.perf_counter() + seconds
    number = 0
    while time.perf_counter() < ends_s:
        answered.clear()
        await recorder.record([new_event(instance, f"c{number}")])
        await answered.wait()
        number += 1
    return number


async def paced(
    bench: Bench, instances: Sequence[Instance], rate: float, seconds: float, tag: str, patience_s: float = 45.0
) -> dict[str, float]:
    """Record single events at a steady rate; when each was committed, by key. Deliveries are waited for at the end."""
    committed: dict[str, float] = {}
    tasks: set[asyncio.Task[None]] = set()
    async with dispatching(bench.pool) as dispatcher:
        recorder = Recorder(bench.pool, wake=dispatcher.wake)

        async def one(number: int) -> None:
            key = f"{tag}{number}"
            await recorder.record([new_event(instances[number % len(instances)], key)])
            committed[key] = time.monotonic()

        began = time.monotonic()
        for number in range(round(rate * seconds)):
            wait_s = began + number / rate - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            task = asyncio.create_task(one(number))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await drained(bench.pool)
    return committed


def latencies_ms(receiver: Receiver, committed: dict[str, float]) -> list[float]:
    """From commit to the receiver's first byte, sorted."""
    arrived = {msgspec.json.decode(r["body"])["messageId"]: r["at_s"] for r in reversed(receiver.requests())}
    return sorted(max(0.0, arrived[key] - at_s) * 1000 for key, at_s in committed.items() if key in arrived)


def share(values: Sequence[float], part: float) -> float:
    """A percentile of sorted values."""
    return values[min(len(values) - 1, int(len(values) * part))]


def told(values: Sequence[float]) -> str:
    """The three percentiles."""
    return f"p50 {share(values, 0.5):6.1f} ms  p99 {share(values, 0.99):6.1f} ms  p99.9 {share(values, 0.999):6.1f} ms"


async def latency(bench: Bench, seconds: float) -> None:
    """100/s and 1,000/s over 100 instances."""
    receiver = Receiver(bench.folder, "latency")
    try:
        instances = await bench.instances([receiver.url()] * 100)
        for rate in (100, 1000):
            committed = await paced(bench, instances, rate, seconds, f"r{rate}-")
            values = latencies_ms(receiver, committed)
            part = len(values) / round(rate * seconds)
            print(f"  {rate:5}/s for {seconds:.0f} s      {told(values)}  delivered {part:.3f}")
    finally:
        receiver.close()


async def neighbour(bench: Bench) -> None:
    """100 destinations, the hundredth well or hanging: at a fixed rate, and with more to do than can be done."""
    receiver = Receiver(bench.folder, "neighbours", ports=100)
    try:
        await neighbour_paced(bench, receiver)
        await neighbour_saturated(bench, receiver)
    finally:
        receiver.close()


async def neighbour_paced(bench: Bench, receiver: Receiver, rate: float = 300.0, seconds: float = 6.0) -> None:
    """The p99 of the other 99, four turns of each kind; medians, since whatever else runs here spoils single turns."""
    well = await bench.instances([receiver.url("ok", port) for port in range(100)])
    ill = [*well[:99], *await bench.instances([receiver.url("hang", 99)])]
    p99s: dict[str, list[float]] = {"all well": [], "one hangs": []}
    for turn, name in enumerate(turns(8)):
        instances = well if name == "all well" else ill
        committed = await paced(bench, instances, rate, seconds, f"n{turn}-", patience_s=2.0)
        others = {key: at for key, at in committed.items() if int(key.split("-")[1]) % 100 != 99}
        values = latencies_ms(receiver, others)
        p99s[name].append(share(values, 0.99))
        part = len(values) / len(others)
        print(f"  {name:9} {rate:.0f}/s        {told(values)}  delivered of the other 99: {part:.3f}")
        await clear(bench.pool)
    ratio = statistics.median(p99s["one hangs"]) / statistics.median(p99s["all well"])
    print(f"  p99 ratio {ratio:.2f}, medians of four turns each (promise: <= 2)")


async def neighbour_saturated(bench: Bench, receiver: Receiver, lanes: int = 4, events: int = 20_000) -> None:
    """Deliveries/s of 99 destinations from a backlog, in turns; the hundredth is first, and hangs all the while.

    Each destination has `lanes` lanes: more of them than an account may hold at a time, so that places are scarce.
    """
    good = await bench.instances([receiver.url("mute", port) for port in range(99)] * lanes)
    urls = {"all well": receiver.url("mute", 99), "one hangs": receiver.url("hang", 99)}
    last = {name: await bench.instances([url] * lanes) for name, url in urls.items()}
    rates: dict[str, list[float]] = {name: [] for name in urls}
    recorder = Recorder(bench.pool)
    theirs = events // 100 * 99
    for turn, name in enumerate(turns(6)):
        await fill(recorder, [*last[name], *good], events, f"s{turn}-")
        before, hung, began = await receiver.count(), len(receiver.requests()), time.perf_counter()
        async with dispatching(bench.pool):
            while await bench.pool.fetchval(  # noqa: ASYNC110
                "select exists (select from lane where due_ms is not null and url <> $1)", urls[name]
            ):
                await asyncio.sleep(0.02)
            rates[name].append(theirs / (time.perf_counter() - began))
            if name == "one hangs":
                assert await receiver.count() == before + theirs
                assert len(receiver.requests()) == hung + lanes
        print(f"  {name:9} from a backlog  {rates[name][-1]:8.0f} events/s to the other 99")
        await clear(bench.pool)
    ratio = statistics.median(rates["one hangs"]) / statistics.median(rates["all well"])
    print(f"  throughput ratio {ratio:.2f}, medians of three turns each (promise: >= 0.9)")


def turns(count: int) -> list[str]:
    """Turn about, and each kind as often first as second, so that a drift favours neither."""
    return [("all well", "one hangs", "one hangs", "all well")[number % 4] for number in range(count)]


async def clear(pool: Pool) -> None:
    """Forget what a hanging receiver has not taken, and that it hung."""
    await pool.execute("delete from callback")
    await pool.execute(
        "update lane set due_ms = null, not_before_ms = 0, failing_since_ms = null, done_position = last_position"
    )


async def backlog(bench: Bench, events: int = 100_000) -> None:
    """Recover from an outage."""
    receiver = Receiver(bench.folder, "backlog")
    try:
        instances = await bench.instances([receiver.url("mute")] * 200)
        recorder = Recorder(bench.pool)
        took_s = await fill(recorder, instances, events, "l")
        began = time.perf_counter()
        async with dispatching(bench.pool) as dispatcher:
            await drained(bench.pool)
            spent_s = time.perf_counter() - began
        assert await receiver.count() == events
        print(
            f"  {events} recorded in {took_s:.1f} s ({events / took_s:.0f}/s), delivered in {spent_s:.1f} s"
            f" ({events / spent_s:.0f}/s, {dispatcher.transactions / events:.4f} tx/event)"
        )
    finally:
        receiver.close()


async def main(wanted: Sequence[str], latency_s: float) -> None:
    """Run the phases named on the command line."""
    phases: dict[str, Callable[[Bench], Awaitable[None]]] = {
        "bulk": bulk,
        "company": company,
        "latency": lambda bench: latency(bench, latency_s),
        "neighbour": neighbour,
        "backlog": backlog,
    }
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="tomada-bench-") as name:
        folder = Path(name)
        async with embedded_server(folder / "postgres") as server:
            await migrate(server.dsn)
            pool = await connect(server.dsn)
            bench = Bench(server, pool, folder, await make_account(pool))
            for phase in wanted or phases:
                print(f"{phase} (load {os.getloadavg()[0]:.1f})")
                await phases[phase](bench)
            pool.terminate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phases", nargs="*", choices=["bulk", "company", "latency", "neighbour", "backlog"])
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(arguments.phases, arguments.seconds))
