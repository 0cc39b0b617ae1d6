"""Each fault as the real engine sees it, and what waits for a device that is away."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.integration.sandbox.conftest import Bench, Pair, until


@pytest.fixture(autouse=True)
async def no_faults_left(bench: Bench) -> AsyncIterator[None]:
    """Each test starts and ends without faults."""
    bench.network.clear_faults()
    yield
    bench.network.clear_faults()


async def forget(pair: Pair, *events: str) -> None:
    """Drop events of these names that were seen so far."""
    for client in (pair.alice, pair.bob):
        client.events[:] = [e for e in client.events if e["event"] not in events]


async def test_drop_cuts_the_connection_and_the_client_comes_back(bench: Bench, pair: Pair) -> None:
    """The engine notices at once, connects anew, and nothing sent meanwhile is lost."""
    await forget(pair, "Disconnected", "Connected")
    report = bench.network.apply_fault({"kind": "drop", "number": pair.bob_number})

    assert report["struck"] == 1
    await pair.alice.do("send", to=pair.bob_number, text="while you were away")
    await pair.bob.wait("Connected")
    await pair.bob.text("while you were away")


async def test_stream_error_503_is_survived(bench: Bench, pair: Pair) -> None:
    """A server that goes away with 503 is connected to again."""
    await forget(pair, "Connected")
    bench.network.apply_fault({"kind": "stream-error", "number": pair.bob_number, "code": 503})

    await pair.bob.wait("Connected")


async def test_refuse_holds_until_it_is_cleared(bench: Bench, pair: Pair) -> None:
    """While refused no client gets in, attempts are counted, and afterwards it does."""
    await forget(pair, "Disconnected", "Connected")
    before = bench.network.fault_report()["connects"]["total"]
    bench.network.apply_fault({"kind": "refuse"})
    bench.network.apply_fault({"kind": "drop", "number": pair.bob_number})
    await until(lambda: bench.network.fault_report()["connects"]["total"] >= before + 2)
    assert not bench.network.online(bench.network.devices(pair.bob_number)[1])

    bench.network.clear_faults()

    await pair.bob.wait("Connected")
    assert bench.network.online(bench.network.devices(pair.bob_number)[1])


async def test_no_ack_leaves_the_sender_waiting(bench: Bench, pair: Pair) -> None:
    """The message is delivered all the same; the sender learns it only after it has connected anew."""
    bench.network.apply_fault({"kind": "no-ack", "number": pair.alice_number})

    sending = asyncio.create_task(pair.alice.do("send", to=pair.bob_number, text="unacknowledged"))
    await pair.bob.text("unacknowledged")
    done, _ = await asyncio.wait({sending}, timeout=1)
    assert not done

    bench.network.clear_faults()
    bench.network.apply_fault({"kind": "drop", "number": pair.alice_number})
    assert await sending


async def test_delay_makes_everything_late(bench: Bench, pair: Pair) -> None:
    """With 700 ms on each stanza an answer takes at least that long."""
    await pair.alice.do("send", to=pair.bob_number, text="before the delay")
    bench.network.apply_fault({"kind": "delay", "number": pair.alice_number, "ms": 700})
    loop = asyncio.get_running_loop()
    started = loop.time()

    await pair.alice.do("send", to=pair.bob_number, text="late ack")

    assert loop.time() - started >= 0.7


async def test_redeliver_sends_a_message_twice(bench: Bench, pair: Pair) -> None:
    """The engine gets the same stanza twice and reports the text once."""
    bench.network.apply_fault({"kind": "redeliver", "number": pair.bob_number, "count": 1})
    await pair.alice.do("send", to=pair.bob_number, text="sent twice")
    await pair.alice.do("send", to=pair.bob_number, text="after twice")

    await pair.bob.text("sent twice")
    await pair.bob.text("after twice")
    assert not [e for e in pair.bob.events if e.get("text") == "sent twice"]


async def test_a_deaf_connection_stays_open_and_says_nothing(bench: Bench, pair: Pair) -> None:
    """No message arrives until the client connects anew; then it is there."""
    bench.network.apply_fault({"kind": "deaf", "number": pair.bob_number})
    await pair.alice.do("send", to=pair.bob_number, text="into a deaf ear")
    with pytest.raises(AssertionError):
        await pair.bob.text("into a deaf ear", timeout_s=1)
    assert bench.network.online(bench.network.devices(pair.bob_number)[1])

    bench.network.apply_fault({"kind": "drop", "number": pair.bob_number})

    await pair.bob.text("into a deaf ear")


async def test_a_server_error_receipt_reaches_the_engine(bench: Bench, pair: Pair) -> None:
    """The engine reports it as such a receipt, and stays connected."""
    assert bench.network.apply_fault({"kind": "server-error-receipt", "number": pair.bob_number})["struck"] == 1

    await pair.bob.wait("Receipt", lambda e: e["type"] == "server-error")
    assert bench.network.online(bench.network.devices(pair.bob_number)[1])


@pytest.mark.parametrize(
    ("fault", "event", "data"),
    [
        ({"kind": "replaced"}, "StreamReplaced", {}),
        ({"kind": "ban", "code": 101, "expire": 600}, "TemporaryBan", {"Code": 101, "Expire": 600 * 10**9}),
        ({"kind": "outdated"}, "ClientOutdated", {}),
    ],
)
async def test_ends_of_a_session(bench: Bench, fault: dict[str, object], event: str, data: dict[str, int]) -> None:
    """Replaced, banned for a time, too old: the engine reports each by its own event."""
    number = f"1555000666{len(event) % 7 + 2}"
    phone = await bench.phone(number, "Fay")
    client = await bench.paired(phone, f"Desk {event}")

    bench.network.apply_fault({**fault, "number": number})

    assert (await client.wait(event))["data"] == data
    await client.stop()


async def test_what_waits_is_delivered_in_order_at_the_next_login(bench: Bench) -> None:
    """Ten texts to a client that is stopped: all there, in order, after its restart."""
    sender_phone = await bench.phone("15550008881", "Hal")
    receiver_phone = await bench.phone("15550008882", "Ida")
    sender = await bench.paired(sender_phone, "Hal Desk")
    receiver = await bench.paired(receiver_phone, "Ida Desk")
    await sender.do("send", to="15550008882", text="first contact")
    await receiver.text("first contact")
    device = bench.network.devices("15550008882")[1]
    await until(lambda: not bench.network.storage.count_queued(f"{device.number}:{device.id}"))  # it was acknowledged
    await receiver.stop()
    for number in range(10):
        await sender.do("send", to="15550008882", text=f"waiting {number}")

    back = await bench.client("Ida Desk")
    await back.text("waiting 9")

    texts = [e["text"] for e in back.events if e["event"] == "Message"]
    assert texts == [f"waiting {number}" for number in range(9)]
    await until(lambda: not bench.network.storage.count_queued(f"{device.number}:{device.id}"))
    await sender.stop()
    await back.stop()
