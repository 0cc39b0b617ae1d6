"""How many durable inserts per second: one transaction each, against group commit. Prints both and their ratio.

    .venv/bin/python bench/group_commit.py [seconds per run]

Same callers, same rows, same embedded server with fsync on. Runs alternate, so that a busy machine is busy for both;
read the ratio, not the absolute numbers: callers, client and PostgreSQL share this machine's cores.
"""

import asyncio
import os
import platform
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

from tomada.postgres.group_commit import GroupCommit, Statement
from tomada.postgres.launcher import embedded_server
from tomada.postgres.pool import connect

_TABLE = (
    "create table message (number bigint generated always as identity primary key,"
    " instance_id text not null, phone text not null, body text not null, content jsonb not null)"
)
_INSERT = Statement(
    "bench",
    "insert into message (instance_id, phone, body, content) values ($1, $2, $3, $4) returning number",
)
_ROW = ("3C67AB641C8AA0412F6A2242B4E23AC7", "5511999998888", "Your order is on its way", '{"delayMessage": 3}')
_ROUNDS = 5

_Write = Callable[[], Awaitable[object]]


async def _rate(write: _Write, callers: int, seconds: float) -> tuple[float, float]:
    """Inserts per second, and microseconds of this process's CPU per insert."""
    deadline = perf_counter() + seconds
    done = 0

    async def caller() -> None:
        nonlocal done
        while perf_counter() < deadline:
            await write()
            done += 1

    began, cpu = perf_counter(), process_time()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return done / (perf_counter() - began), (process_time() - cpu) / done * 1e6


def _fdatasync_us(folder: Path) -> float:
    """The median of what the disk takes to make 8 KB durable, which bounds one-per-transaction."""
    times = []
    fd = os.open(folder / "fdatasync", os.O_RDWR | os.O_CREAT)
    for _ in range(200):
        os.pwrite(fd, os.urandom(8192), 0)
        began = perf_counter()
        os.fdatasync(fd)
        times.append(perf_counter() - began)
    os.close(fd)
    return median(times) * 1e6


def _machine(folder: Path, version: str) -> str:
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{cpu}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}, "
        f"PostgreSQL {version}, fdatasync {_fdatasync_us(folder):.0f} us, load {load}"
    )


def _words(runs: list[tuple[float, float]]) -> str:
    return f"{median(rate for rate, _ in runs):10,.0f} ({median(cpu_us for _, cpu_us in runs):4.0f})"


async def main(seconds: float) -> None:
    """Runs the comparison at several numbers of callers and prints a table."""
    with tempfile.TemporaryDirectory(prefix="tomada-bench-") as name:
        async with embedded_server(Path(name) / "postgres") as server:
            pool = await connect(server.dsn, size_max=8)
            await pool.execute(_TABLE)
            committer = GroupCommit(pool)
            print(f"machine: {_machine(Path(name), await pool.fetchval('show server_version'))}")
            print("callers | one per transaction/s (us CPU) | group commit/s (us CPU) | ratio, median of rounds")
            for callers in (1, 8, 64, 256):
                singles: list[tuple[float, float]] = []
                groups: list[tuple[float, float]] = []
                for _ in range(_ROUNDS):
                    singles.append(await _rate(lambda: pool.fetch(_INSERT.sql, *_ROW), callers, seconds))
                    groups.append(await _rate(lambda: committer.execute(_INSERT, *_ROW), callers, seconds))
                ratio = median(group[0] / single[0] for group, single in zip(groups, singles, strict=True))
                print(f"{callers:7} | {_words(singles)} | {_words(groups)} | {ratio:5.1f}")
            pool.terminate()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0))
