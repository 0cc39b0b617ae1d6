"""Every step of a create is made to fail, to lose its connection, and to run twice; what is left is looked at.

Real: HTTP, PostgreSQL, the group commit. A trigger on the step's table strikes: it raises, or it ends the database's
side of the connection, at the statement itself or at the commit. A sequence counts the blows, because a sequence is
not rolled back. The end is always the same: nothing is left of what was not answered, and the same request, sent again,
makes one instance.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.integration.wire.client import Answer
from tests.integration.wire.conftest import Wire
from tomada.accounts.idempotency import CLAIM_S
from tomada.accounts.model import NewAccount
from tomada.instances.create import create as make
from tomada.instances.model import NewInstance
from tomada.postgres.group_commit import Statement

CREATE = "/instances/integrator/on-demand"
KEY = {"Idempotency-Key": "order-1"}
WAIT_S = 20.0
# Claiming a key gets past this lock, counting the instance does not.
HOLD = "select 1 from account where id = $1 for no key update"
WAITING = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"

# Step of a create -> the event whose trigger strikes there. The last one strikes when all statements are done.
STEPS = {
    "count the instance": ("account", "before update of instances_live on account for each row"),
    "insert the instance": ("instance", "before insert on instance for each row"),
    "keep the reply": ("idempotency", "before update of completed_ms on idempotency for each row"),
    "commit": ("instance", "after insert on instance deferrable initially deferred for each row"),
}
BLOWS = {
    "fails": "raise exception 'a blow'",
    "loses its connection": "perform pg_terminate_backend(pg_backend_pid())",
}
_FUNCTION = """
create function blow() returns trigger language plpgsql as $$
declare of_account text := to_jsonb(new) ->> '{column}';
begin
    if of_account = '{account_id}' and nextval('blows') <= {count} then {blow}; end if;
    return new;
end $$
"""


@contextlib.asynccontextmanager
async def striking(wire: Wire, account: NewAccount, step: str, how: str, count: int) -> AsyncIterator[None]:
    """The first `count` times that a create of the account comes to this step, it meets a blow."""
    table, when = STEPS[step]
    column = "id" if table == "account" else "account_id"
    constraint = "constraint " if step == "commit" else ""
    await wire.pool.execute("create sequence blows")
    await wire.pool.execute(_FUNCTION.format(column=column, account_id=account.id, count=count, blow=BLOWS[how]))
    await wire.pool.execute(f"create {constraint}trigger blow {when} execute function blow()")
    try:
        yield
        assert await wire.pool.fetchval("select last_value >= $1 and is_called from blows", count), "no blow fell"
    finally:
        await wire.pool.execute(f"drop trigger blow on {table}; drop function blow; drop sequence blows")


async def create(wire: Wire, account: NewAccount, headers: dict[str, str]) -> Answer:
    """The same request each time."""
    return await wire.partner(account).call("POST", CREATE, json={"name": "Loja"}, headers=headers)


async def left(wire: Wire, account: NewAccount) -> tuple[int, int, int]:
    """Instances, the account's count of them, and kept replies."""
    row = await wire.pool.fetchrow(
        "select (select count(*) from instance where account_id = $1) as instances,"
        " (select instances_live from account where id = $1) as live,"
        " (select count(*) from idempotency where account_id = $1 and completed_ms is not null) as kept",
        account.id,
    )
    assert row is not None
    return row["instances"], row["live"], row["kept"]


async def claim_is_over(wire: Wire, account: NewAccount) -> None:
    """As if the minute in which nobody else may answer the request had passed."""
    await wire.pool.execute(
        "update idempotency set claimed_ms = claimed_ms - $2 where account_id = $1 and completed_ms is null",
        *(account.id, (CLAIM_S + 1) * 1000),
    )


async def until(what: str, condition: Callable[[], Awaitable[bool]]) -> None:
    """Waits for it, for so long."""
    try:
        async with asyncio.timeout(WAIT_S):
            while not await condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {WAIT_S:g} s") from None


@pytest.mark.parametrize("how", BLOWS)
@pytest.mark.parametrize("step", STEPS)
async def test_with_a_key(wire: Wire, step: str, how: str) -> None:
    """After a blow at any step nothing is there but the claim; then the same key makes one instance, and answers it."""
    account = await wire.account()
    async with striking(wire, account, step, how, count=1):
        assert (await create(wire, account, KEY)).status >= 500
        assert await left(wire, account) == (0, 0, 0)
        await claim_is_over(wire, account)
        made = await create(wire, account, KEY)
    assert made.status == 200, made
    assert await left(wire, account) == (1, 1, 1)
    assert (await create(wire, account, KEY)).json() == made.json()
    assert await left(wire, account) == (1, 1, 1)


@pytest.mark.parametrize("how", BLOWS)
@pytest.mark.parametrize("step", [step for step in STEPS if step != "keep the reply"])
async def test_without_a_key(wire: Wire, step: str, how: str) -> None:
    """A blow is answered by an error and leaves nothing, or it is overcome and makes one instance."""
    account = await wire.account()
    async with striking(wire, account, step, how, count=1):
        answer = await create(wire, account, {})
    made = int(answer.status == 200)
    assert made or answer.status >= 500
    assert await left(wire, account) == (made, made, 0)
    assert (await create(wire, account, {})).status == 200
    assert await left(wire, account) == (made + 1, made + 1, 0)


@pytest.mark.parametrize("limit", [1, 2])
async def test_a_statement_that_runs_twice(wire: Wire, limit: int) -> None:
    """As after a connection that was lost while it committed: the second run finds the first one's instance.

    It does so whether or not the account might have another one.
    """
    account = await wire.account(limit=limit)

    async def twice(statement: Statement, *arguments: object) -> object:
        rows = [await wire.ports.committer.execute(statement, *arguments) for _ in range(2)]
        assert rows[0] is not None
        assert rows[1] is not None
        assert rows[0]["due_ms"] == rows[1]["due_ms"]
        return rows[1]

    ports, wanted = wire.ports, NewInstance(name="Loja")
    await make(twice, ports.sealer, ports.check_url, account.id, ports.settings.trial_ms, wanted)
    assert await left(wire, account) == (1, 1, 0)


async def test_one_that_lost_its_claim_takes_its_instance_back(wire: Wire) -> None:
    """It was held up in its transaction for longer than a claim lasts; another one came, and both go on at once."""
    account = await wire.account()

    def held(count: int) -> Callable[[], Awaitable[bool]]:
        async def condition() -> bool:
            return bool(await wire.pool.fetchval(WAITING) == count)

        return condition

    async with wire.pool.acquire() as connection, connection.transaction():
        await connection.execute(HOLD, account.id)
        late = asyncio.create_task(create(wire, account, KEY))
        await until("the first is held", held(1))
        assert (await create(wire, account, KEY)).status == 409
        await claim_is_over(wire, account)
        heir = asyncio.create_task(create(wire, account, KEY))
        await until("both are held", held(2))
    assert ((await late).status, (await heir).status) == (409, 200)
    assert await left(wire, account) == (1, 1, 1)
    assert (await create(wire, account, KEY)).json() == (await heir).json()


async def test_a_client_that_hangs_up_gets_the_same_instance_later(wire: Wire) -> None:
    """Nobody heard the answer; it is kept all the same."""
    account = await wire.account()
    client = wire.partner(account)
    body = b'{"name": "Loja"}'
    head = [f"POST {CREATE} HTTP/1.1", f"Host: {client.host}", f"Authorization: {client.headers['Authorization']}"]
    head += ["Content-Type: application/json", f"Content-Length: {len(body)}", "Idempotency-Key: order-1", "", ""]
    async with wire.pool.acquire() as connection, connection.transaction():
        await connection.execute(HOLD, account.id)
        _reader, writer = await asyncio.open_connection(client.host, client.port)
        writer.write("\r\n".join(head).encode() + body)
        await until("it is being made", lambda: _claimed(wire, account))
        writer.close()
        await writer.wait_closed()

    async def answered() -> bool:
        return (
            await client.call("POST", CREATE, body=body, headers={**KEY, "Content-Type": "application/json"})
        ).status == 200

    await until("answered", answered)
    assert await left(wire, account) == (1, 1, 1)


async def _claimed(wire: Wire, account: NewAccount) -> bool:
    return bool(await wire.pool.fetchval("select exists (select 1 from idempotency where account_id = $1)", account.id))
