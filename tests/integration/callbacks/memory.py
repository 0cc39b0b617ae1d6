"""What attempts cost in memory, measured in a process that does nothing else.

    python -m tests.integration.callbacks.memory URL AT_ONCE ROUNDS TOTAL_S

Posts once to warm up, then AT_ONCE times at once, ROUNDS times over, and prints `{"grown_bytes", "endings"}`: how far
the resident memory rose above where it was after the warm-up, at its peak as the kernel saw it (VmHWM, which writing 5
to clear_refs sets back), and how the attempts ended, counted.
"""

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path

from tests.integration.callbacks.harness import OPEN_RULES
from tomada.kit.egress import Egress, EgressFailed


async def measure(url: str, at_once: int, rounds: int, total_s: float) -> dict[str, object]:
    """The peak above the warm state, and the endings."""
    egress = Egress(OPEN_RULES, total_s=total_s)
    endings: Counter[str] = Counter()
    await _attempt(egress, url, Counter())
    before = _kib("VmRSS")
    _reset_peak()
    for _ in range(rounds):
        await asyncio.gather(*(_attempt(egress, url, endings) for _ in range(at_once)))
    grown_bytes = (_kib("VmHWM") - before) * 1024
    await egress.close()
    return {"grown_bytes": grown_bytes, "endings": endings}


async def _attempt(egress: Egress, url: str, endings: Counter[str]) -> None:
    try:
        answer = await egress.post(url, b"{}", {})
    except EgressFailed as error:
        endings[error.reason] += 1
    else:
        endings["complete" if answer.complete else "cut off"] += 1


def _reset_peak() -> None:
    """VmHWM becomes what VmRSS is now."""
    Path("/proc/self/clear_refs").write_text("5")


def _kib(name: str) -> int:
    """A figure of /proc/self/status."""
    (line,) = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith(name + ":")]
    return int(line.split()[1])


if __name__ == "__main__":
    _url, _at_once, _rounds, _total_s = sys.argv[1:]
    print(json.dumps(asyncio.run(measure(_url, int(_at_once), int(_rounds), float(_total_s)))))  # noqa: T201
