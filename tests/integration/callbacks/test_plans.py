"""What delivering costs must not depend on how much the history holds: nothing on that path reads a whole table."""

import asyncpg

from tests.integration.callbacks.harness import event, make_account, make_instance, running
from tests.receiver import Receiver
from tomada.callbacks.store import reading
from tomada.postgres.pool import Pool, connect

_READ_WHOLE = "select relname, seq_scan from pg_stat_user_tables where relname = any($1) and seq_scan > 0"
_TABLES = ("event", "callback", "attempt", "lane", "instance", "account")
_READ = "select idx_tup_fetch + seq_tup_read from pg_stat_xact_user_tables where relname = 'dead_letter'"
_DIE = """
with lane as (
    insert into lane (instance_id, account_id, url, destination) values ($2, $1, 'http://x', 'x:80') returning id
), event as (
    insert into event (instance_id, number, id, account_id, type, target, payload, dedupe_key)
    select $2, n, $2 || n, $1, 'T', 'received', '{}', n::text from generate_series(1, 500) n
)
insert into dead_letter (lane_id, position, instance_id, event_number, account_id, attempts, reason)
select lane.id, n, $2, n, $1, 1, 'test' from lane, generate_series(1, 500) n
"""
ENOUGH = 12  # PostgreSQL keeps a statement's general plan after five uses


async def test_plans_made_on_an_empty_database_read_no_table_whole(database: str, receiver: Receiver) -> None:
    """Recording, taking and settling go by indexes from the first event on: a plan of that hour serves for long."""
    pool = await connect(database, size_max=2)
    account = await make_account(pool)
    instance = await make_instance(pool, account, receiver.url())
    async with running(pool) as rig:
        for number in range(ENOUGH):
            await rig.recorder.record([event(instance, number)])
            await receiver.wait_for(number + 1)
    await pool.close()  # a connection tells its figures at its end at the latest

    watcher = await asyncpg.connect(database)
    try:
        assert [tuple(row) for row in await watcher.fetch(_READ_WHOLE, _TABLES)] == []
    finally:
        await watcher.close()


async def test_a_page_of_dead_letters_reads_no_more_than_it_shows(pool: Pool) -> None:
    """However many lie there: of other accounts, of other instances, and on the pages before and after."""
    accounts = [await make_account(pool) for _ in range(2)]
    owned = [(account, await make_instance(pool, account, None)) for account in accounts * 3]
    for account, instance in owned:
        await pool.execute(_DIE, account.id, instance.id)
    await pool.execute("analyze dead_letter")  # of a table that it takes for small, PostgreSQL sorts a lane
    account, instance = owned[3]
    for instance_id, lanes in ((None, [2, 4, 6]), (instance.id, [4])):
        shown: list[tuple[int, int]] = []
        while not shown or len(shown) % 100 == 0:
            async with pool.acquire() as connection, connection.transaction():
                read = await connection.fetchval(_READ)
                after = shown[-1] if shown else (0, 0)
                page, _ = await reading.dead_letters(connection, account.id, instance_id, after, 100)
                assert await connection.fetchval(_READ) - read <= 100
            if not page:
                break
            shown += [(row["lane_id"], row["position"]) for row in page]
        assert shown == [(lane, position) for lane in lanes for position in range(1, 501)]
