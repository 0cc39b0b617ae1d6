"""What the machine may not lose or tell falsely: events until they are acknowledged, sends until their outcome.

WhatsApp is told that a message arrived when the host has acknowledged it, so the simulated network keeps it until then:
what a phone sent, against what was acknowledged, shows every loss.
"""

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg
import msgspec
import pytest

from tests.integration.machines.conftest import Pair
from tests.integration.machines.driven import Driven, News, text_of
from tests.integration.machines.stage import Stage, Store, jid, prepared_store
from tomada.engine import told
from tomada.machines.protocol import CloseSession, OpenSession, Probe
from tomada.postgres.launcher import EmbeddedServer, embedded_server


def acknowledged(driven: Driven, instance_id: str) -> list[str]:
    """The texts that were acknowledged."""
    mine = (news.event for news in driven.acknowledged if news.instance_id == instance_id)
    return [words for event in mine if isinstance(event, told.Message) and (words := text_of(event))]


async def test_numbers(stage: Stage, shared: Driven, pair: Pair) -> None:
    """Messages and receipts have a number, no number comes twice, and what can be told again later has none."""
    await shared.send(pair.alice, "3EB0NUMBERED", jid(pair.bob_number), "numbered")
    await shared.event(pair.alice, told.Receipt, lambda e: "3EB0NUMBERED" in e.wa_ids)
    gated = {told.Message, told.Receipt, told.Undecryptable}
    for news in shared.happened:
        assert bool(news.number) == (type(news.event) in gated), news
    numbers = [news.number for news in shared.happened if news.number]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("end", ["kill -9", "orderly", "closed"])
async def test_an_unacknowledged_event_comes_again(stage: Stage, end: str) -> None:
    """Under its id, once the session is there again, however it went away; what was acknowledged does not."""
    mine = stage.fresh("again")
    other = await stage.network.phone("Other")
    async with stage.machine("again") as first:
        number = await stage.paired(first, mine)
        await stage.say(other, number, "taken")
        await first.until(lambda: "taken" in acknowledged(first, mine))
        await first.send(mine, "3EB0AGAIN", jid(other), "answered")  # a receipt is an event like any other
        await first.event(mine, told.Receipt, lambda e: "3EB0AGAIN" in e.wa_ids)
        first.held.add(mine)
        kept = await stage.say(other, number, "kept")
        await first.text(mine, "kept")
        if end == "kill -9":
            first.process.kill()
        elif end == "orderly":
            assert await first.end(0) == 0
        else:
            await first.done(CloseSession(mine))
            first.held.discard(mine)
            await stage.reopen(first, mine)
            await first.until(lambda: "kept" in acknowledged(first, mine))
            assert first.texts(mine) == ["taken", "kept", "kept"]
            return
    async with stage.machine("again") as second:
        await stage.reopen(second, mine)
        again = await second.text(mine, "kept")
        assert again.wa_id == kept
        await stage.say(other, number, "new")
        await second.text(mine, "new")
        assert second.texts(mine) == ["kept", "new"]
        assert await second.end() == 0
    async with stage.machine("again") as third:
        await stage.reopen(third, mine)
        await stage.say(other, number, "last")
        await third.text(mine, "last")
        told_anew = [text for text in third.texts(mine) if text != "new"]  # its acknowledgement may not have left
        assert told_anew == ["last"]


async def test_it_comes_again_after_a_connection_that_broke(stage: Stage, shared: Driven) -> None:
    """A break of the connection is not the host's word: what waited for it comes again on the next."""
    mine = stage.fresh("broke")
    number = await stage.paired(shared, mine)
    shared.held.add(mine)
    await stage.say(await stage.network.phone("Other"), number, "kept")
    await shared.text(mine, "kept")
    shared.held.discard(mine)
    await stage.network.fault("drop", number=number)
    await shared.until(lambda: acknowledged(shared, mine) == ["kept"])
    assert shared.texts(mine) == ["kept", "kept"]


async def test_a_message_that_whatsapp_brings_twice_is_told_once(stage: Stage, shared: Driven) -> None:
    """Once it is acknowledged, the machine knows it again by itself."""
    mine = stage.fresh("redelivered")
    number = await stage.paired(shared, mine)
    other = await stage.network.phone("Other")
    await stage.network.fault("redeliver", number=number)
    await stage.say(other, number, "only once")
    await shared.text(mine, "only once")
    await stage.say(other, number, "after")
    await shared.text(mine, "after")
    assert shared.texts(mine) == ["only once", "after"]


async def test_one_slow_instance_holds_up_no_other(stage: Stage, shared: Driven) -> None:
    """Numbers are acknowledged one by one: while one instance's event waits, another's go on."""
    slow, quick = stage.fresh("slow"), stage.fresh("quick")
    numbers = {name: await stage.paired(shared, name) for name in (slow, quick)}
    other = await stage.network.phone("Other")
    shared.held.add(slow)
    for text in ("first", "second"):
        await stage.say(other, numbers[slow], text)
    await shared.text(slow, "first")
    for n in range(5):
        await stage.say(other, numbers[quick], f"quick {n}")
    await shared.until(lambda: acknowledged(shared, quick) == [f"quick {n}" for n in range(5)])
    assert shared.texts(slow) == ["first"]  # and the second waits for it: order
    assert acknowledged(shared, slow) == []
    assert await shared.done(Probe(slow)) is True  # questions do not wait
    await shared.send(slow, "3EB0SLOWSENDS", jid(other), "and I send")
    assert isinstance(await shared.outcome(slow, "3EB0SLOWSENDS"), told.Sent)
    shared.held.discard(slow)
    await shared.done(CloseSession(slow))
    await stage.reopen(shared, slow)
    await shared.until(lambda: acknowledged(shared, slow) == ["first", "second"])


# --- the database ----------------------------------------------------------------------------------------------------


class Committing:
    """Commits each event in the database of the session store before it is acknowledged, as the host does."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._turn = asyncio.Lock()

    async def __call__(self, news: News) -> None:
        """Tries until it is done."""
        wa_id = news.event.wa_id if isinstance(news.event, told.Message) else ""
        while True:
            try:
                async with self._turn:
                    if self._connection is None or self._connection.is_closed():
                        self._connection = await asyncpg.connect(self.dsn, timeout=5)
                    await self._connection.execute("insert into committed values ($1) on conflict do nothing", wa_id)
                return
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
                self._connection = None  # whatever became of it
                await asyncio.sleep(0.05)

    async def ids(self) -> set[str]:
        """What is committed, read anew."""
        connection = await asyncpg.connect(self.dsn)
        try:
            return {row["wa_id"] for row in await connection.fetch("select wa_id from committed")}
        finally:
            await connection.close()


@pytest.fixture(scope="module")
async def own_server() -> AsyncIterator[EmbeddedServer]:
    """A server that may be killed; as the product has it, fsync and all."""
    with tempfile.TemporaryDirectory(prefix="tomada-killed-") as folder:
        async with embedded_server(Path(folder) / "postgres") as server:
            yield server


@pytest.fixture(scope="module")
async def own_store(own_server: EmbeddedServer) -> Store:
    """A session store there, and a table for what is committed."""
    connection = await asyncpg.connect(own_server.dsn)
    await connection.execute("create table committed (wa_id text primary key)")
    await connection.close()
    return await prepared_store(own_server.dsn)


@contextlib.asynccontextmanager
async def flowing(stage: Stage, number: str, sent: set[str]) -> AsyncIterator[None]:
    """While the block runs, two phones write to this number without pause; their messages' ids go into `sent`."""
    over = asyncio.Event()

    async def write(name: str) -> None:
        other = await stage.network.phone(name)
        count = 0
        while not over.is_set():
            sent.add(await stage.say(other, number, f"{name} {count}"))
            count += 1
            await asyncio.sleep(0.02)

    writers = [asyncio.create_task(write(name)) for name in ("Ana", "Zé")]
    try:
        yield
    finally:
        over.set()
        await asyncio.gather(*writers)


async def terminate_backends(store: Store, _server: EmbeddedServer) -> None:
    """Every connection of the machines is ended by the database, as an administrator may."""
    sql = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'tomada-machine'"
    with contextlib.suppress(OSError, asyncpg.PostgresError):
        await store.count(sql)


async def kill_a_backend(store: Store, _server: EmbeddedServer) -> None:
    """kill -9 of one backend: the whole server begins anew, and what was committed asynchronously may be gone."""
    with contextlib.suppress(OSError, asyncpg.PostgresError):
        sql = "select pid from pg_stat_activity where application_name = 'tomada-machine' limit 1"
        pid = await store.count(sql)
        if pid:
            os.kill(pid, signal.SIGKILL)


async def restart(_store: Store, server: EmbeddedServer) -> None:
    """kill -9 of the server; its keeper starts it again."""
    before = server.restarts
    os.kill(server.pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        while server.restarts == before:
            await asyncio.sleep(0.05)


Harm = Callable[[Store, EmbeddedServer], Awaitable[None]]
HARMS: tuple[Harm, ...] = (terminate_backends, kill_a_backend, restart)


@pytest.mark.slow
@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
async def test_the_database_fails_while_messages_come(
    stage: Stage, own_server: EmbeddedServer, own_store: Store, harm: Harm
) -> None:
    """Nothing that a phone sent is missing among what was committed, and the session lives on by itself."""
    committing = Committing(own_store.owner)
    mine = stage.fresh("harmed")
    sent: set[str] = set()
    async with stage.machine(mine, commit=committing, store_dsn=own_store.machine) as driven:
        number = await stage.paired(driven, mine)
        async with flowing(stage, number, sent):
            for _ in range(4):
                seen = len(driven.acknowledged)
                await driven.until(lambda seen=seen: len(driven.acknowledged) >= seen + 10, 60)  # type: ignore[misc]
                await harm(own_store, own_server)
        sent.add(await stage.say(await stage.network.phone("Other"), number, "last"))
        await driven.until(lambda: "last" in acknowledged(driven, mine), 90)
        async with asyncio.timeout(60):
            while sent - await committing.ids():
                await asyncio.sleep(0.2)
        assert len(sent) > 40
        assert await driven.end() == 0


@pytest.mark.slow
@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
async def test_the_database_fails_while_we_send(
    stage: Stage, own_server: EmbeddedServer, own_store: Store, harm: Harm
) -> None:
    """Each send has its outcome; what may be given again is, under its id; the phone has each message once."""
    mine = stage.fresh("sending")
    committing = Committing(own_store.owner)
    async with stage.machine(mine, commit=committing, store_dsn=own_store.machine) as driven:
        number = await stage.paired(driven, mine)
        other = await stage.network.phone("Other")
        ids = [f"3EB0{mine}X{n}" for n in range(6)]
        async with flowing(stage, number, set()):
            for wa_id in ids:
                seen = len(driven.acknowledged)
                await driven.until(lambda seen=seen: len(driven.acknowledged) >= seen + 10, 60)  # type: ignore[misc]
                await driven.send(mine, wa_id, jid(other), wa_id)
                await harm(own_store, own_server)
        for wa_id in ids:
            count = 1
            await driven.until(lambda w=wa_id: bool(driven.outcomes(mine, w)), 100)  # type: ignore[misc]
            while isinstance(failed := driven.outcomes(mine, wa_id)[-1], told.SendFailed):
                assert failed.kind in {"retry", "unknown"}
                assert (await driven.send(mine, wa_id, jid(other), wa_id)).kind == ""
                count += 1
                await driven.until(lambda w=wa_id, c=count: len(driven.outcomes(mine, w)) == c, 100)  # type: ignore[misc]
        async with asyncio.timeout(30):
            while set(ids) - set(await stage.texts(other)):
                await asyncio.sleep(0.1)
        texts = await stage.texts(other)
        assert [texts.count(wa_id) for wa_id in ids] == [1] * len(ids)
        assert await driven.end() == 0


async def test_an_opening_after_the_database_ended_its_connections(stage: Stage, shared: Driven) -> None:
    """Idle connections that are gone are not the session's fault, and not "no device"."""
    mine = stage.fresh("idle")
    await stage.paired(shared, mine)
    await shared.done(CloseSession(mine))
    sql = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'tomada-machine'"
    assert await stage.store.count(sql)
    answer = await shared.ask(OpenSession(stage.spec(mine)))
    while answer.kind == "retry":  # the one in whose hands it broke a moment ago
        answer = await shared.ask(OpenSession(stage.spec(mine)))
    assert msgspec.json.decode(answer.value) == {"device": shared.events(mine, told.Connected)[0].device}


@pytest.mark.slow
async def test_a_store_that_cannot_be_read_is_never_no_device(stage: Stage, sessions: Store) -> None:
    """Away, or the machine is not let in: the answer is an error that says to ask again, and nothing is begun."""
    host = sessions.machine.partition("?")[2]
    addresses = {
        "away": "postgresql://tomada_machine@127.0.0.1:1/x",
        "not let in": f"postgresql://nobody_of_that_name:secret@/machines_1?{host}",
        "no such database": f"postgresql://tomada_machine@/no_such_database?{host}",
    }

    async def opened(name: str, dsn: str) -> None:
        async with stage.machine(name, store_dsn=dsn) as driven:
            for pair in (False, True):
                answer = await driven.ask(OpenSession(stage.spec(stage.fresh("unread"), pair=pair)), 90)
                assert answer.kind == "retry", (name, answer)
                assert "secret" not in answer.error
            assert not driven.happened
            assert b"secret" not in driven.log

    await asyncio.gather(*(opened(name, dsn) for name, dsn in addresses.items()))
