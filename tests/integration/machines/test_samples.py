"""The samples of the protocol, which lie beside the machine's side of it: the host's side reads every one of them."""

from pathlib import Path

import msgspec
import pytest

from tomada.engine import told
from tomada.machines.protocol import FromHost, FromMachine, Happened

SAMPLES = Path("machine/internal/protocol/testdata")


def lines(name: str) -> list[bytes]:
    """The samples of one direction, while there are any."""
    path = SAMPLES / name
    return path.read_bytes().splitlines() if path.exists() else []


@pytest.mark.parametrize("line", lines("machine_to_host.jsonl"), ids=lambda line: line[:60].decode())
def test_what_a_machine_says(line: bytes) -> None:
    """Each is a message of ours; an event in it is one of ours, with nothing in it that we do not know."""
    message = msgspec.json.decode(line, type=FromMachine)
    if isinstance(message, Happened):
        event = told.decode(bytes(message.event))
        ours = msgspec.to_builtins(event) | {"type": type(event).__struct_config__.tag}
        assert set(msgspec.json.decode(message.event)) <= set(ours)


@pytest.mark.parametrize("line", lines("host_to_machine.jsonl"), ids=lambda line: line[:80].decode())
def test_what_a_host_says(line: bytes) -> None:
    """Each is one that we could say."""
    assert msgspec.json.decode(line, type=FromHost)
