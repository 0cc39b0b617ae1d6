"""The programs that the kill tests kill: a dispatcher, a recorder that stands for the host, and one that replays.

    python -m tests.integration.callbacks.child dispatch DSN LEASE_S
    python -m tests.integration.callbacks.child record DSN NOTES INSTANCES EVENTS PER_SECOND
    python -m tests.integration.callbacks.child replay DSN

The recorder records events 0, 1, 2 ... in turn over the instances (comma-separated ids) and notes each in the file
NOTES when it is accepted (`[instance, key, number, id]`), synced. Started anew it reads its notes and goes on with the
first that is not there, as the host does with a machine's journal.
"""

import asyncio
import json
import os
import random  # noqa: TID251 - seeded
import subprocess
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry

from tests.integration.callbacks.harness import OPEN_RULES, SEALER, Instance, event
from tomada.callbacks.backoff import Policy
from tomada.callbacks.dispatcher import Dispatcher
from tomada.callbacks.metrics import Metrics
from tomada.callbacks.recorder import Recorder
from tomada.callbacks.sending import Sender
from tomada.callbacks.upkeep import work_off_replays
from tomada.errors import Unavailable
from tomada.kit.clock import SystemClock
from tomada.kit.egress import Egress
from tomada.postgres.pool import connect

CHUNK = 20
ROOT = Path(__file__).parents[3]


def start(*arguments: str) -> "subprocess.Popen[bytes]":
    """One of these programs as a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "tests.integration.callbacks.child", *arguments], cwd=ROOT)


async def dispatch(dsn: str, lease_s: float) -> None:
    """A dispatcher until killed."""
    pool = await connect(dsn, patience_s=60)
    sender = Sender(Egress(OPEN_RULES), SystemClock(), random.Random(1), Policy(), "http://tomada.test")
    await Dispatcher(pool, sender, SEALER, Metrics(CollectorRegistry()), lease_s=lease_s).run()


async def record(dsn: str, notes: Path, instances: list[str], events: int, per_second: float) -> None:
    """Record all events, from where the notes end."""
    pool = await connect(dsn, patience_s=60)
    recorder = Recorder(pool)
    done = len(read_notes(notes))
    with notes.open("a") as file:
        for start in range(done, events, CHUNK):
            numbers = range(start, min(start + CHUNK, events))
            batch = [event(Instance(instances[n % len(instances)], ""), n) for n in numbers]
            while True:
                try:
                    results = await recorder.record(batch)
                    break
                except Unavailable:
                    await asyncio.sleep(0.05)
            for new, result in zip(batch, results, strict=True):
                assert result is not None
                row = [new.instance_id, new.dedupe_key, result.number, result.id]
                file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
            await asyncio.sleep(CHUNK / per_second)


async def replay(dsn: str) -> None:
    """Work off replays until there are none."""
    pool = await connect(dsn, patience_s=60)
    while await work_off_replays(pool):
        pass
    await pool.close()


def read_notes(notes: Path) -> list[list[str]]:
    """The whole lines of a recorder's notes; a last line that was cut off by a kill is dropped, also from the file."""
    text = notes.read_text() if notes.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        notes.write_text(whole)
    return [json.loads(line) for line in whole.splitlines()]


def main() -> None:
    """Run what the first argument names."""
    what, dsn, *rest = sys.argv[1:]
    if what == "dispatch":
        asyncio.run(dispatch(dsn, float(rest[0])))
    elif what == "replay":
        asyncio.run(replay(dsn))
    else:
        asyncio.run(record(dsn, Path(rest[0]), rest[1].split(","), int(rest[2]), float(rest[3])))


if __name__ == "__main__":
    main()
