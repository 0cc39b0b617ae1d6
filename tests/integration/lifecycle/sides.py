"""The two stores behind one face, both on a clock that the test holds, with everything that hangs on an instance.

`state()` tells all there is to know of a side in the same words, so that two sides can be compared whole.
"""

from typing import Any, Protocol

from tests.simulation.machines import Machines
from tests.simulation.memory import Account, MemoryLifecycle
from tomada.accounts import audit
from tomada.callbacks.store.recording import write_events
from tomada.callbacks.types import NewEvent, Target
from tomada.instances.deletion import Deletion
from tomada.instances.lifecycle import LIVE, Standing, State, Terms
from tomada.instances.lifecycle_port import LifecycleStore
from tomada.instances.lifecycle_store import PostgresLifecycle
from tomada.machines import store as session_store
from tomada.postgres.pool import Connection, Pool

START_MS = 1_767_312_000_000  # 2026-01-02T00:00:00Z
TERMS = Terms()


class Neighbours:
    """The other domains: the real audit log and the real callbacks; messages fail in place."""

    async def audit(
        self, connection: Connection, account_id: str, actor: str, action: str, subject: str, detail: object = None
    ) -> None:
        """See lifecycle_store.Neighbours."""
        await audit.append(connection, account_id, actor, action, subject, detail)

    async def cancel_queue(self, connection: Connection, instance_id: str) -> int:
        """See lifecycle_store.Neighbours."""
        status = await connection.execute(
            "update outgoing_message set state = 'cancelled' where instance_id = $1 and state in ('queued', 'sending')",
            instance_id,
        )
        return int(status.split()[-1])

    async def record_disconnected(self, connection: Connection, instance_id: str, dedupe_key: str) -> None:
        """See lifecycle_store.Neighbours."""
        event = NewEvent(instance_id, Target.DISCONNECTED, "DisconnectedCallback", "{}", dedupe_key)
        await write_events(connection, [event])


class FakeMachines(Machines):
    """Machines and phones; `fail` names how many of the next tries WhatsApp does not answer."""

    def __init__(self) -> None:
        super().__init__(self._answers)
        self.fail = 0

    def _answers(self) -> bool:
        if not self.fail:
            return True
        self.fail -= 1
        return False


class TestClock:
    """A clock that stands still."""

    __test__ = False

    def now_ms(self) -> int:
        """Never asked."""
        raise AssertionError("the lifecycle has no business with a process's own clock")

    def monotonic_s(self) -> float:
        """No time passes within a step."""
        return 0.0


class Side(Protocol):
    """A store with its surroundings."""

    machines: FakeMachines

    @property
    def store(self) -> LifecycleStore:
        """The store under test."""

    async def account(self, account_id: str, instances_max: int = 25) -> None:
        """Adds an account."""

    async def create(self, account_id: str, instance_id: str, *, paired: bool = True) -> Standing:
        """Adds a trial as of now, with a queued message and an event."""

    async def set_time(self, lifecycle_ms: int, real_ms: int) -> None:
        """Both times of the database."""

    async def standing(self, instance_id: str) -> Standing:
        """The instance, whoever owns it."""

    async def leaving(self, instance_id: str) -> bool:
        """Whether a former machine is not removed yet, as the host asks before it pairs a phone."""

    async def pair(self, instance_id: str) -> bool:
        """A phone is paired with the machine that the instance has, if it has one and there is a code to be had."""
        standing = await self.standing(instance_id)
        if standing.state not in LIVE or await self.leaving(instance_id):
            return False
        return self.machines.pair(instance_id, standing.epoch)

    async def state(self) -> dict[str, Any]:
        """Everything."""


def words(
    deletion: Deletion, ready_ms: int, not_before_ms: int, force_ms: int | None, *, receipt: bool
) -> dict[str, Any]:
    """A deletion in comparable words. Counts of removed rows are PostgreSQL's own."""
    steps = [(item.step.value, item.at_ms, item.note) for item in deletion.done]
    return {
        "steps": steps,
        "scope": deletion.scope,
        "cause": deletion.cause,
        "asked": deletion.asked_ms,
        "failures": deletion.failures,
        "number": deletion.number,
        "forced": (deletion.forced, force_ms),
        "finished": deletion.finished,
        "ready": None if deletion.finished else ready_ms,
        "not_before": not_before_ms,
        "receipt": receipt,
    }


class MemorySide(Side):
    """The store of the simulation."""

    def __init__(self) -> None:
        self.lifecycle_ms = self.real_ms = START_MS
        self._store = MemoryLifecycle(lambda: self.lifecycle_ms, lambda: self.real_ms)
        self.machines = FakeMachines()

    @property
    def store(self) -> MemoryLifecycle:
        """See Side."""
        return self._store

    async def account(self, account_id: str, instances_max: int = 25) -> None:
        """See Side."""
        self.store.accounts[account_id] = Account(instances_max)

    async def create(self, account_id: str, instance_id: str, *, paired: bool = True) -> Standing:
        """See Side."""
        due_ms = self.lifecycle_ms + TERMS.trial_ms
        standing = Standing(
            id=instance_id, account_id=account_id, state=State.TRIAL, created_ms=self.lifecycle_ms, due_ms=due_ms
        )
        self.store.create(standing)
        paper = self.store.papers[instance_id]
        paper.queued, paper.session = 1, paired
        paper.events.append("first")
        if paired:
            self.machines.pair(instance_id, 1)
        return standing

    async def set_time(self, lifecycle_ms: int, real_ms: int) -> None:
        """See Side."""
        self.lifecycle_ms, self.real_ms = lifecycle_ms, real_ms

    async def standing(self, instance_id: str) -> Standing:
        """See Side."""
        return self.store.standings[instance_id]

    async def leaving(self, instance_id: str) -> bool:
        """See Side."""
        return self.store.leaving(instance_id)

    async def state(self) -> dict[str, Any]:
        """See Side."""
        papers = self.store.papers.items()
        return {
            "standings": dict(sorted(self.store.standings.items())),
            "deletions": {
                key: words(row.deletion, row.ready_ms, row.not_before_ms, row.force_ms, receipt=row.digest is not None)
                for key, row in sorted(self.store.rows.items())
            },
            "papers": {
                name: (paper.session, paper.queued, sorted(paper.events), paper.tokens, paper.name)
                for name, paper in sorted(papers)
            },
            "accounts": {name: account.suspended_until_ms for name, account in sorted(self.store.accounts.items())},
            "audit": list(self.store.audit),
            "machines": self.machines.state(),
        }


_FREEZE = """
create table frozen_time (lifecycle_ms bigint, real_ms bigint);
insert into frozen_time values ({0}, {0});
create or replace function real_now_ms() returns bigint language sql volatile as
$$ select real_ms from frozen_time $$;
create or replace function lifecycle_now_ms() returns bigint language sql volatile as
$$ select lifecycle_ms from frozen_time $$;
"""

_CREATE = """
with counted as (update account set instances_live = instances_live + 1 where id = $2)
insert into instance (id, account_id, token_hash, token_sealed, name, session_name, created_ms, due_ms,
                      disconnected_callback_url)
values ($1, $2, 'hash', 'sealed', 'Shop', 'Shop', $3, $4, 'https://example.com/gone')
"""

_PAPERS = """
select i.id, s.instance_id is not null as session, length(i.token_hash) > 0 as tokens, i.name <> '' as name,
    (select count(*) from outgoing_message m where m.instance_id = i.id and m.state = 'queued') as queued,
    (select coalesce(array_agg(dedupe_key order by dedupe_key), '{}') from event e where e.instance_id = i.id) as events
from instance i left join session s on s.instance_id = i.id order by i.id
"""


class PostgresSide(Side):
    """The store of production."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self._store = PostgresLifecycle(pool, Neighbours())
        self.machines = FakeMachines()

    @property
    def store(self) -> PostgresLifecycle:
        """See Side."""
        return self._store

    async def freeze(self) -> None:
        """The database's clocks stand still from now on."""
        await self.pool.execute(_FREEZE.format(START_MS))

    async def account(self, account_id: str, instances_max: int = 25) -> None:
        """See Side."""
        await self.pool.execute(
            "insert into account (id, name, partner_token_hash, partner_token_sealed, signing_secret_sealed,"
            " instances_max) values ($1, $1, $2, '', '', $3)",
            *(account_id, account_id.encode(), instances_max),
        )

    async def create(self, account_id: str, instance_id: str, *, paired: bool = True) -> Standing:
        """See Side."""
        now_ms = await self.pool.fetchval("select lifecycle_now_ms()")
        await self.pool.execute(_CREATE, instance_id, account_id, now_ms, now_ms + TERMS.trial_ms)
        await self.pool.execute(
            "insert into outgoing_message (instance_id, zaap_id, message_id, chat, content)"
            " values ($1, 'Z' || $1, 'M' || $1, '5511', '{}')",
            instance_id,
        )
        async with self.pool.acquire() as connection, connection.transaction():
            await write_events(connection, [NewEvent(instance_id, Target.DISCONNECTED, "T", "{}", "first")])
        if paired:
            await self.pool.execute("insert into session (instance_id, wanted) values ($1, true)", instance_id)
            self.machines.pair(instance_id, 1)
        return await self.standing(instance_id)

    async def set_time(self, lifecycle_ms: int, real_ms: int) -> None:
        """See Side."""
        await self.pool.execute("update frozen_time set lifecycle_ms = $1, real_ms = $2", lifecycle_ms, real_ms)

    async def standing(self, instance_id: str) -> Standing:
        """See Side."""
        account_id = await self.pool.fetchval("select account_id from instance where id = $1", instance_id)
        snapshot = await self.store.read(account_id, instance_id)
        assert snapshot is not None
        return snapshot.standing

    async def leaving(self, instance_id: str) -> bool:
        """See Side."""
        row = await session_store.read_one(self.pool, instance_id)
        assert row is not None
        return row.leaving

    async def state(self) -> dict[str, Any]:
        """See Side."""
        names = [row["id"] for row in await self.pool.fetch("select id from instance order by id")]
        papers = await self.pool.fetch(_PAPERS)
        accounts = await self.pool.fetch("select id, suspended_until_ms from account order by id")
        rows = await self.pool.fetch("select at_ms, actor, action, subject from audit order by account_id, number")
        return {
            "standings": {name: await self.standing(name) for name in names},
            "deletions": await self._deletions(),
            "papers": {
                row["id"]: (row["session"], row["queued"], list(row["events"]), row["tokens"], row["name"])
                for row in papers
            },
            "accounts": {row["id"]: row["suspended_until_ms"] for row in accounts},
            "audit": [tuple(row) for row in rows],
            "machines": self.machines.state(),
        }

    async def _deletions(self) -> dict[tuple[str, int], Any]:
        from tomada.instances.lifecycle_store import _deletion

        rows = await self.pool.fetch(
            "select *, finished_ms is not null as finished from deletion order by instance_id, epoch"
        )
        return {
            (row["instance_id"], row["epoch"]): words(
                _deletion(row),
                row["ready_ms"],
                row["not_before_ms"],
                row["force_ms"],
                receipt=row["digest"] is not None,
            )
            for row in rows
        }
