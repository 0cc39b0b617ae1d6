"""W1 and W2: nothing accepted is lost, order holds, and duplicates are few, under kill -9 of everything.

Killed in turn, at random: one of two dispatchers, the recorder (which stands for the host), PostgreSQL. The receiver's
own record decides (tests/history.py). Its answers take ANSWER_S, so a lane that is taken over has sent PER_BATCH events
at most that were not settled; a slow machine makes that fewer, never more. The short form runs some seconds; the long
one is

    KILL_TEST="1800 20000 5 40" .venv/bin/python -m pytest -s tests/integration/callbacks/test_w01_w02_kill.py

(seconds, events, shortest and longest pause between kills in seconds).
"""

import asyncio
import json
import os
import random  # noqa: TID251 - seeded, printed
import signal
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook

from tests.history import Accepted, check
from tests.integration.callbacks import child
from tests.integration.callbacks.child import read_notes
from tests.integration.callbacks.harness import Account, eventually, make_account, make_instance
from tests.receiver import Receiver
from tomada.callbacks.dispatcher import BATCH_S
from tomada.postgres.launcher import EmbeddedServer, embedded_server
from tomada.postgres.migrate import migrate
from tomada.postgres.pool import Pool, connect
from tomada.postgres.verdict import Verdict, judge

SECONDS, EVENTS, PAUSE_MIN, PAUSE_MAX = (float(text) for text in os.environ.get("KILL_TEST", "12 2000 0.5 2").split())
LEASE_S = 15.0 if PAUSE_MAX > 10 else 2.0
INSTANCES = 10  # of two accounts in turn
ANSWER_S = 0.05  # in the short form all lanes together take a little less than is recorded: all have work
PER_BATCH = int(BATCH_S / ANSWER_S) + 1  # of a lane, before they are settled


class Children:
    """The processes that are killed and started again."""

    def __init__(self, dsn: str, record: tuple[str, ...]) -> None:
        dispatch = ("dispatch", dsn, str(LEASE_S))
        self._commands = {"dispatcher 1": dispatch, "dispatcher 2": dispatch, "recorder": ("record", dsn, *record)}
        self._running = {name: self._start(name) for name in self._commands}

    def _start(self, name: str) -> "subprocess.Popen[bytes]":
        return child.start(*self._commands[name])

    def kill(self, name: str) -> None:
        """SIGKILL, and a successor; harmless for one that has ended."""
        self._running[name].kill()
        self._running[name].wait()
        self._running[name] = self._start(name)

    def ended_well(self, name: str) -> bool:
        """Whether a process has done its work."""
        return self._running[name].poll() == 0

    def close(self) -> None:
        """Kill all."""
        for process in self._running.values():
            process.kill()
            process.wait()


@pytest.mark.timeout(SECONDS * 2 + 240)
async def test_w01_w02_nothing_is_lost_under_kill_9(tmp_path: Path, receiver: Receiver) -> None:
    """0 lost, 0 out of order, nothing of another account; a lane repeats a batch at most, with the same webhook-id."""
    seed = random.SystemRandom().randrange(1 << 32)
    rng = random.Random(seed)
    async with embedded_server(tmp_path / "postgres") as server:
        await migrate(server.dsn)
        pool = await connect(server.dsn, patience_s=60)
        accounts = [await make_account(pool), await make_account(pool)]
        paths = [f"slow-{ANSWER_S}/{n}" for n in range(INSTANCES)]
        instances = [await make_instance(pool, accounts[n % 2], receiver.url(path)) for n, path in enumerate(paths)]
        notes = tmp_path / "notes.jsonl"
        rate = str(EVENTS / SECONDS * 1.3)
        children = Children(server.dsn, (str(notes), ",".join(i.id for i in instances), str(int(EVENTS)), rate))
        try:
            kills = await _havoc(children, server, rng)
            await eventually(lambda: children.ended_well("recorder"), 120)
            await eventually(lambda: _empty(pool), 120)
        finally:
            children.close()
        dead = [
            row["id"]
            for row in await _fetch(
                pool,
                "select e.id from dead_letter d join event e"
                " on e.instance_id = d.instance_id and e.number = d.event_number",
            )
        ]
        pool.terminate()
    accepted = [
        Accepted(instance_id, key, int(number), event_id) for instance_id, key, number, event_id in read_notes(notes)
    ]
    report = check(
        accepted,
        receiver.requests(),
        dead,
        tokens={i.id: i.token for i in instances},
        paths={i.id: f"/{path}" for i, path in zip(instances, paths, strict=True)},
    )
    dispatcher_kills = kills["dispatcher 1"] + kills["dispatcher 2"] + kills["postgresql"]
    print(f"\nW1/W2: seed {seed}, kills {kills}, {report.delivered} delivered, {report.duplicates} duplicates")  # noqa: T201
    assert report.problems == []
    assert report.accepted == report.delivered + report.dead == EVENTS
    assert sum(kills.values()) >= 5
    assert report.duplicates <= dispatcher_kills * INSTANCES * PER_BATCH
    longest = max(_repeats(receiver, accepted), default=0)
    assert longest <= PER_BATCH
    assert _wrongly_signed(receiver, {i.id: accounts[n % 2] for n, i in enumerate(instances)}) == []


def _repeats(receiver: Receiver, accepted: list[Accepted]) -> list[int]:
    """How far a lane went back, in events, each time that it did."""
    numbers = {(event.instance_id, event.key): event.number for event in accepted}
    latest: dict[str, int] = {}
    repeats = []
    for request in receiver.requests():
        body = json.loads(request["body"])
        number, before = numbers[body["instanceId"], body["key"]], latest.get(body["instanceId"], 0)
        if number <= before:
            repeats.append(before - number + 1)
        latest[body["instanceId"]] = number
    return repeats


def _wrongly_signed(receiver: Receiver, owners: dict[str, Account]) -> list[str]:
    """The webhook-ids of events that are not signed with the secret of their instance's account."""
    wrong = []
    for request in receiver.requests():
        owner = owners[json.loads(request["body"])["instanceId"]]
        signed = Webhook(owner.secret)
        timestamp = datetime.fromtimestamp(int(request["headers"]["webhook-timestamp"]), UTC)
        event_id = request["headers"]["webhook-id"]
        if signed.sign(event_id, timestamp, request["body"]) != request["headers"]["webhook-signature"]:
            wrong.append(event_id)
    return wrong


async def _havoc(children: Children, server: EmbeddedServer, rng: random.Random) -> dict[str, int]:
    """Kill one thing after the other for the length of the test; how often each."""
    kills = {"dispatcher 1": 0, "dispatcher 2": 0, "recorder": 0, "postgresql": 0}
    until_s = time.monotonic() + SECONDS
    turn = 0
    while time.monotonic() < until_s:
        await asyncio.sleep(rng.uniform(PAUSE_MIN, PAUSE_MAX))
        name = rng.choice(list(kills)) if turn >= len(kills) else list(kills)[turn]
        turn += 1
        if name == "postgresql":
            os.kill(server.pid, signal.SIGKILL)
        elif name == "recorder" and children.ended_well(name):
            continue
        else:
            children.kill(name)
        kills[name] += 1
    return kills


async def _fetch(pool: Pool, sql: str) -> list[dict[str, str]]:
    return [dict(row) for row in await pool.fetch(sql)]


async def _empty(pool: Pool) -> bool:
    """Nothing is waiting; the database may be just coming back."""
    try:
        return bool(await pool.fetchval("select not exists (select from callback)"))
    except Exception as error:
        if judge(error) is Verdict.LOST:
            return False
        raise
