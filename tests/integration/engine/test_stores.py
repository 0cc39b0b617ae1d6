"""Where a session's keys live: both kinds of store keep a session over restarts and kill -9, each for one account."""

import asyncio
import time

from tests.integration.machines.bench import Bench
from tomada.engine import port


async def test_postgres_store(bench: Bench, database: str) -> None:
    """A session whose keys live in PostgreSQL pairs, is killed, and comes back without a QR code."""
    async with bench.machine("on-postgres") as first:
        number = await bench.phone()
        assert (await first.open("pg", database)).error is None
        qr = await first.event("pg", port.QrIssued)
        await bench.call("POST", f"phones/{number}/scan", {"qr": qr.code})
        await first.event("pg", port.Connected)
        first.process.kill()
        await first.process.wait()
    async with bench.machine("on-postgres") as second:
        assert (await second.open("pg", database)).error is None
        assert (await second.event("pg", port.Connected)).phone == number
        assert not second.events("pg", port.QrIssued)
        assert await second.end() == 0


async def test_killed_right_after_pairing(bench: Bench) -> None:
    """kill -9 in the moment in which pairing is told costs nothing: the next process logs in with those keys."""
    async with bench.machine("killed-early") as first:
        number = await bench.paired(first, "killed-early")
        first.process.kill()
        await first.process.wait()
    async with bench.machine("killed-early") as second:
        await bench.open(second, "killed-early")
        assert (await second.event("killed-early", port.Connected)).phone == number


async def test_pairing_is_quick(bench: Bench) -> None:
    """From scan to Connected well under a second, 812 prekeys included (the bound is for busy computers)."""
    async with bench.machine("quick") as driven:
        number = await bench.phone()
        started_s = time.monotonic()
        await bench.open(driven, "quick")
        qr = await driven.event("quick", port.QrIssued)
        await bench.call("POST", f"phones/{number}/scan", {"qr": qr.code})
        await driven.event("quick", port.Connected)
        assert time.monotonic() - started_s < 3.0


async def test_one_store_one_account(bench: Bench) -> None:
    """Sessions side by side in one machine keep to their own stores, opened in any order."""
    async with bench.machine("side-by-side") as first:
        numbers = {name: await bench.paired(first, name) for name in ("side-1", "side-2", "side-3")}
        assert await first.end() == 0
    async with bench.machine("side-by-side") as second:
        await asyncio.gather(*(bench.open(second, name) for name in reversed(numbers)))
        for name, number in numbers.items():
            assert (await second.event(name, port.Connected)).phone == number
