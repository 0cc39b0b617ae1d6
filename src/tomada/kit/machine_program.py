"""Where the machine program is, and whether it is one that we can speak to.

`make` and our wheel put `tomada-machine` beside the Python that runs us; TOMADA_MACHINE names one that was built
elsewhere. The program for the simulated network lies beside it. A program is asked before anything rests on it: it must
say hello, in our version of the protocol (docs/machine-protocol.md), and every way in which it fails has its own words.
"""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

PROTOCOL_VERSION = 2
SETTING = "TOMADA_MACHINE"
NAME = "tomada-machine"
SANDBOX_NAME = "tomada-machine-sandbox"

_TIMEOUT_S = 20.0


class MachineUnusable(Exception):
    """There is no machine program, or none that we can speak to; the message says what to do."""


class Hello(msgspec.Struct, frozen=True, tag="hello", tag_field="type"):
    """What a machine says of itself first."""

    version: int
    """Of the protocol."""
    pid: int
    engine: str
    """The library that speaks to WhatsApp, with its version."""
    traits: list[str] = []
    """What it can do beyond the protocol's first form."""


def locate(environ: Mapping[str, str]) -> Path:
    """The machine program; that there is one is for `ask` to find out."""
    return Path(environ.get(SETTING) or Path(sys.prefix) / "bin" / NAME)


def locate_sandbox(environ: Mapping[str, str]) -> Path:
    """The machine program for the simulated network."""
    return locate(environ).with_name(SANDBOX_NAME)


def greet(program: Path) -> Hello:
    """What the program says of itself; `MachineUnusable` if it is none of our version."""
    said = ask(program, "hello")
    try:
        version = msgspec.json.decode(said, type=_Version).version
        if version != PROTOCOL_VERSION:
            older = "older" if version < PROTOCOL_VERSION else "newer"
            raise MachineUnusable(
                f"{program} is {older} than this Tomada: it speaks version {version} of the machine protocol, and "
                f"{PROTOCOL_VERSION} is needed; {_help()}"
            )
        return msgspec.json.decode(said, type=Hello)
    except msgspec.DecodeError:
        raise MachineUnusable(f"{program} is not a machine program: its hello is {said[:80]!r}; {_help()}") from None


def ask(program: Path, command: str) -> bytes:
    """What the program prints for a command of one word; `MachineUnusable` if it cannot be run or fails."""
    try:
        done = subprocess.run(
            [program, command], stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        raise MachineUnusable(f"there is no machine program at {program}; {_help()}") from None
    except OSError as error:
        raise MachineUnusable(f"{program} does not run on this computer ({error.strerror}); {_help()}") from error
    except subprocess.TimeoutExpired:
        raise MachineUnusable(f"{program} said nothing for {_TIMEOUT_S:.0f} s when asked for its {command}") from None
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip().partition("\n")[0]
        raise MachineUnusable(
            f"{program} {command} ended with status {done.returncode}: {words or 'no words'}; {_help()}"
        )
    return done.stdout


class _Version(msgspec.Struct, tag="hello", tag_field="type"):
    """Of a hello, the part that every version of the protocol has."""

    version: int


def _help() -> str:
    return f"build it with `make machine`, or name one in {SETTING}"
