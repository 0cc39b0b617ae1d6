"""W4: one deadline and one size for every answer. W5: no redirect is ever followed."""

import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from tests.receiver import Receiver
from tomada.kit import egress as egress_module
from tomada.kit.addresses import AddressRules
from tomada.kit.egress import Egress, EgressFailed

OPEN = AddressRules(allow_http=True, allow_private=True)
ROOT = Path(__file__).parents[3]
MIB = 1024 * 1024


def test_w04_the_documented_limits() -> None:
    """30 s from dial to last byte, of them 10 s to connect; 64 KiB of the answer."""
    assert (egress_module.TOTAL_S, egress_module.CONNECT_S, egress_module.BODY_BYTES_MAX) == (30.0, 10.0, 65536)


@pytest.mark.parametrize("behaviour", ["hang", "drip", "heads", "informs", "bulky"])
async def test_w04_every_slow_answer_ends_at_the_deadline(receiver: Receiver, behaviour: str) -> None:
    """Silence, one byte a second, headers and "wait a moment" without end are all over when the deadline is."""
    egress = Egress(OPEN, total_s=1.0)
    start_s = time.monotonic()
    with pytest.raises(EgressFailed) as caught:
        await egress.post(receiver.url(behaviour), b"{}", {})
    took_s = time.monotonic() - start_s
    await egress.close()
    assert took_s < 1.5
    assert caught.value.reason in ("timed out", "answer not understood")


async def test_w04_an_endless_body_is_cut_off_at_64_kib(receiver: Receiver) -> None:
    """Twenty of them one after the other: each ends at once."""
    egress = Egress(OPEN)
    start_s = time.monotonic()
    for _ in range(20):
        answer = await egress.post(receiver.url("endless"), b"{}", {})
        assert (answer.status, len(answer.body), answer.complete) == (200, 65536, False)
    took_s = time.monotonic() - start_s
    await egress.close()
    assert took_s < 5


async def test_w04_information_before_the_answer_is_no_answer(receiver: Receiver) -> None:
    """103 Early Hints twice, then 200, on one connection after the other request."""
    egress = Egress(OPEN)
    for _ in range(5):
        assert (await egress.post(receiver.url("hints"), b"{}", {})).status == 200
    await egress.close()


@pytest.mark.parametrize(
    ("behaviour", "bytes_max"),
    [("endless", MIB), ("drip", MIB), ("heads", 3 * MIB), ("informs", 3 * MIB), ("bulky", 3 * MIB)],
)
def test_w04_what_an_attempt_costs_in_memory(receiver: Receiver, behaviour: str, bytes_max: int) -> None:
    """32 at once, three times over, in a process of their own: its peak rises by at most 1 MiB for each of the 32.

    Headers without end cost more before they are refused: 128 lines of 8 KiB are 1 MiB of text by themselves.
    """
    at_once, rounds = 32, 3
    command = [sys.executable, "-m", "tests.integration.callbacks.memory", receiver.url(behaviour)]
    done = subprocess.run(
        [*command, str(at_once), str(rounds), "1.5"], capture_output=True, check=True, timeout=60, cwd=ROOT
    )
    measured = msgspec.json.decode(done.stdout)
    assert sum(measured["endings"].values()) == at_once * rounds
    assert "complete" not in measured["endings"]
    assert measured["grown_bytes"] <= at_once * bytes_max


async def test_w04_connecting_has_a_deadline_of_its_own() -> None:
    """A port that takes no connection (its queue is full) costs the connect limit, not the whole deadline."""
    import socket

    with socket.socket() as listener, socket.socket() as one, socket.socket() as two:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for filler in (one, two):
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        egress = Egress(OPEN, total_s=20.0, connect_s=0.5)
        start_s = time.monotonic()
        with pytest.raises(EgressFailed) as caught:
            await egress.post(f"http://127.0.0.1:{listener.getsockname()[1]}/", b"{}", {})
        took_s = time.monotonic() - start_s
        await egress.close()
    assert caught.value.reason == "connect timed out"
    assert took_s < 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_w05_no_redirect_is_followed(receiver: Receiver, status: int) -> None:
    """The answer is the redirect itself; the place it names is never called."""
    egress = Egress(OPEN)
    answer = await egress.post(receiver.url(f"redirect-{status}"), b"{}", {})
    await receiver.wait_for(1)
    await egress.close()
    assert answer.status == status
    assert [request["target"] for request in receiver.requests()] == [f"/redirect-{status}"]


async def test_no_proxy_and_no_credentials_from_the_environment(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP_PROXY and a netrc file change nothing."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login thief password canary\n")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")
    monkeypatch.setenv("NETRC", str(netrc))
    egress = Egress(OPEN)
    answer = await egress.post(receiver.url(), b"{}", {"user-agent": "t"})
    (request,) = await receiver.wait_for(1)
    await egress.close()
    assert answer.status == 200
    assert "authorization" not in request["headers"]
