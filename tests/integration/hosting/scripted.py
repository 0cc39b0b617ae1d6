"""A machine without an engine: a real process that speaks the protocol and does as it is told, well or badly.

It is a program of its own with nothing of Tomada in it, so it also shows that others can speak the protocol.
What it does is written in files under --script-dir, read anew each time:

    machine            `old-version`, `mute`, `exit`: how the process starts (default: well)
    machine-<slot>     `exit`: the same for one slot
    <instance>         `refuse`, `fail`, `silent`, `slow`, `deaf`: how its session behaves (default: well)
    log                what it was asked, a line each: seconds, pid, command, instance (written by it)

A session whose store file is there connects; without one it shows QR codes. A text that is sent may be an order:
`!die`, `!hang`, `!babble`, `!long`, `!tell N` (N messages received, journaled), `!event JSON` (an event as it is).
A phone number that asks for a pairing code pairs: Paired, Connected.
"""

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

FOLDER = Path(sys.argv[sys.argv.index("--machine-dir") + 1])
SCRIPT = Path(sys.argv[sys.argv.index("--script-dir") + 1])
SLOW_S = 0.3
CONNECTED = {"type": "connected", "phone": "5511", "lid": "77", "push_name": "Ana", "is_business": False}


def say(message: dict[str, Any]) -> None:
    """A line to the host."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def mode(name: str) -> str:
    """The script for an instance, or for the machine."""
    try:
        return (SCRIPT / name).read_text().strip()
    except FileNotFoundError:
        return "well"


class Journal:
    """Lines with numbers that grow, rewritten when acknowledged."""

    def __init__(self) -> None:
        self.path = FOLDER / "journal"
        self.lines: list[dict[str, Any]] = []
        if self.path.exists():
            self.lines = [json.loads(line) for line in self.path.read_text().splitlines()]
        self.next = max([time.time_ns() // 1000, *(line["journal"] + 1 for line in self.lines)])

    def tell(self, instance_id: str, event: dict[str, Any]) -> None:
        """Into the file, then to the host."""
        line = {"type": "happened", "instance_id": instance_id, "event": event, "journal": self.next}
        self.next += 1
        self.lines.append(line)
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        say(line)

    def acknowledge(self, number: int) -> None:
        """Forget up to here."""
        self.lines = [line for line in self.lines if line["journal"] > number]
        fresh = self.path.with_suffix(".new")
        fresh.write_text("".join(json.dumps(line) + "\n" for line in self.lines))
        fresh.replace(self.path)


class Sessions:
    """What is open, and how commands are carried out."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.stores: dict[str, str] = {}

    def carry_out(self, command: dict[str, Any]) -> dict[str, Any]:
        """The answer's fields."""
        kind = command["type"]
        instance_id = command.get("instance_id") or command["spec"]["instance_id"]
        with (SCRIPT / "log").open("a") as log:
            log.write(f"{time.monotonic()} {os.getpid()} {kind} {instance_id}\n")
        if kind not in ("open_session", "close_session") and instance_id not in self.stores:
            return {"error": "this machine has no such session"}
        result: dict[str, Any] = getattr(self, kind)(instance_id, command)
        return result

    def event(self, instance_id: str, event: dict[str, Any]) -> None:
        """Tell something that is not journaled."""
        say({"type": "happened", "instance_id": instance_id, "event": event})

    def open_session(self, instance_id: str, command: dict[str, Any]) -> dict[str, Any]:
        """Connect, or show a code."""
        if instance_id in self.stores:
            return {"error": "this session is open already"}
        script = mode(instance_id)
        if script == "refuse":
            return {"error": "no way to WhatsApp"}
        if script == "slow":
            time.sleep(SLOW_S)  # and all else waits, as starts do for each other in the engine
        store = self.stores[instance_id] = command["spec"]["store"]
        if script == "fail":
            self.event(instance_id, {"type": "connect_failed", "code": 503, "reason": "busy"})
        elif script != "silent":
            code = {"type": "qr_issued", "code": f"qr-{instance_id}", "expires_ms": time.time_ns() // 10**6 + 20_000}
            self.event(instance_id, CONNECTED if Path(store).exists() else code)
        return {}

    def close_session(self, instance_id: str, _command: dict[str, Any]) -> dict[str, Any]:
        """Harmless when it is not there."""
        self.stores.pop(instance_id, None)
        return {}

    def probe(self, instance_id: str, _command: dict[str, Any]) -> dict[str, Any]:
        """Deaf if the script says so."""
        return {"value": "no" if mode(instance_id) == "deaf" else "yes"}

    def logout(self, instance_id: str, _command: dict[str, Any]) -> dict[str, Any]:
        """Unlink and stop."""
        del self.stores[instance_id]
        return {}

    def request_phone_code(self, instance_id: str, command: dict[str, Any]) -> dict[str, Any]:
        """A code, and at once the phone that enters it."""
        Path(self.stores[instance_id]).write_text("keys")
        paired = {"type": "paired", "phone": command["phone"], "lid": "77", "is_business": False, "platform": "android"}
        self.journal.tell(instance_id, paired)
        self.event(instance_id, {**CONNECTED, "phone": command["phone"]})
        return {"value": "ABCD-1234"}

    def send(self, instance_id: str, command: dict[str, Any]) -> dict[str, Any]:
        """Sent at once, if it is not an order."""
        order, _, rest = command["content"]["message"].partition(" ")
        if order == "!die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif order == "!hang":
            time.sleep(3600)
        elif order == "!babble":
            sys.stdout.write("fatal error: concurrent map writes\n")
        elif order == "!long":
            sys.stdout.write("x" * (3 << 20))
            sys.stdout.flush()
        elif order == "!event":
            self.event(instance_id, json.loads(rest))
        elif order == "!tell":
            for number in range(int(rest)):
                self.journal.tell(instance_id, received(f"m{number}"))
        else:
            sent = {"type": "message_sent", "zaap_id": command["zaap_id"], "wa_id": "WA", "at_ms": 1}
            self.journal.tell(instance_id, sent)
        return {}


def received(wa_id: str) -> dict[str, Any]:
    """A message from somebody."""
    nobody = {"chat_lid": None, "sender_lid": None, "from_me": False, "is_group": False, "push_name": "B"}
    content = {"type": "text", "message": wa_id}
    return {
        "type": "message_received",
        "wa_id": wa_id,
        "chat": "55",
        "sender": "55",
        "at_ms": 1,
        "content": content,
        **nobody,
    }


def main() -> None:
    """Lock the folder, greet, tell again, then answer until the end of the input."""
    if "exit" in (mode("machine"), mode(f"machine-{FOLDER.name}")):
        sys.exit(3)
    lock = (FOLDER / "lock").open("a")
    fcntl.flock(lock, fcntl.LOCK_EX)
    if mode("machine") == "mute":
        time.sleep(3600)
    version = 99 if mode("machine") == "old-version" else 1
    say({"type": "hello", "version": version, "pid": os.getpid(), "engine": "scripted 1"})
    journal = Journal()
    for line in journal.lines:
        say(line)
    say({"type": "ready"})
    sys.stderr.write("scripted machine is ready\n")
    sessions = Sessions(journal)
    for text in sys.stdin:
        message = json.loads(text)
        if message["type"] == "acknowledge":
            journal.acknowledge(message["journal"])
        else:
            say({"type": "answer", "id": message["id"], **sessions.carry_out(message["command"])})


main()
