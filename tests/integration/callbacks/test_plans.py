"""What delivering costs must not depend on how much the history holds: nothing on that path reads a whole table."""

import asyncpg

from tests.integration.callbacks.harness import event, make_account, make_instance, running
from tests.receiver import Receiver
from tomada.postgres.pool import connect

_READ_WHOLE = "select relname, seq_scan from pg_stat_user_tables where relname = any($1) and seq_scan > 0"
_TABLES = ("event", "callback", "attempt", "lane", "instance", "account")
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
