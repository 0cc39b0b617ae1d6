"""The wiring: everything is made here, in one line from the disk to the HTTP port, and unmade in the opposite order.

    data directory, key ▸ PostgreSQL, migrations ▸ (sandbox) ▸ callbacks ▸ machines, sender ▸ lifecycle ▸ HTTP

HTTP comes last, so that whoever gets an answer gets it from a whole server, and goes first, so that nothing new is
accepted while the rest finishes what it has. Whatever a kill cuts short is in PostgreSQL, or comes again.
"""

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack
from random import Random, SystemRandom  # noqa: TID251 - the one place where real dice are made
from typing import Any, NamedTuple

import structlog
from prometheus_client import CollectorRegistry

from tomada.accounts import idempotency, manage
from tomada.accounts.limits import Buckets
from tomada.accounts.store import AccountStore
from tomada.adapters import HostSpecs, LifecycleNeighbours, WireMessages, WireSessions
from tomada.administration import ADDRESS_FILE
from tomada.callbacks.backoff import Policy
from tomada.callbacks.dispatcher import Dispatcher
from tomada.callbacks.metrics import Metrics
from tomada.callbacks.recorder import Recorder
from tomada.callbacks.sending import Sender as CallbackSender
from tomada.callbacks.store.quoting import find_received
from tomada.callbacks.upkeep import run_upkeep
from tomada.callbacks.urls import check_url
from tomada.instances.clock import advance_clock, read_clock
from tomada.instances.lifecycle import Terms
from tomada.instances.lifecycle_store import PostgresLifecycle
from tomada.instances.store import InstanceStore
from tomada.instances.sweeper import Sweeper
from tomada.kit import machine_program
from tomada.kit.addresses import AddressRules
from tomada.kit.clock import Clock, SystemClock
from tomada.kit.egress import Egress
from tomada.kit.environment import inherited
from tomada.kit.sealing import Sealer
from tomada.machines import store as session_store
from tomada.machines.control import SessionControl
from tomada.machines.host import Host
from tomada.machines.machine import Launch
from tomada.machines.metrics import HostMetrics
from tomada.machines.program import STORE_VARIABLE, prepared, serve_arguments
from tomada.machines.settings import HostSettings
from tomada.messages.sender import Sender
from tomada.messages.store import MessageStore
from tomada.pipeline import Pipeline
from tomada.postgres.group_commit import GroupCommit
from tomada.postgres.health import Health
from tomada.postgres.launcher import embedded_server
from tomada.postgres.machine_role import machine_dsn
from tomada.postgres.only import only_server
from tomada.postgres.pool import Pool, connect
from tomada.preconditions import migrated, one_network, sealer_of
from tomada.sandbox.front import Front
from tomada.sandbox.launch import machine_command, start_sandbox
from tomada.settings import Settings
from tomada.upgrade import take_over
from tomada.wire import callback_calls, lifecycle_calls, operator, ports
from tomada.wire.access_log import AccessLog
from tomada.wire.api import build_app
from tomada.wire.callback_calls import CallbackParts
from tomada.wire.failed_logins import FailedLogins
from tomada.wire.health import with_head
from tomada.wire.lifecycle_calls import LifecycleParts
from tomada.wire.operator_parts import OperatorParts
from tomada.wire.server import serving

log = structlog.get_logger(__name__)

POOL_SIZE = 16


class Ground(NamedTuple):
    """What every part stands on. `stack` unmakes what the parts make."""

    settings: Settings
    stack: AsyncExitStack
    dsn: str
    pool: Pool
    committer: GroupCommit
    sealer: Sealer
    clock: Clock
    rng: Random
    registry: CollectorRegistry
    health: Health


class Callbacks(NamedTuple):
    """Events in, callbacks out."""

    sender: CallbackSender
    dispatcher: Dispatcher
    recorder: Recorder


class Machines(NamedTuple):
    """Sessions and what is sent through them."""

    control: SessionControl
    messages: MessageStore
    sender: Sender


class Lifecycle(NamedTuple):
    """Trials, subscriptions, deletions."""

    store: PostgresLifecycle
    terms: Terms
    sweeper: Sweeper


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[str]:
    """A whole server; gives its base URL. Raises what the command line shows to a person."""
    async with AsyncExitStack() as stack:
        ground = await _ground(settings, stack)
        launch, control_url = await _machine_launch(ground)
        callbacks = _callbacks(ground)
        machines = await _machines(ground, callbacks, launch)
        lifecycle = await _lifecycle(ground, machines)
        url = await _http(ground, callbacks, machines, lifecycle, control_url)
        yield settings.public_url or url


async def _ground(settings: Settings, stack: AsyncExitStack) -> Ground:
    one_network(settings)
    dsn, pool = await _database(settings, stack)
    sealer = await sealer_of(settings, pool)
    token = settings.bootstrap_partner_token
    if token is not None and await manage.bootstrap(AccountStore(pool), sealer, token):
        log.info("account.bootstrapped")
    committer = GroupCommit(pool)
    stack.push_async_callback(committer.close)
    clock, registry = SystemClock(), CollectorRegistry()
    health = Health(dsn, clock, registry)
    _start(health.run(), "database health", stack)
    return Ground(settings, stack, dsn, pool, committer, sealer, clock, SystemRandom(), registry, health)


async def _database(settings: Settings, stack: AsyncExitStack) -> tuple[str, Pool]:
    if settings.database_url:
        dsn = settings.database_url
    else:
        dsn = (await stack.enter_async_context(embedded_server(settings.data_path / "postgres"))).dsn
        address = settings.data_path / ADDRESS_FILE
        address.write_text(dsn)
        stack.callback(address.unlink, missing_ok=True)
    pool = await connect(await migrated(dsn), size_max=POOL_SIZE)
    stack.callback(pool.terminate)
    await stack.enter_async_context(only_server(dsn))
    return dsn, pool


async def _machine_launch(ground: Ground) -> tuple[Launch, str]:
    """How machines are started, and the sandbox's control URL (empty without it). Their session store is made ready.

    They take what they need as arguments; our own settings, with keys and the database's password, are not theirs.
    """
    settings = ground.settings
    password = ground.sealer.derived("machine role") if settings.database_url else None
    environment = inherited(os.environ)
    environment[STORE_VARIABLE] = await machine_dsn(ground.dsn, password)
    program, control_url = machine_program.locate(os.environ), ""
    command: tuple[str, ...] = (str(program),)
    if settings.sandbox:
        sandbox = await start_sandbox(settings.data_path / "sandbox")
        ground.stack.push_async_callback(sandbox.stop)
        _start(_or_end(sandbox.keep()), "sandbox", ground.stack)
        program, control_url = machine_program.locate_sandbox(os.environ), sandbox.ready.control
        command = machine_command(program, sandbox.ready)
    await prepared(program, environment)
    return Launch((*command, *serve_arguments()), environment), control_url


def _callbacks(ground: Ground) -> Callbacks:
    settings, stack = ground.settings, ground.stack
    egress = Egress(AddressRules(settings.allow_http, settings.allow_private))
    stack.push_async_callback(egress.close)
    sender = CallbackSender(egress, ground.clock, ground.rng, Policy(), settings.public_url or "")
    metrics = Metrics(ground.registry)
    dispatcher = Dispatcher(ground.pool, sender, ground.sealer, metrics)
    _run_until_stopped(dispatcher, stack)
    retention_ms = round(settings.callbacks_retention_days * 86_400_000)
    upkeep = run_upkeep(ground.pool, metrics, dispatcher.wake, retention_ms)
    _start(upkeep, "callbacks upkeep", stack)
    recorder = Recorder(ground.pool, dispatcher.wake)
    stack.push_async_callback(recorder.close)
    return Callbacks(sender, dispatcher, recorder)


async def _machines(ground: Ground, callbacks: Callbacks, launch: Launch) -> Machines:
    settings, pool = ground.settings, ground.pool
    messages = MessageStore(pool)

    async def account(instance_id: str) -> tuple[str, str]:
        row = await session_store.read_one(pool, instance_id)
        return (row.state.phone or "", row.state.push_name or "") if row else ("", "")

    async def quoted(instance_id: str, chat: str, wa_id: str) -> tuple[str, str] | None:
        return await find_received(pool, instance_id, chat, wa_id)

    pipeline = Pipeline(
        messages,
        callbacks.recorder,
        account,
        quoted,
        ground.clock,
        wake=lambda instance_id: sender.wake(instance_id),  # noqa: PLW0108 - made below: they need each other
        settled=lambda zaap_id, known: sender.settled(zaap_id, known=known),
    )
    host = Host(
        settings.data_path,
        launch,
        pool,
        HostSpecs(InstanceStore(pool)),
        pipeline.handle,
        ground.clock,
        ground.rng,
        HostSettings(instances_per_machine=settings.instances_per_machine),
        opening=lambda instance_id: sender.session_opening(instance_id),  # noqa: PLW0108 - made below
    )
    ground.registry.register(HostMetrics(host.figures))
    ground.health.refusal = lambda: host.lanes.refusal
    control = SessionControl(host)
    sender = Sender(messages, control, pipeline.resolve, pipeline.gave_up, settings.send_delay_range_s, ground.rng)
    _start(sender.run(), "sender", ground.stack)
    ground.stack.push_async_callback(host.stop)
    await take_over(settings.data_path, pool, messages, pipeline.handle)
    await host.start()
    return Machines(control, messages, sender)


async def _lifecycle(ground: Ground, machines: Machines) -> Lifecycle:
    terms = Terms(**{name: getattr(ground.settings, name) for name in Terms.__struct_fields__})
    store = PostgresLifecycle(ground.pool, LifecycleNeighbours())
    await store.release()
    sweeper = Sweeper(store, machines.control, terms, ground.clock, upkeep=lambda: idempotency.purge(ground.pool))
    sweeper.start()
    ground.stack.push_async_callback(sweeper.stop)
    return Lifecycle(store, terms, sweeper)


async def _http(
    ground: Ground, callbacks: Callbacks, machines: Machines, lifecycle: Lifecycle, control_url: str
) -> str:
    settings, pool = ground.settings, ground.pool
    wire = _wire_ports(ground, callbacks, machines, lifecycle.terms)
    nudge = lifecycle.sweeper.nudge
    parts = {
        "lifecycle": LifecycleParts(lifecycle.store, lifecycle.terms, nudge),
        "callbacks": CallbackParts(pool, callbacks.sender, ground.sealer, callbacks.dispatcher.wake, Counter()),
        "operator": OperatorParts(
            pool,
            wire.accounts,
            ground.sealer,
            lifecycle.store,
            lifecycle.terms,
            nudge,
            ground.registry,
            settings.operator_token,
        ),
    }
    routes: list[Any] = [lifecycle_calls.router, callback_calls.router, operator.router]
    if control_url:
        routes += _sandbox_routes(ground, control_url, lifecycle.sweeper)
    await ground.health.looked()
    app = AccessLog(with_head(build_app(wire, routes, parts)), ground.clock)
    return await ground.stack.enter_async_context(serving(app, settings.http_host, settings.http_port))


def _wire_ports(ground: Ground, callbacks: Callbacks, machines: Machines, terms: Terms) -> ports.Ports:
    settings, pool = ground.settings, ground.pool
    rules = callbacks.sender.egress.rules

    return ports.Ports(
        accounts=AccountStore(pool),
        instances=InstanceStore(pool),
        sealer=ground.sealer,
        committer=ground.committer,
        pool=pool,
        check_url=lambda url: check_url(url, rules),
        sessions=WireSessions(machines.control),
        messages=WireMessages(ground.committer, settings.queue_max, machines.sender.wake),
        queue=machines.messages,
        logins=FailedLogins(ground.clock, settings.failed_logins_per_minute),
        rates=Buckets(ground.clock),
        database_trouble=ground.health.trouble,
        settings=ports.WireSettings(trial_ms=terms.trial_ms, public_url=settings.public_url),
    )


def _sandbox_routes(ground: Ground, control_url: str, sweeper: Sweeper) -> list[Any]:
    async def advance(seconds: int) -> object:
        reading = await advance_clock(ground.pool, seconds)
        sweeper.nudge()
        return reading

    front = Front(control_url, lambda: read_clock(ground.pool), advance)
    ground.stack.push_async_callback(front.close)
    return list(front.handlers())


def _run_until_stopped(dispatcher: Dispatcher, stack: AsyncExitStack) -> None:
    """The dispatcher ends by itself when told to, with everything under way settled or given back."""
    task = asyncio.create_task(dispatcher.run(), name="callbacks")

    async def stop() -> None:
        dispatcher.stop()
        await asyncio.wait([task])

    stack.push_async_callback(stop)


async def _or_end(keeping: Coroutine[Any, Any, None]) -> None:
    """A child that cannot be had back ends the server, in order: half a server would say that all is well."""
    try:
        await keeping
    except RuntimeError as error:
        log.critical("server.ends", why=str(error))
        os.kill(os.getpid(), signal.SIGTERM)


def _start(work: Coroutine[Any, Any, None], name: str, stack: AsyncExitStack) -> None:
    """Work that is cancelled at the end, again and again: a library below may take the first word for a time-out."""
    task = asyncio.create_task(work, name=name)

    async def stop() -> None:
        while not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=1.0)

    stack.push_async_callback(stop)
