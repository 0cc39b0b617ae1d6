"""A PostgreSQL that answers but refuses, while events and messages flow: all waits, nothing is put aside or reordered.

Real: PostgreSQL, its refusals, pool, lanes, pipeline, recorder, group commit, probe. The events are made here, as
machines tell them. Every refusal is one that operators cause: a standby, a changed role, a lock, a missing table.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from random import Random  # noqa: TID251 - seeded

import asyncpg
import msgspec
import pytest
from prometheus_client import CollectorRegistry

from tests.integration.callbacks.harness import Instance, make_account, make_instance
from tests.integration.test_pipeline import message, pipeline
from tomada.engine import port
from tomada.errors import DatabaseUnavailable, OutcomeUnknown
from tomada.kit.clock import SystemClock
from tomada.machines import lanes as lanes_module
from tomada.machines.lanes import TRIES_MAX, Lanes, Work
from tomada.messages.accept import accept
from tomada.postgres import health as health_module
from tomada.postgres.group_commit import GroupCommit
from tomada.postgres.health import Health
from tomada.postgres.pool import Pool, connect

INSTANCES = 4
PACE_S = 0.01
REFUSED_TRIES = TRIES_MAX * 3  # by the worst lane, before the refusal ends


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries and probes in fractions of a second."""
    monkeypatch.setattr(lanes_module, "RETRY_BASE_S", 0.01)
    monkeypatch.setattr(lanes_module, "RETRY_MAX_S", 0.05)
    monkeypatch.setattr(health_module, "PERIOD_S", 0.05)


@pytest.fixture
async def impatient(database: str) -> AsyncIterator[Pool]:
    """A pool that soon gives up on a server that is away."""
    pool = await connect(database, patience_s=0.2)
    yield pool
    pool.terminate()


class Flow:
    """Events told without pause for some instances, and messages accepted; what became of each."""

    def __init__(self, pool: Pool, instances: list[Instance]) -> None:
        self.pool = pool
        self.instances = instances
        self.lanes = Lanes(Random(1))
        self.told = 0
        self.tries: dict[str, int] = {}
        self.aside: list[str] = []
        self.accepted: list[str] = []
        self.refused: list[Exception] = []
        self._pipeline = pipeline(pool)
        self._committer = GroupCommit(pool)
        self._stop = asyncio.Event()

    def tell(self, instance_id: str, event: port.MessageReceived, number: int) -> None:
        """As the host does with what a machine told."""

        async def run() -> None:
            self.tries[event.wa_id] = self.tries.get(event.wa_id, 0) + 1
            await self._pipeline.handle(instance_id, event, number)

        async def aside(_error: Exception) -> None:
            self.aside.append(event.wa_id)

        self.lanes.add(instance_id, Work(run, aside, lambda: None, f"MessageReceived {number}"))

    async def run(self) -> None:
        """Until `end`."""
        while not self._stop.is_set():
            self.told += 1
            for instance in self.instances:
                self.tell(instance.id, message(f"in-{self.told}", f"text {self.told}"), self.told)
            await self._accept()
            await asyncio.sleep(PACE_S)

    async def _accept(self) -> None:
        text = port.Text(f"out {self.told}")
        try:
            async with asyncio.timeout(5):
                done = await accept(self._committer, self.instances[0].id, "5511", text, None, 100_000)
            self.accepted.append(done.zaap_id)
        except Exception as error:  # noqa: BLE001 - the test looks at each
            self.refused.append(error)

    async def end(self) -> None:
        """No more is told; wait until all is done."""
        self._stop.set()
        async with asyncio.timeout(20):
            for instance in self.instances:
                await self.lanes.idle(instance.id)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for it."""
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.01)

    async def recorded(self, instance_id: str) -> list[str]:
        """The texts in the history, in order."""
        rows = await self.pool.fetch("select payload from event where instance_id = $1 order by number", instance_id)
        return [msgspec.json.decode(row["payload"])["text"]["message"] for row in rows]


@pytest.fixture
async def flow(impatient: Pool) -> AsyncIterator[Flow]:
    """A flow that has begun."""
    account = await make_account(impatient)
    flow = Flow(impatient, [await make_instance(impatient, account, None) for _ in range(INSTANCES)])
    task = asyncio.create_task(flow.run())
    await flow.until(lambda: flow.told > 5)
    yield flow
    await flow.end()
    await task
    await flow.lanes.close()


@contextlib.asynccontextmanager
async def as_admin(database: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """The superuser, in this database."""
    connection = await asyncpg.connect(database, user="postgres")
    try:
        yield connection
    finally:
        await connection.close()


_CUT = (
    "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and usename = 'tomada'"
)
_TABLES = "event, lane, callback, instance, outgoing_message, database_probe"

# What refuses, what ends it, and the SQLSTATE that /ready names (of one of them).
REFUSALS: dict[str, tuple[list[str], list[str], str]] = {
    "read-only, as after a fail-over": (
        ["alter database {name} set default_transaction_read_only = on", _CUT],
        ["alter database {name} reset default_transaction_read_only", _CUT],
        "25006",
    ),
    "no privilege": (
        [f"revoke all on {_TABLES} from tomada"],
        [f"grant all on {_TABLES} to tomada"],
        "42501",
    ),
    "no privilege on one table": (["revoke all on event from tomada"], ["grant all on event to tomada"], ""),
    "may not log in": (["alter role tomada nologin", _CUT], ["alter role tomada login"], "28000"),
    "too many connections": (
        ["alter role tomada connection limit 0", _CUT],
        ["alter role tomada connection limit -1"],
        "53300",
    ),
    "a table is missing": (
        ["alter table event rename to mislaid", "alter table database_probe rename to mislaid_probe"],
        ["alter table mislaid rename to event", "alter table mislaid_probe rename to database_probe"],
        "42P01",
    ),
    "locked, with a statement timeout": (
        ["alter role tomada set statement_timeout = '100ms'", _CUT, "begin", f"lock table {_TABLES}"],
        ["commit", "alter role tomada reset statement_timeout", _CUT],
        "57014",
    ),
}


@pytest.mark.parametrize("kind", REFUSALS)
async def test_a_refusing_database_delays_and_loses_nothing(flow: Flow, database: str, kind: str) -> None:
    """However often it refuses: nothing is put aside, lost or reordered, callers hear 503, and the probe says why."""
    begin, end, state = REFUSALS[kind]
    health = Health(database, SystemClock(), CollectorRegistry(), lambda: flow.lanes.refusal)
    probe = asyncio.create_task(health.run())
    async with as_admin(database) as admin:
        name = await admin.fetchval("select current_database()")
        try:
            await _all(admin, begin, name)
            worst = flow.told + 2
            await flow.until(lambda: max(flow.tries.get(f"in-{n}", 0) for n in range(worst)) >= REFUSED_TRIES)
            await flow.until(lambda: health.trouble() is not None and state in (health.trouble() or ""))
        finally:
            await _all(admin, end, name)
    await flow.until(lambda: health.trouble() is None)
    await flow.end()
    probe.cancel()

    expected = [f"text {number}" for number in range(1, flow.told + 1)]
    for instance in flow.instances:
        assert await flow.recorded(instance.id) == expected
    assert (flow.aside, flow.lanes.put_aside_total, flow.lanes.stuck) == ([], 0, 0)
    assert {type(error) for error in flow.refused} <= {DatabaseUnavailable, OutcomeUnknown, TimeoutError}
    kept = {row["zaap_id"] for row in await flow.pool.fetch("select zaap_id from outgoing_message")}
    assert set(flow.accepted) <= kept


async def _all(admin: "asyncpg.Connection[asyncpg.Record]", statements: list[str], name: str) -> None:
    for statement in statements:
        await admin.execute(statement.format(name=name))


_TRIGGER = """
create function refuse() returns trigger language plpgsql as $$ begin
    if new.payload like '%unfit%' then raise exception 'no' using errcode = '{state}'; end if;
    return new;
end $$;
create trigger refuse before insert on event for each row execute function refuse()
"""


@pytest.mark.parametrize("state", ["P0001", "22023", "XX000"])
async def test_an_unfit_event_is_put_aside_while_its_neighbours_go_on(flow: Flow, state: str) -> None:
    """After five tries, whether the SQLSTATE tells of the data or of nothing; not one of its neighbours with it."""
    await flow.pool.execute(_TRIGGER.format(state=state))
    flow.tell(flow.instances[1].id, message("unfit", "unfit"), 0)
    before = flow.told
    await flow.until(lambda: flow.aside == ["unfit"])
    await flow.until(lambda: flow.told > before + 5)
    await flow.end()

    assert flow.tries["unfit"] >= TRIES_MAX
    for instance in flow.instances:
        assert await flow.recorded(instance.id) == [f"text {number}" for number in range(1, flow.told + 1)]
