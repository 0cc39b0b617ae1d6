"""The wiring: everything is made here, in one line from the disk to the HTTP port, and unmade in the opposite order.

    data directory, key ▸ PostgreSQL, migrations ▸ (sandbox) ▸ callbacks ▸ machines, sender ▸ lifecycle ▸ HTTP

HTTP comes last, so that whoever gets an answer gets it from a whole server, and goes first, so that nothing new is
accepted while the rest finishes what it has. Whatever a kill cuts short is in PostgreSQL or in a machine's journal.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from random import SystemRandom  # noqa: TID251 - the one place where real dice are made
from typing import Any

import structlog
from prometheus_client import CollectorRegistry

from tomada.accounts import manage
from tomada.accounts.store import AccountStore
from tomada.administration import ADDRESS_FILE, sealer_of
from tomada.callbacks.backoff import Policy
from tomada.callbacks.dispatcher import Dispatcher
from tomada.callbacks.metrics import Metrics
from tomada.callbacks.recorder import Recorder
from tomada.callbacks.sending import Sender as CallbackSender
from tomada.callbacks.store.quoting import find_received
from tomada.callbacks.upkeep import run_upkeep
from tomada.callbacks.urls import check_url
from tomada.engine.environment import ENGINE_ENVIRONMENT
from tomada.engine.port import Content, SessionSpec
from tomada.errors import NotFound
from tomada.instances.clock import advance_clock, read_clock
from tomada.instances.lifecycle import Terms
from tomada.instances.lifecycle_store import PostgresLifecycle
from tomada.instances.store import InstanceStore
from tomada.instances.sweeper import Sweeper
from tomada.kit.addresses import AddressRules
from tomada.kit.clock import SystemClock
from tomada.kit.egress import Egress
from tomada.machines import store as session_store
from tomada.machines.control import AlreadyConnected, SessionControl
from tomada.machines.host import Host
from tomada.machines.machine import Launch
from tomada.machines.metrics import HostMetrics
from tomada.machines.settings import HostSettings
from tomada.messages.accept import Accepted, accept
from tomada.messages.sender import Sender
from tomada.messages.store import MessageStore
from tomada.neighbours import LifecycleNeighbours
from tomada.pipeline import Pipeline
from tomada.postgres.group_commit import GroupCommit
from tomada.postgres.launcher import embedded_server
from tomada.postgres.migrate import migrate
from tomada.postgres.pool import Pool, connect
from tomada.sandbox.front import Front
from tomada.sandbox.launch import machine_command, machine_environment, start_sandbox
from tomada.settings import Settings
from tomada.wire import callback_calls, lifecycle_calls, operator, ports
from tomada.wire.access_log import AccessLog
from tomada.wire.api import build_app
from tomada.wire.callback_calls import CallbackParts
from tomada.wire.lifecycle_calls import LifecycleParts
from tomada.wire.operator import OperatorParts
from tomada.wire.server import serving

log = structlog.get_logger(__name__)

POOL_SIZE = 16
MACHINE = ("--machine-dir", "{dir}")


class _Sessions:
    """SessionControl as the wire wants it."""

    def __init__(self, control: SessionControl) -> None:
        self._control = control
        self.phone_code = control.phone_code
        self.restart = control.restart
        self.restore = control.restore

    async def qr(self, instance_id: str) -> str | None:
        """The QR text; None when connected."""
        code = await self._control.qr(instance_id)
        return None if isinstance(code, AlreadyConnected) else code.code

    async def logout(self, instance_id: str) -> None:
        """Unlink."""
        await self._control.logout(instance_id)

    async def status(self, instance_id: str) -> ports.SessionStatus:
        """What the wire shows of a session."""
        status = await self._control.status(instance_id)
        return ports.SessionStatus(**{name: getattr(status, name) for name in ports.SessionStatus.__struct_fields__})


class _Messages:
    """messages.accept with its surroundings."""

    def __init__(self, committer: GroupCommit, queue_max: int, wake: Callable[[str], None]) -> None:
        self._committer = committer
        self._queue_max = queue_max
        self._wake = wake

    async def accept(self, instance_id: str, chat: str, content: Content, delay_s: float | None) -> Accepted:
        """Queue a message durably."""
        accepted = await accept(self._committer, instance_id, chat, content, delay_s, self._queue_max)
        self._wake(instance_id)
        return accepted


class _Specs:
    """How an instance's session is to be opened."""

    def __init__(self, instances: InstanceStore) -> None:
        self._instances = instances

    async def spec(self, instance_id: str) -> SessionSpec:
        """Its session name; the store is the default one."""
        found = await self._instances.find(instance_id)
        if found is None:
            raise NotFound
        return SessionSpec(instance_id, "", found.instance.session_name)


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[str]:
    """A whole server; gives its base URL. Raises what the command line shows to a person."""
    async with AsyncExitStack() as stack:
        sealer = sealer_of(settings)
        pool = await _database(settings, stack)
        await _bootstrap(settings, pool, sealer)
        clock, rng, registry = SystemClock(), SystemRandom(), CollectorRegistry()
        rules = AddressRules(settings.allow_http, settings.allow_private)
        launch, control_url = await _machine_launch(settings, stack)

        # callbacks
        committer = GroupCommit(pool)
        stack.push_async_callback(committer.close)
        egress = Egress(rules)
        stack.push_async_callback(egress.close)
        callback_sender = CallbackSender(egress, clock, rng, Policy(), settings.public_url or "")
        metrics = Metrics(registry)
        dispatcher = Dispatcher(pool, callback_sender, sealer, metrics)
        await _run_dispatcher(dispatcher, stack)
        _start(run_upkeep(pool, clock, metrics, dispatcher.wake), "callbacks upkeep", stack)
        recorder = Recorder(pool, dispatcher.wake)
        stack.push_async_callback(recorder.close)

        # machines and messages
        instances, messages = InstanceStore(pool), MessageStore(pool)

        async def connected_phone(instance_id: str) -> str:
            row = await session_store.read_one(pool, instance_id)
            return (row.state.phone if row else None) or ""

        async def quoted(instance_id: str, chat: str, wa_id: str) -> tuple[str, str] | None:
            return await find_received(pool, instance_id, chat, wa_id)

        pipeline = Pipeline(
            messages,
            recorder,
            connected_phone,
            quoted,
            clock,
            wake=lambda instance_id: sender.wake(instance_id),  # noqa: PLW0108 - made below: they need each other
            settled=lambda zaap_id, known: sender.settled(zaap_id, known=known),
        )
        host = Host(
            settings.data_path,
            launch,
            pool,
            _Specs(instances),
            pipeline.handle,
            clock,
            rng,
            HostSettings(instances_per_machine=settings.instances_per_machine),
            opening=lambda instance_id: sender.session_opening(instance_id),  # noqa: PLW0108 - made below
        )
        registry.register(HostMetrics(host.figures))
        control = SessionControl(host)
        sender = Sender(messages, control, pipeline.resolve, pipeline.gave_up, settings.send_delay_range_s, rng)
        _start(sender.run(), "sender", stack)
        await host.start()
        stack.push_async_callback(host.stop)

        # lifecycle
        terms = Terms(**{name: getattr(settings, name) for name in Terms.__struct_fields__})
        lifecycle = PostgresLifecycle(pool, LifecycleNeighbours())
        sweeper = Sweeper(lifecycle, control, terms, clock)
        sweeper.start()
        stack.push_async_callback(sweeper.stop)

        # HTTP
        async def ready() -> bool:
            return await pool.fetchval("select true") is True

        async def advance(seconds: int) -> object:
            reading = await advance_clock(pool, seconds)
            sweeper.nudge()
            return reading

        accounts = AccountStore(pool)
        parts = {
            "lifecycle": LifecycleParts(lifecycle, terms, sweeper.nudge),
            "callbacks": CallbackParts(pool, callback_sender, sealer, dispatcher.wake),
            "operator": OperatorParts(
                pool, accounts, sealer, lifecycle, terms, sweeper.nudge, registry, settings.operator_token
            ),
        }
        more: list[Any] = [lifecycle_calls.router, callback_calls.router, operator.router]
        if control_url:
            front = Front(control_url, lambda: read_clock(pool), advance)
            stack.push_async_callback(front.close)
            more += front.handlers()
        wire = ports.Ports(
            accounts=accounts,
            instances=instances,
            sealer=sealer,
            committer=committer,
            pool=pool,
            check_url=lambda url: check_url(url, rules),
            sessions=_Sessions(control),
            messages=_Messages(committer, settings.queue_max, sender.wake),
            queue=messages,
            ready=ready,
            settings=ports.WireSettings(
                trial_ms=round(settings.trial_hours * 3_600_000), public_url=settings.public_url
            ),
        )
        app = AccessLog(build_app(wire, more, parts), clock)
        url = await stack.enter_async_context(serving(app, settings.http_host, settings.http_port))
        yield settings.public_url or url


async def _database(settings: Settings, stack: AsyncExitStack) -> Pool:
    if settings.database_url:
        dsn = settings.database_url
    else:
        dsn = (await stack.enter_async_context(embedded_server(settings.data_path / "postgres"))).dsn
        address = settings.data_path / ADDRESS_FILE
        address.write_text(dsn)
        stack.callback(address.unlink, missing_ok=True)
    await migrate(dsn)
    pool = await connect(dsn, size_max=POOL_SIZE)
    stack.callback(pool.terminate)
    return pool


async def _bootstrap(settings: Settings, pool: Pool, sealer: Any) -> None:
    token = settings.bootstrap_partner_token
    if token is not None and await manage.bootstrap(AccountStore(pool), sealer, token):
        log.info("account.bootstrapped")


async def _machine_launch(settings: Settings, stack: AsyncExitStack) -> tuple[Launch, str]:
    """How machines are started, and the sandbox's control URL (empty without it)."""
    environment = dict(os.environ) | ENGINE_ENVIRONMENT
    if not settings.sandbox:
        return Launch((sys.executable, "-m", "tomada.machines.process", *MACHINE), environment), ""
    sandbox = await start_sandbox(settings.data_path / "sandbox")
    stack.push_async_callback(sandbox.stop)
    command = machine_command(sandbox.ready, MACHINE)
    return Launch(tuple(command), environment | machine_environment(sandbox.ready)), sandbox.ready.control


async def _run_dispatcher(dispatcher: Dispatcher, stack: AsyncExitStack) -> None:
    task = asyncio.create_task(dispatcher.run(), name="callbacks")

    async def stop() -> None:
        dispatcher.stop()
        await asyncio.wait([task])

    stack.push_async_callback(stop)


def _start(work: Any, name: str, stack: AsyncExitStack) -> None:
    task = asyncio.create_task(work, name=name)

    async def stop() -> None:
        task.cancel()
        await asyncio.wait([task])

    stack.push_async_callback(stop)
