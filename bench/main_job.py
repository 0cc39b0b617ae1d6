"""Figures of the whole product on this machine.

    .venv/bin/python -m bench.main_job [--instances 50,200] [--messages 600]      (ten minutes with both counts)

Everything is real and on one computer: server, PostgreSQL, machines, simulated network, load and receiver share its
cores. So read the CPU figures and the ratios, and take latencies as upper bounds. The simulated phones are driven at
the sandbox's own port, so that the product's front has no part in what is counted, and whatever is divided by callbacks
is divided by those that the receiver got. Prints the machine and a table in Markdown.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.acceptance.product import Account, Instance, Phone, Product, http, wait_for

from bench.measuring import (
    SETTLE_S,
    Callbacks,
    Spent,
    client,
    machine,
    milliseconds,
    network_of,
    note,
    post,
    processes,
    rate,
    rss_mb,
)

CREATES = 1000
ONE_BY_ONE = 300
CLIENTS = (8, 64)  # that send at the same time in a burst
CUSTOMERS = 4
MACHINE_MB = 80


async def creates(account: Account, hooks: str) -> None:
    """The create call of the seed page."""
    body = {"name": "Bench", **{f"{kind}CallbackUrl": f"{hooks}/x" for kind in ("delivery", "received", "connected")}}
    url = f"{account.product.base}/instances/integrator/on-demand"
    async with client(account.headers) as session:

        async def create(_: int) -> None:
            await post(session, url, body)

        await rate(1, 50, create)  # warm
        for clients in (1, 64):
            async with Spent(account.product) as spent:
                per_s, latencies = await rate(clients, CREATES, create)
            who = f"create, {clients} client{'s' if clients > 1 else ''}"
            note(who, f"{per_s:.0f}/s, {milliseconds(latencies)}; CPU {spent.per(CREATES)}")


def create_to_qr(account: Account) -> None:
    """From the create call to a readable QR code."""
    took = []
    for _ in range(10):
        began_s = time.perf_counter()
        assert account.create_instance().get("qr-code").status == 200
        took.append(time.perf_counter() - began_s)
    note("create to QR readable", f"median {statistics.median(took) * 1000:.0f} ms, worst {max(took) * 1000:.0f} ms")


def pair_all(account: Account, network: Product, hooks: str, count: int) -> tuple[list[Instance], list[Phone]]:
    """So many paired instances, four at a time."""
    began_s = time.perf_counter()

    def pair(number: int) -> tuple[Instance, Phone]:
        instance = account.create_instance(hooks)
        phone = network.phone(f"55119{count:04d}{number:04d}", f"Phone {number}")
        instance.pair(phone)
        return instance, phone

    with ThreadPoolExecutor(4) as pool:
        pairs = list(pool.map(pair, range(count)))
    note(f"pairing {count} instances, 4 at a time", f"{(time.perf_counter() - began_s) / count * 1000:.0f} ms each")
    return [one for one, _ in pairs], [phone for _, phone in pairs]


def memory(product: Product, count: int) -> None:
    """What so many connected instances take."""
    kinds = processes(product)
    machines = kinds["machines"]
    each = (rss_mb(machines) - MACHINE_MB * len(machines)) / count
    note(
        f"RSS with {count} connected",
        f"{len(machines)} machines {rss_mb(machines):.0f} MB: {each:.2f} MB per instance beyond {MACHINE_MB} per "
        f"machine; main {rss_mb(kinds['main']):.0f} MB",
    )


async def idle(product: Product, count: int) -> None:
    """CPU while nothing happens."""
    async with Spent(product) as spent:
        await asyncio.sleep(10)
    share = {kind: seconds / (10 + SETTLE_S) * 100 for kind, seconds in spent.cpu.items()}
    shares = ", ".join(f"{kind} {value:.1f} %" for kind, value in share.items())
    note(f"idle with {count} connected", f"{shares} of a core")


async def inbound(product: Product, phones: list[Phone], customers: list[Phone], hooks: Callbacks, burst: int) -> None:
    """A customer's message to the callback at the receiver: one at a time, then many at a time."""
    hooks.texts.clear()  # another round had the same texts
    async with client() as session:

        async def write(number: int, text: str) -> None:
            customer = customers[number % len(customers)]
            await post(session, f"{customer.url}/send", {"to": phones[number % len(phones)].number, "text": text})

        for number in range(len(phones) * len(customers)):  # the first message of a pair sets up its encryption
            await write(number % len(phones) * len(customers) + number // len(phones), f"warm {number}")
        await hooks.text(f"warm {len(phones) * len(customers) - 1}")
        await asyncio.sleep(SETTLE_S)
        took, before = [], hooks.count
        async with Spent(product) as spent:
            for number in range(ONE_BY_ONE):
                began_s = time.perf_counter()
                await write(number, f"in {number}")
                took.append(await hooks.text(f"in {number}") - began_s)
        note("inbound message to callback received, one at a time", milliseconds(took))
        note("CPU per inbound callback, one at a time", spent.per(hooks.count - before))

        async def burst_of(clients: int) -> None:
            before = hooks.count
            async with Spent(product) as spent:
                await rate(clients, burst, lambda number: write(number, f"burst {number}"))
                await hooks.until("the burst's callbacks", lambda: hooks.count >= before + burst)
            what = f"CPU per inbound callback, {clients} at a time, {burst / spent.took_s:.0f}/s"
            note(what, spent.per(hooks.count - before))

        for clients in CLIENTS:
            await burst_of(clients)


async def sends(product: Product, instances: list[Instance], customers: list[Phone], hooks: Callbacks, n: int) -> None:
    """send-text to its callbacks (delivery, SENT, RECEIVED): taking the request, the rest, and one instance's pace."""
    idle_one = await asyncio.to_thread(instances[0].account.create_instance)
    async with client() as session:

        async def send(instance: Instance, number: int, text: str) -> None:
            to = customers[number % len(customers)].number
            await post(session, instance.url("send-text"), {"phone": to, "message": text})

        async with Spent(product) as taking:
            _, latencies = await rate(CLIENTS[0], n, lambda number: send(idle_one, number, "later"))
        accept_ms = taking.ours_s / n * 1e3
        note(f"send-text accepted, {CLIENTS[0]} clients", f"{milliseconds(latencies)}; CPU {taking.per(n)}")
        for number in range(len(instances)):
            await send(instances[number], number, "warm")
        await asyncio.sleep(3 * SETTLE_S)

        async def burst_of(clients: int, chosen: list[Instance]) -> None:
            before = hooks.count
            async with Spent(product) as spent:
                await rate(clients, n, lambda number: send(chosen[number % len(chosen)], number, "out"))
                await hooks.until("the sends' callbacks", lambda: hooks.count >= before + 3 * n)
            came = hooks.count - before
            who = f"{n} sends of {'one instance' if len(chosen) == 1 else f'all, {clients} at a time'}"
            note(who, f"{n / spent.took_s:.0f}/s to the last callback; CPU per send {spent.per(n)}")
            rest = spent.per(came, accept_ms * n / came)
            note(f"{who}: CPU per callback ({came / n:.1f} each), request left out", rest)

        await burst_of(CLIENTS[0], instances)
        await burst_of(CLIENTS[1], instances)
        await burst_of(CLIENTS[0], instances[:1])


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


async def run(counts: list[int], messages: int) -> None:
    """All figures."""
    print(f"{machine()}\n\n| what | figure |\n| --- | --- |", flush=True)
    callbacks = Callbacks()
    await callbacks.start()
    with tempfile.TemporaryDirectory() as scratch:
        os.chmod(scratch, 0o755)  # noqa: PTH101 - as root the database runs under another uid and must pass here
        product = Product(Path(scratch) / "data", {"TOMADA_INSTANCES_PER_MACHINE": "50", "TOMADA_LOG_LEVEL": "info"})
        await asyncio.to_thread(product.start)
        try:
            account = await asyncio.to_thread(product.create_account, "--limit", "100000")
            await creates(account, callbacks.url)
            await asyncio.to_thread(create_to_qr, account)
            for count in counts:
                await paired(product, count, callbacks, messages)
        finally:
            await asyncio.to_thread(product.stop)
    await callbacks.stop()


async def paired(product: Product, count: int, callbacks: Callbacks, messages: int) -> None:
    """The figures of so many paired instances, which an account of their own has."""
    network = network_of(product)
    account = await asyncio.to_thread(product.create_account, "--limit", "100000")
    instances, phones = await asyncio.to_thread(pair_all, account, network, callbacks.url, count)
    names = [f"5521900{count:04d}{number:02d}" for number in range(CUSTOMERS)]
    customers = [await asyncio.to_thread(network.phone, name, "Customer") for name in names]
    memory(product, count)
    await idle(product, count)
    await inbound(product, phones, customers, callbacks, messages)
    await sends(product, instances, customers, callbacks, messages)
    await asyncio.to_thread(restart, product, instances)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", default="50,200", help="paired instances, one round each")
    parser.add_argument("--messages", type=int, default=600, help="of a burst, at most 1000 (a queue)")
    arguments = parser.parse_args()
    if not 1 <= arguments.messages <= 1000:
        parser.error("--messages: from 1 to 1000, because that many may wait in a queue")
    asyncio.run(run([int(count) for count in arguments.instances.split(",")], arguments.messages))
