"""What the callback tests share: accounts and instances straight in the database, and a running dispatcher."""

import asyncio
import contextlib
import random  # noqa: TID251 - seeded, for reproducible jitter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import msgspec
from aiohttp.abc import AbstractResolver
from prometheus_client import CollectorRegistry

from tomada.callbacks.backoff import Policy
from tomada.callbacks.dispatcher import Dispatcher
from tomada.callbacks.limits import Limits
from tomada.callbacks.metrics import Metrics
from tomada.callbacks.recorder import Recorder
from tomada.callbacks.sending import Sender
from tomada.callbacks.store import taking
from tomada.callbacks.types import Lane, NewEvent, Target
from tomada.kit import ids
from tomada.kit.addresses import AddressRules
from tomada.kit.clock import SystemClock
from tomada.kit.egress import Egress
from tomada.kit.sealing import Sealer, token_hash
from tomada.postgres.pool import Pool

SEALER = Sealer(bytes(range(32)))
OPEN_RULES = AddressRules(allow_http=True, allow_private=True)

_INSERT_ACCOUNT = """
insert into account (id, name, partner_token_hash, partner_token_sealed, signing_secret_sealed)
values ($1, 'test', $2, $3, $4)
"""
_INSERT_INSTANCE = """
insert into instance (id, account_id, token_hash, token_sealed, name, session_name, created_ms, due_ms,
    received_callback_url)
values ($1, $2, $3, $4, 'test', 'test', lifecycle_now_ms(), lifecycle_now_ms() + 172800000, $5)
"""


class Account(msgspec.Struct, frozen=True):
    """An account with its signing secret in the open."""

    id: str
    secret: str


class Instance(msgspec.Struct, frozen=True):
    """An instance with its token in the open."""

    id: str
    token: str


async def make_account(pool: Pool, secrets: Sequence[str] = ()) -> Account:
    """An account; with two secrets it is in the middle of a rotation."""
    account_id, partner_token = ids.account_id(), ids.partner_token()
    secret = " ".join(secrets) or ids.signing_secret()
    sealed = SEALER.seal(secret, f"account:{account_id}")
    partner_sealed = SEALER.seal(partner_token, f"account:{account_id}")
    await pool.execute(_INSERT_ACCOUNT, account_id, token_hash(partner_token), partner_sealed, sealed)
    return Account(account_id, secret)


async def make_instance(pool: Pool, account: Account, received_url: str | None, **columns: Any) -> Instance:
    """An instance whose received events go to `received_url`; other columns by name."""
    instance_id, token = ids.instance_id(), ids.instance_token()
    sealed = SEALER.seal(token, f"instance:{instance_id}")
    await pool.execute(_INSERT_INSTANCE, instance_id, account.id, token_hash(token), sealed, received_url)
    for name, value in columns.items():
        await pool.execute(f"update instance set {name} = $2 where id = $1", instance_id, value)
    return Instance(instance_id, token)


def event(instance: Instance, key: str | int, target: Target = Target.RECEIVED) -> NewEvent:
    """A small event whose body says its key."""
    body = msgspec.json.encode({"type": "ReceivedCallback", "instanceId": instance.id, "key": str(key)}).decode()
    return NewEvent(instance.id, target, "ReceivedCallback", body, str(key))


def keys(requests: Sequence[dict[str, Any]], instance: Instance | None = None) -> list[str]:
    """The keys of the events that a receiver got, in order of arrival."""
    bodies = [msgspec.json.decode(request["body"]) for request in requests]
    return [body["key"] for body in bodies if instance is None or body["instanceId"] == instance.id]


async def eventually(condition: Callable[[], Awaitable[object] | bool], timeout_s: float = 20.0) -> None:
    """Wait until `condition()` is true; asked every 20 ms."""
    async with asyncio.timeout(timeout_s):
        while True:
            answer = condition()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.02)


class Rig(msgspec.Struct, frozen=True):
    """A running dispatcher and a recorder that wakes it."""

    pool: Pool
    recorder: Recorder
    dispatcher: Dispatcher
    egress: Egress
    sender: Sender
    metrics: Metrics
    registry: CollectorRegistry

    async def settled(self, timeout_s: float = 20.0) -> None:
        """Wait until no callback is waiting and no lane is due."""
        query = "select not exists (select from callback) and not exists (select from lane where due_ms is not null)"
        await eventually(lambda: self.pool.fetchval(query), timeout_s)


@contextlib.asynccontextmanager
async def running(
    pool: Pool,
    *,
    policy: Policy | None = None,
    limits: Limits | None = None,
    lease_s: float = 15.0,
    rules: AddressRules = OPEN_RULES,
    resolver: AbstractResolver | None = None,
    total_s: float = 30.0,
    connect_s: float = 10.0,
) -> AsyncIterator[Rig]:
    """A dispatcher that runs for the length of the block."""
    egress = Egress(rules, resolver=resolver, total_s=total_s, connect_s=connect_s)
    sender = Sender(egress, SystemClock(), random.Random(7), policy or Policy(), "http://tomada.test")
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    dispatcher = Dispatcher(pool, sender, SEALER, metrics, limits=limits, lease_s=lease_s)
    recorder = Recorder(pool, wake=dispatcher.wake)
    task = asyncio.create_task(dispatcher.run())
    try:
        yield Rig(pool, recorder, dispatcher, egress, sender, metrics, registry)
    finally:
        dispatcher.stop()
        await task
        await recorder.close()
        await egress.close()


async def take(
    pool: Pool, *, lanes_max: int = 8, batch: int = 8, batch_bytes: int = 1 << 20, lease_ms: int = 60_000
) -> list[Lane]:
    """Take due lanes as a dispatcher does that holds none."""
    async with pool.acquire() as connection:
        return await taking.take(
            connection,
            lanes_max=lanes_max,
            batch=batch,
            batch_bytes=batch_bytes,
            lease_ms=lease_ms,
            destination_room={},
            account_room={},
            destination_room_default=8,
            account_room_default=8,
        )


async def pass_time(pool: Pool, ms: int) -> None:
    """Let `ms` pass for lanes and callbacks at once: everything that lies in the past or future moves by it."""
    await pool.execute(
        "update lane set due_ms = due_ms - $1, not_before_ms = not_before_ms - $1,"
        " failing_since_ms = failing_since_ms - $1",
        ms,
    )
    await pool.execute(
        "update callback set failing_since_ms = failing_since_ms - $1, aside_due_ms = aside_due_ms - $1", ms
    )
