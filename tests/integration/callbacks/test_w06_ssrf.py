"""W6: no connection to a blocked address, over the whole matrix, whatever a name server says and whenever.

The judge is an audit hook of the interpreter that sees every `connect` of this process, below any library. The server
that must not be reached listens on loopback and counts connections as well.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.data.blocked import BLOCKED_ADDRESSES, BLOCKED_URLS
from tests.integration.callbacks.harness import SEALER, event, eventually, make_account, make_instance, running
from tests.integration.callbacks.names import Resolver, name_server
from tests.receiver import Receiver
from tomada.callbacks.replay import send_test_event
from tomada.callbacks.urls import check_url
from tomada.errors import BadAddress
from tomada.kit.addresses import AddressRules, refusal
from tomada.kit.egress import Blocked, Egress, EgressFailed
from tomada.postgres.pool import Pool

HTTP = AddressRules(allow_http=True)
_connects: list[object] | None = None


def _spy(name: str, arguments: tuple[object, ...]) -> None:
    if name == "socket.connect" and _connects is not None:
        _connects.append(arguments[1])


sys.addaudithook(_spy)


@pytest.fixture
def connects() -> Iterator[list[object]]:
    """Every address that this process connects a socket to, name servers and databases included."""
    global _connects
    _connects = []
    yield _connects
    _connects = None


@contextlib.asynccontextmanager
async def victim(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[tuple[int, list[str]]]:
    """A server that answers 200 and notes that it was reached; its port and the notes."""
    reached: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append(host)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, host, port)
    try:
        yield server.sockets[0].getsockname()[1], reached
    finally:
        server.close()


def _numeric(addresses: tuple[str, ...]) -> list[str]:
    import ipaddress

    found = []
    for address in addresses:
        with contextlib.suppress(ValueError):
            found.append(str(ipaddress.ip_address(address.partition("%")[0])))
    return sorted(set(found))


async def test_w06_names_that_lead_to_blocked_addresses(connects: list[object]) -> None:
    """A name server answers with each blocked address, alone and beside others: nothing is connected."""
    targets = _numeric(BLOCKED_ADDRESSES)
    assert len(targets) >= 50
    async with name_server() as names, victim() as (port, reached):
        egress = Egress(HTTP, resolver=Resolver(names.port))
        for number, target in enumerate(targets):
            names.answers[f"n{number}.example.com"] = [[target]]
            names.answers[f"both{number}.example.com"] = [[target, "127.0.0.1", "::1"]]
            for name in (f"n{number}.example.com", f"both{number}.example.com"):
                with pytest.raises(Blocked) as caught:
                    await egress.post(f"http://{name}:{port}/", b"{}", {})
                assert str(caught.value) == "blocked address"
        await egress.close()
        assert len(names.asked) == 2 * len(targets)
        assert {address for address in connects if address != ("127.0.0.1", names.port)} == set()
        assert reached == []


async def test_w06_urls_that_mean_blocked_addresses(connects: list[object]) -> None:
    """Every spelling is refused at save and update, and connects to nothing even if it had been saved."""
    async with name_server() as names:
        egress = Egress(HTTP, resolver=Resolver(names.port))
        for url in BLOCKED_URLS:
            with pytest.raises(BadAddress):
                check_url(url, HTTP)
            with pytest.raises(EgressFailed):
                await egress.post(url, b"{}", {})
        await egress.close()
        assert names.asked == []
        assert connects == []


async def test_w06_rebinding(connects: list[object]) -> None:
    """A name that is harmless when first asked and leads inside later reaches the harmless server only.

    127.0.0.2 stands for a public address here; the gate is otherwise the real one. Between the requests the name's
    answer flips, also to a list that holds both.
    """

    def gate(address: str, rules: AddressRules) -> str | None:
        return None if address == "127.0.0.2" else refusal(address, rules)

    async with (
        name_server() as names,
        victim("127.0.0.1") as (port, inside),
        victim("127.0.0.2", port) as (_, outside),
    ):
        names.answers["flip.example.com"] = [
            ["127.0.0.2"],
            ["127.0.0.1"],
            ["127.0.0.2", "127.0.0.1"],
            ["127.0.0.1", "127.0.0.2"],
            ["::1", "127.0.0.1"],
            ["127.0.0.1"],
        ]
        outcomes = []
        for _ in range(8):  # a new client each time: no answer is remembered
            egress = Egress(HTTP, resolver=Resolver(names.port), gate=gate)
            try:
                outcomes.append((await egress.post(f"http://flip.example.com:{port}/", b"{}", {})).status)
            except Blocked:
                outcomes.append(0)
            await egress.close()
    assert outcomes == [200, 0, 200, 200, 0, 0, 0, 0]
    assert inside == []
    assert len(outside) == 3
    assert ("127.0.0.1", port) not in connects


async def test_w06_a_kept_answer_is_checked_again(connects: list[object]) -> None:
    """Within the time that answers are kept, each new connection still passes the gate."""
    allowed = {"127.0.0.2"}

    def gate(address: str, rules: AddressRules) -> str | None:
        return None if address in allowed else "a private address"

    async with name_server() as names, victim("127.0.0.2") as (port, reached):
        names.answers["kept.example.com"] = [["127.0.0.2"]]
        egress = Egress(HTTP, resolver=Resolver(names.port), gate=gate)
        await egress.post(f"http://kept.example.com:{port}/", b"{}", {})
        allowed.clear()
        with pytest.raises(Blocked):
            await egress.post(f"http://kept.example.com:{port}/", b"{}", {})
        await egress.close()
    assert len(reached) == 1
    assert len(names.asked) == 1


async def test_w06_a_redirect_inside_reaches_nothing(receiver: Receiver) -> None:
    """The second hop is never called (see also W5): the only request is the first."""
    egress = Egress(AddressRules(allow_http=True, allow_private=True))
    answer = await egress.post(receiver.url("redirect-302"), b"{}", {})
    await egress.close()
    assert answer.status == 302
    assert len(await receiver.wait_for(1)) == 1


async def test_w06_the_test_button_and_the_dispatcher(pool: Pool) -> None:
    """The button refuses with BadAddress; a URL saved before the rules were closed is never connected to.

    The history says `blocked address` and nothing more.
    """
    async with victim() as (port, reached):
        account = await make_account(pool)
        url = f"http://127.0.0.1:{port}/"
        instance = await make_instance(pool, account, url)
        async with running(pool, rules=HTTP) as rig:
            with pytest.raises(BadAddress):
                await send_test_event(pool, rig.sender, SEALER, account.id, instance.id, url)
            await rig.recorder.record([event(instance, "a")])
            await eventually(lambda: pool.fetchval("select count(*) > 0 from attempt"))
        assert await pool.fetchval("select error from attempt limit 1") == "blocked address"
        assert reached == []
