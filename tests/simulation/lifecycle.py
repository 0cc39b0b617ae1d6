"""`python -m tests.simulation.lifecycle --runs N --seed S`: N runs from seed S on, over all cores.

Ends with status 1 at failures and prints each failing seed with what was wrong; `--runs 1 --seed <that one>` plays the
same run again and prints its whole history.
"""

import argparse
import concurrent.futures
import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator

import structlog

from tests.simulation.oracle import judge
from tests.simulation.world import World

CHUNK = 250


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the log: faults are what a run is made of."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


def run(seed: int) -> list[str]:
    """One run; what was wrong with it."""
    world = World(seed)
    world.run()
    return judge(world)


def run_many(first: int, count: int) -> list[tuple[int, list[str]]]:
    """The failing seeds of `first` to `first + count - 1`, with what was wrong."""
    with quiet():
        return [(seed, wrong) for seed in range(first, first + count) if (wrong := run(seed))]


def replay(seed: int) -> str:
    """The history of one run, for a person."""
    with quiet():
        world = World(seed)
        world.run()
    lines = [f"{heard.asked_ms:>14} client {heard}" for heard in world.history]
    lines += [
        f"{at_ms:>14} row    {subject} {action} by {actor}" for at_ms, actor, action, subject in world.store.audit
    ]
    lines += [f"{'':>14} end    {standing}" for standing in world.store.standings.values()]
    return "\n".join(sorted(lines))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    started = time.monotonic()
    firsts = range(options.seed, options.seed + options.runs, CHUNK)
    sizes = [min(CHUNK, options.seed + options.runs - first) for first in firsts]
    failed = 0
    with concurrent.futures.ProcessPoolExecutor(options.workers) as pool:
        for failures in pool.map(run_many, firsts, sizes):
            for seed, wrong in failures:
                failed += 1
                sys.stdout.write(f"seed {seed}: " + "; ".join(wrong) + "\n")
    if options.runs == 1:
        sys.stdout.write(replay(options.seed) + "\n")
    took_s = time.monotonic() - started
    sys.stdout.write(f"{options.runs} runs from seed {options.seed}: {failed} failed, {took_s:.1f} s\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
