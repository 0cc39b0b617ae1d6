"""A host under test: the real one on a real PostgreSQL, with scripted machines and a handler that remembers.

The session store is PostgreSQL's schema `machine`, as in production. A scripted machine has no database: what the store
holds of an instance is written into its script's files just before each opening. So a device appears by `keys`, and is
gone when the host has erased it.
"""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random  # noqa: TID251 - seeded

from tomada.engine import port
from tomada.errors import NotFound
from tomada.kit.clock import SystemClock
from tomada.machines import keys
from tomada.machines.control import SessionControl
from tomada.machines.host import Host
from tomada.machines.machine import Launch
from tomada.machines.settings import HostSettings
from tomada.postgres.pool import Pool

ACCOUNT = "A" * 32
_DEVICE = """
insert into machine.whatsmeow_device (jid, registration_id, noise_key, identity_key, signed_pre_key, signed_pre_key_id,
    signed_pre_key_sig, adv_key, adv_details, adv_account_sig, adv_account_sig_key, adv_device_sig)
values ($1, 1, $2, $2, $2, 1, $3, $4, $4, $3, $2, $3)
"""
_SESSION = "insert into machine.tomada_session (key, jid) values ($1, $2)"
SCRIPTED = Path(__file__).with_name("scripted.py")
QUICK = HostSettings(
    instances_per_machine=2,
    backoff_base_s=0.05,
    machine_backoff_base_s=0.1,
    reconnect_grace_s=0.3,
    connect_timeout_s=1.0,
    probe_interval_s=60.0,
    probe_retry_s=0.1,
    probe_timeout_s=1.0,
    send_timeout_s=1.0,
    close_timeout_s=2.0,
    qr_timeout_s=3.0,
    tend_s=0.1,
)


class Events:
    """The handler: what it was given, in order, and what it does about it."""

    def __init__(self) -> None:
        self.all: list[tuple[str, port.EngineEvent, int]] = []
        self.failed: list[tuple[port.EngineEvent, int]] = []
        self.fail: Callable[[port.EngineEvent], Exception | None] = lambda _event: None
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, instance_id: str, event: port.EngineEvent, number: int) -> None:
        """As the pipeline is called."""
        await self.gate.wait()
        error = self.fail(event)
        if error is not None:
            self.failed.append((event, number))
            raise error
        self.all.append((instance_id, event, number))

    def texts(self, instance_id: str) -> list[str]:
        """The messages received by an instance, each once, in the order of the first telling."""
        told = (event for owner, event, _ in self.all if owner == instance_id)
        return list(dict.fromkeys(event.wa_id for event in told if isinstance(event, port.MessageReceived)))

    def kinds(self, instance_id: str) -> list[str]:
        """The kinds of an instance's events."""
        return [type(event).__name__ for owner, event, _ in self.all if owner == instance_id]


class Hosting:
    """A node: data directory, database, host."""

    def __init__(self, pool: Pool, folder: Path, settings: HostSettings = QUICK, launch: Launch | None = None) -> None:
        self.pool = pool
        self.data = folder / "data"
        self.script = folder / "script"
        for name in ("devices", "waiting"):
            (self.script / name).mkdir(parents=True, exist_ok=True)
        self.events = Events()
        self.opened: list[str] = []
        self.settings = settings
        command = (sys.executable, "-S", str(SCRIPTED), "--machine-dir", "{dir}", "--script-dir", str(self.script))
        self.launch = launch or Launch(command, {"PATH": os.defpath})
        self.host = self.new_host()

    def new_host(self) -> Host:
        """Another host over the same data, as after a restart of the program."""
        self.host = Host(
            self.data,
            self.launch,
            self.pool,
            self,
            self.events,
            SystemClock(),
            Random(1),
            self.settings,
            self.note_opening,
        )
        self.control = SessionControl(self.host)
        return self.host

    async def session_name(self, instance_id: str) -> str:
        """As the product's SpecSource; it is asked before each opening."""
        if not await self.pool.fetchval("select 1 from instance where id = $1", instance_id):
            raise NotFound
        for path in (self.script / "devices").glob(f"{instance_id}.*"):
            path.unlink()
        for epoch in await keys.epochs(self.pool, instance_id):
            (self.script / "devices" / keys.store_key(instance_id, epoch)).touch()
        return "Acme"

    async def note_opening(self, instance_id: str) -> None:
        """The hook of the outgoing queue."""
        self.opened.append(instance_id)

    async def instance(self, instance_id: str, condition: str | None = None, **columns: object) -> str:
        """An instance in the database; with a condition a paired one, keys and all."""
        await self.pool.execute(
            "insert into account (id, name, partner_token_hash, partner_token_sealed, signing_secret_sealed)"
            " values ($1, 'a', $2, '', '') on conflict do nothing",
            *(ACCOUNT, b"h"),
        )
        await self.pool.execute(
            "insert into instance (id, account_id, token_hash, token_sealed, name, session_name, created_ms, due_ms)"
            " values ($1, $2, $3, '', 'n', 'Acme', 0, 0)",
            *(instance_id, ACCOUNT, instance_id.encode()),
        )
        if condition is not None:
            await self.keys(instance_id)
            await self.pool.execute(
                "insert into session (instance_id, wanted, condition, retry_after_ms) values ($1, true, $2, $3)",
                *(instance_id, condition, columns.get("retry_after_ms")),
            )
        return instance_id

    async def keys(self, instance_id: str, epoch: int = 1) -> None:
        """A device in the session store, as a machine writes it when a phone has scanned a code."""
        device = f"{instance_id}{epoch}:1@s.whatsapp.net"
        await self.pool.execute(_DEVICE, device, bytes(32), bytes(64), b"")
        await self.pool.execute(_SESSION, keys.store_key(instance_id, epoch), device)

    async def epochs(self, instance_id: str) -> list[int]:
        """The machines of an instance that have keys."""
        return await keys.epochs(self.pool, instance_id)

    async def pair(self, instance_id: str, epoch: int = 1) -> None:
        """A phone scans a code of the round that is on."""
        await self.keys(instance_id, epoch)
        await self.control.phone_code(instance_id, "5588")
        await self.connected(instance_id)

    def behave(self, name: str, mode: str) -> None:
        """Tell the scripted machines how to be; `well` ends it."""
        (self.script / name).write_text(mode)

    def asked(self, kind: str, instance_id: str | None = None) -> list[tuple[float, int]]:
        """When (monotonic seconds) and of which pid something was asked."""
        with contextlib.suppress(FileNotFoundError):
            lines = [line.split() for line in (self.script / "log").read_text().splitlines()]
            return [
                (float(at), int(pid)) for at, pid, what, who in lines if what == kind and instance_id in (None, who)
            ]
        return []

    async def order(self, instance_id: str, words: str) -> None:
        """Send a text that is an order to the scripted machine."""
        await self.control.transmit(instance_id, "Z", "55", port.Text(words))

    async def tell(self, instance_id: str, *events: dict[str, object]) -> None:
        """Have a scripted machine tell events that wait for our commit."""
        await self.order(instance_id, f"!tell {json.dumps(events)}")

    async def connected(self, *instance_ids: str, within_s: float = 10.0) -> None:
        """Wait until all of these are connected, in the database too."""
        await until(lambda: all(self.control.connected(name) for name in instance_ids), within_s)
        for instance_id in instance_ids:
            await self.row(instance_id, "connected", within_s=within_s)

    async def row(self, instance_id: str, condition: str, within_s: float = 10.0) -> dict[str, object]:
        """Wait for a condition in the table; the row."""
        deadline_s = time.monotonic() + within_s
        while True:
            row = await self.pool.fetchrow("select * from session where instance_id = $1", instance_id)
            if row is not None and row["condition"] == condition:
                return dict(row)
            assert time.monotonic() < deadline_s, f"{instance_id}: {row and row['condition']}, not {condition}"
            await asyncio.sleep(0.01)

    def pid_of(self, instance_id: str) -> int:
        """The process that hosts an instance."""
        machine = self.host.sessions[instance_id].machine
        assert machine is not None
        assert machine.pid is not None
        return machine.pid

    def waiting(self) -> int:
        """Events that WhatsApp was not acknowledged."""
        return sum(len(path.read_text().splitlines()) for path in (self.script / "waiting").iterdir())


async def until(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    """Wait for something to become true."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not become true in time"
        await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process lives (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@contextlib.asynccontextmanager
async def running(hosting: Hosting) -> AsyncIterator[Hosting]:
    """Start its host, and stop it whatever happens."""
    await hosting.host.start()
    try:
        yield hosting
    finally:
        await hosting.host.stop()
