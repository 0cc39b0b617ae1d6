"""The wire over a real PostgreSQL and a real socket; only sessions and messages are stand-ins."""

import functools
from collections.abc import AsyncIterator
from typing import NamedTuple

import asyncpg
import pytest

from tests.integration.wire.client import Client
from tests.integration.wire.stub_sessions import StubMessages, StubSessions
from tomada.accounts import manage
from tomada.accounts.limits import Buckets
from tomada.accounts.model import NewAccount
from tomada.accounts.store import AccountStore
from tomada.instances.store import InstanceStore
from tomada.kit.addresses import AddressRules, check_url
from tomada.kit.clock import SystemClock
from tomada.kit.sealing import Sealer
from tomada.postgres.group_commit import GroupCommit
from tomada.postgres.launcher import EmbeddedServer
from tomada.postgres.pool import Pool, connect
from tomada.wire.access_log import AccessLog
from tomada.wire.api import build_app
from tomada.wire.failed_logins import FailedLogins
from tomada.wire.health import with_head
from tomada.wire.ports import Ports, WireSettings
from tomada.wire.server import serving

KEY = bytes(range(32))
BODY_BYTES_MAX = 64 * 1024


class Wire(NamedTuple):
    """A running wire and what stands behind it."""

    url: str
    ports: Ports
    sessions: StubSessions
    messages: StubMessages
    pool: Pool

    async def account(self, name: str = "Integradora", *, limit: int = 100, client_token: bool = False) -> NewAccount:
        """A new account."""
        return await manage.create(
            self.ports.accounts, self.ports.sealer, name, instances_max=limit, with_client_token=client_token
        )

    async def instance(self, account: NewAccount, **fields: object) -> str:
        """A new instance of this account: its path."""
        answer = await self.partner(account).call(
            "POST", "/instances/integrator/on-demand", json={"name": "Loja", **fields}
        )
        created = answer.json()
        return f"/instances/{created['id']}/token/{created['token']}"

    def client(self, headers: dict[str, str] | None = None) -> Client:
        """A client with these headers on every call."""
        return Client(self.url, headers)

    def partner(self, account: NewAccount) -> Client:
        """A client that calls as this partner."""
        return self.client({"Authorization": f"Bearer {account.partner_token}"})


@pytest.fixture(scope="session")
async def running(postgres: EmbeddedServer, migrated_template: str) -> AsyncIterator[Wire]:
    """The wire, served on a free port; one for all tests, each of which makes its own account."""
    connection = await asyncpg.connect(postgres.dsn)
    await connection.execute(f"create database wire template {migrated_template}")
    await connection.close()
    pool = await connect(postgres.dsn_of("wire"))
    sessions, messages = StubSessions(), StubMessages()
    committer = GroupCommit(pool)

    ports = Ports(
        accounts=AccountStore(pool),
        instances=InstanceStore(pool),
        sealer=Sealer(KEY),
        committer=committer,
        pool=pool,
        check_url=functools.partial(check_url, rules=AddressRules()),
        sessions=sessions,
        messages=messages,
        queue=messages,
        logins=FailedLogins(SystemClock(), 0),
        rates=Buckets(SystemClock()),
        database_trouble=lambda: None,
        settings=WireSettings(body_bytes_max=BODY_BYTES_MAX),
    )
    async with serving(AccessLog(with_head(build_app(ports)), SystemClock()), "127.0.0.1", 0) as url:
        yield Wire(url, ports, sessions, messages, pool)
    await committer.close()
    pool.terminate()


@pytest.fixture
def wire(running: Wire) -> Wire:
    """The running wire, with fresh stand-ins."""
    running.sessions.reset()
    running.messages.reset()
    return running
