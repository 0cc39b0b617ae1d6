"""What WhatsApp sees after an outage: how many sessions come back in the busiest second, and when the last one is back.

    .venv/bin/python -m bench.outage --instances 200 --outage 20

Everything is real and on one computer, as in bench/main_job.py. The promise (S2, docs/machines.md): no second sees more
than 5 % of the sessions, or five of them on a small node and one that was in line. Whether a second holds one connect
more depends on what else the computer does, so this is a figure; the promise itself is shown in virtual time.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from tests.acceptance.product import Account, Product, http, running, wait_for

from bench.main_job import pair_all
from bench.measuring import machine, network_of, note


def connected(account: Account) -> int:
    """How many instances say that they are."""
    page = account.get("/instances?page=1&pageSize=1000").body["content"]
    return sum(bool(one["whatsappConnected"]) for one in page)


def outage(product: Product, account: Account, count: int, outage_s: float) -> None:
    """All are cut off at once, and refused for a while."""
    over_ms = time.time_ns() // 1_000_000 + round(outage_s * 1000)
    product.fault("refuse", until=outage_s)
    product.fault("drop")
    wait_for("all cut off", lambda: connected(account) == 0)
    wait_for("all back", lambda: connected(account) == count, outage_s + 600)
    back_s = time.time_ns() / 1e9 - over_ms / 1000
    times: list[int] = http("GET", f"{product.base}/sandbox/faults").body["connects"]["timesMs"]
    returned = [at for at in times if at >= over_ms]
    busiest = max(sum(at <= other < at + 1000 for other in returned) for at in returned)
    note(
        f"{count} sessions after {outage_s:g} s without a network",
        f"all back {back_s:.1f} s after its end; busiest second {busiest} connects ({100 * busiest / count:.1f} %)",
    )


def main() -> None:
    """One outage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=200, help="paired instances")
    parser.add_argument("--outage", type=float, default=20.0, help="seconds")
    arguments = parser.parse_args()
    print(f"{machine()}\n\n| what | figure |\n| --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        os.chmod(scratch, 0o755)  # noqa: PTH101 - as root the database runs under another uid and must pass here
        with running(Path(scratch) / "data", {"TOMADA_INSTANCES_PER_MACHINE": "50"}) as product:
            account = product.create_account("--limit", "100000")
            pair_all(account, network_of(product), "http://127.0.0.1:9", arguments.instances)
            outage(product, account, arguments.instances, arguments.outage)


if __name__ == "__main__":
    main()
