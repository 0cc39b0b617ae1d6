"""What a sweep costs when nothing is due, with 1,000 and with 1,000,000 instances; then with 1,000 of them due.

    .venv/bin/python bench/sweep.py [instances]

Fails (status 1) if an empty sweep over all of them takes 5 ms or more in the median. Also prints the plans, which show
that each query reads one end of one index.
"""

import asyncio
import platform
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from time import perf_counter

from tomada.accounts import audit
from tomada.instances import lifecycle_store
from tomada.instances.clock import advance_clock
from tomada.instances.deletion import LEASE_MS
from tomada.instances.lifecycle import Terms
from tomada.instances.lifecycle_store import PostgresLifecycle
from tomada.instances.sweeper import end_what_is_due, pause_until_due
from tomada.postgres.launcher import embedded_server
from tomada.postgres.migrate import migrate
from tomada.postgres.pool import Connection, Pool, connect

BAR_MS = 5.0
ROUNDS = 200
DUE = 1000
TERMS = Terms()

# Of a hundred: 10 trials that end within two days to come, 75 active, 5 in cancellation, 5 expired, 5 tombstones.
_FILL = """
insert into instance (id, account_id, token_hash, token_sealed, name, session_name, state, created_ms, due_ms, ended_ms,
                      retire_ms)
select 'I' || n, 'A', '', '', 'n', 'n', state, now_ms, now_ms + 86400000 + (n % 86400) * 1000,
    case when state = 'expired' then now_ms end,
    case when state = 'expired' then now_ms + 30 * 86400000::bigint + n end
from (select lifecycle_now_ms() as now_ms) t, generate_series($1::int, $2::int) n,
    lateral (select case when n % 100 < 10 then 'trial' when n % 100 < 85 then 'active'
        when n % 100 < 90 then 'in_cancellation' when n % 100 < 95 then 'expired' else 'deleted' end as state) s
"""
# Every tombstone has its deletion, and so has every expired one: all of them finished.
_DELETIONS = """
insert into deletion (instance_id, account_id, epoch, scope, cause, finished_ms, digest)
select id, account_id, 2, 'machine', 'expired', 0, 'd' from instance where state in ('expired', 'deleted')
on conflict do nothing
"""


class Neighbours:
    """The audit log is part of the cost; there are no messages or events here."""

    audit = staticmethod(audit.append)

    async def cancel_queue(self, connection: Connection, instance_id: str) -> int:
        """Nothing waits."""
        return 0

    async def record_disconnected(self, connection: Connection, instance_id: str, dedupe_key: str) -> None:
        """Not reached: no deletion is carried out."""


async def _fill(pool: Pool, first: int, last: int) -> None:
    for start in range(first, last + 1, 100_000):
        await pool.execute(_FILL, start, min(last, start + 99_999), timeout=600)
    await pool.execute(_DELETIONS, timeout=600)
    await pool.execute("vacuum analyze instance", timeout=600)
    await pool.execute("vacuum analyze deletion", timeout=600)


async def _time_ms(call: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """Median and 99th percentile of ROUNDS calls, after ten to warm up."""
    times = []
    for number in range(ROUNDS + 10):
        began = perf_counter()
        await call()
        if number >= 10:
            times.append((perf_counter() - began) * 1000)
    return median(times), sorted(times)[int(len(times) * 0.99)]


async def _measure(store: PostgresLifecycle, count: int) -> float:
    async def sweep() -> None:
        assert await end_what_is_due(store, TERMS, "bench") == 0
        assert await store.claim(LEASE_MS) is None
        await pause_until_due(store, 5.0)

    middle, slow = await _time_ms(sweep)
    print(f"empty sweep over {count:>9,} instances: median {middle:.2f} ms, p99 {slow:.2f} ms")
    return middle


async def _explain(pool: Pool) -> None:
    for name, sql, arguments in (
        ("due", lifecycle_store._DUE, (200, -1, "")),  # noqa: SLF001 - the very query
        ("next", lifecycle_store._TO_NEXT_DUE, ()),  # noqa: SLF001 - the very query
        ("claim", lifecycle_store._CLAIM, (1,)),  # noqa: SLF001 - the very query
    ):
        rows = await pool.fetch(f"explain (costs off) {sql}", *arguments)
        print(f"plan of {name}: " + "; ".join(row[0].strip() for row in rows if "Scan" in row[0] or "Cond" in row[0]))


async def main(count: int) -> int:
    """The bench."""
    print(f"{platform.machine()}, {platform.system()} {platform.release()}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="tomada-bench-") as folder:
        async with embedded_server(Path(folder) / "postgres") as server:
            await migrate(server.dsn)
            pool = await connect(server.dsn, size_max=4)
            await pool.execute(
                "insert into account (id, name, partner_token_hash, partner_token_sealed, signing_secret_sealed)"
                " values ('A', 'A', '', '', '')"
            )
            store = PostgresLifecycle(pool, Neighbours())
            await _fill(pool, 1, 1000)
            small = await _measure(store, 1000)
            await _fill(pool, 1001, count)
            large = await _measure(store, count)
            print(f"a thousand times as many cost {large / small:.2f} times as much")
            await _explain(pool)
            await _some_due(pool, store)
            await pool.close()
    if large >= BAR_MS:
        print(f"missed the bar of {BAR_MS} ms")
        return 1
    return 0


async def _some_due(pool: Pool, store: PostgresLifecycle) -> None:
    await pool.execute("update instance set due_ms = lifecycle_now_ms() + 1000 where id = any($1::text[])",
                       [f"I{number * 100}" for number in range(1, DUE + 1)])  # fmt: skip
    await advance_clock(pool, 2)
    began = perf_counter()
    changed = await end_what_is_due(store, TERMS, "bench")
    took_s = perf_counter() - began
    print(f"{changed:,} trials due at once: ended in {took_s:.2f} s, {took_s / changed * 1000:.2f} ms each, fsync on")


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)))
