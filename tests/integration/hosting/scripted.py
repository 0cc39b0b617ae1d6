"""A machine without an engine: a real process that speaks the protocol and does as it is told, well or badly.

It is a program of its own with nothing of Tomada in it, so it also shows that others can speak the protocol.
What it does is written in files under --script-dir, read anew each time:

    machine            `old-version`, `mute`, `exit`: how the process starts (default: well)
    machine-<slot>     `exit`: the same for one slot
    <instance>         `refuse`, `fail`, `silent`, `deaf`, `no-store`, `die-paired` (as a phone scans a code): how its
                       session behaves (default: well)
    devices/<key>      the session store: a device under this store key (hosting.py makes these files of the tables)
    waiting/<instance> WhatsApp's part: events that it was not acknowledged, a line each (written here)
    log                what it was asked, a line each: seconds, pid, command, instance (written here)

A session whose store has a device connects, and is told again what waits; without one it shows QR codes if it is to
pair. A text that is sent may be an order: `!die`, `!hang`, `!babble`, `!long`,
`!tell N` (N messages received), `!tell JSON` (a list of events with numbers), `!event JSON` (an event without one).
A phone number that asks for a pairing code pairs: Paired, Connected.
"""

import base64
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
NOTHING = "nothing"  # an answer that is never given


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


def refused(words: str, kind: str = "refused") -> dict[str, Any]:
    """An answer's fields."""
    return {"error": words, "kind": kind}


class Undelivered:
    """What WhatsApp was not acknowledged, told with numbers that count from one in each process."""

    def __init__(self) -> None:
        self.last = 0
        self.told: dict[int, tuple[str, str]] = {}  # number -> instance, event

    def path(self, instance_id: str) -> Path:
        """Where WhatsApp keeps it."""
        return SCRIPT / "waiting" / instance_id

    def tell(self, instance_id: str, event: dict[str, Any]) -> None:
        """A new event."""
        line = json.dumps(event)
        with self.path(instance_id).open("a") as file:
            file.write(line + "\n")
        self._say(instance_id, line)

    def connected(self, instance_id: str) -> None:
        """WhatsApp brings again what it was not acknowledged."""
        if self.path(instance_id).exists():
            for line in self.path(instance_id).read_text().splitlines():
                self._say(instance_id, line)

    def closed(self, instance_id: str) -> None:
        """Whatever is acknowledged of it from now on comes too late for WhatsApp."""
        self.told = {number: told for number, told in self.told.items() if told[0] != instance_id}

    def acknowledge(self, numbers: list[int]) -> None:
        """WhatsApp is acknowledged these."""
        done = [self.told.pop(number) for number in numbers if number in self.told]
        for instance_id in {one for one, _ in done}:
            lines = self.path(instance_id).read_text().splitlines()
            for owner, line in done:
                if owner == instance_id:
                    lines.remove(line)
            fresh = SCRIPT / f"{instance_id}.new"
            fresh.write_text("".join(line + "\n" for line in lines))
            fresh.replace(self.path(instance_id))

    def _say(self, instance_id: str, line: str) -> None:
        self.last += 1
        self.told[self.last] = (instance_id, line)
        say({"type": "happened", "instance_id": instance_id, "event": json.loads(line), "number": self.last})


class Sessions:
    """What is open, and how commands are carried out."""

    def __init__(self, undelivered: Undelivered) -> None:
        self.undelivered = undelivered
        self.open: set[str] = set()

    def carry_out(self, command: dict[str, Any]) -> dict[str, Any]:
        """The answer's fields."""
        kind = command["type"]
        instance_id = command.get("instance_id") or command["spec"]["instance_id"]
        with (SCRIPT / "log").open("a") as log:
            log.write(f"{time.monotonic()} {os.getpid()} {kind} {instance_id}\n")
        if kind not in ("open_session", "close_session") and instance_id not in self.open:
            return refused("this machine has no such session", "retry")
        result: dict[str, Any] = getattr(self, kind)(instance_id, command)
        return result

    def event(self, instance_id: str, event: dict[str, Any]) -> None:
        """Tell something that nobody waits for."""
        say({"type": "happened", "instance_id": instance_id, "event": event})

    def open_session(self, instance_id: str, command: dict[str, Any]) -> dict[str, Any]:
        """Connect, or show a code, or find no device."""
        if instance_id in self.open:
            return refused("this session is open already")
        script, spec = mode(instance_id), command["spec"]
        if script == "no-store":
            return refused("the session store cannot be read now", "retry")
        device = "5511:1@s.whatsapp.net" if (SCRIPT / "devices" / spec["store_key"]).exists() else ""
        if not device and not spec.get("pair", False):
            return {"value": {"device": ""}}
        if script == "refuse":
            return refused("no way to WhatsApp", "retry")
        self.open.add(instance_id)
        if script == "fail":
            self.event(instance_id, {"type": "connect_failed", "code": 503, "reason": "busy"})
        elif script != "silent" and device:
            self.event(instance_id, account("connected", "5511"))
            self.undelivered.connected(instance_id)
        elif script != "silent":
            code = {"type": "qr_issued", "code": f"qr-{instance_id}", "expires_ms": time.time_ns() // 10**6 + 20_000}
            self.event(instance_id, code)
        return {"value": {"device": device}}

    def close_session(self, instance_id: str, _command: dict[str, Any]) -> dict[str, Any]:
        """Harmless when it is not there."""
        self.open.discard(instance_id)
        self.undelivered.closed(instance_id)
        return {}

    def probe(self, instance_id: str, _command: dict[str, Any]) -> dict[str, Any]:
        """Deaf if the script says so."""
        return {"value": mode(instance_id) != "deaf"}

    def ask(self, instance_id: str, command: dict[str, Any]) -> dict[str, Any]:
        """Silent if the script says so; else nobody is known."""
        return {NOTHING: True} if mode(instance_id) == "silent" else {"value": {}}

    def logout(self, instance_id: str, command: dict[str, Any]) -> dict[str, Any]:
        """Unlink and stop."""
        return self.close_session(instance_id, command)

    def request_phone_code(self, instance_id: str, command: dict[str, Any]) -> dict[str, Any]:
        """A code, and at once the phone that enters it; or the process ends in that moment."""
        if mode(instance_id) == "die-paired":
            os.kill(os.getpid(), signal.SIGKILL)
        self.event(instance_id, account("paired", command["phone"]))
        self.event(instance_id, account("connected", command["phone"]))
        return {"value": "ABCD-1234"}

    def send(self, instance_id: str, command: dict[str, Any]) -> dict[str, Any]:
        """Sent at once, if it is not an order."""
        order, _, rest = text_of(base64.b64decode(command["message"]["raw"])).partition(" ")
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
            what = json.loads(rest)
            for event in what if isinstance(what, list) else [received(f"m{number}") for number in range(what)]:
                self.undelivered.tell(instance_id, event)
        else:
            self.event(instance_id, {"type": "sent", "wa_id": command["message"]["wa_id"], "at_ms": 1})
        return {}


def account(kind: str, phone: str) -> dict[str, Any]:
    """Whose session it is."""
    device = f"{phone}:1@s.whatsapp.net"
    return {"type": kind, "device": device, "lid": "77@lid", "push_name": "Ana", "platform": "android"}


def received(wa_id: str) -> dict[str, Any]:
    """A text from somebody; it says its id."""
    text = wa_id.encode()
    raw = base64.b64encode(bytes([0x0A, len(text)]) + text).decode()  # field 1 of WhatsApp's message: a bare text
    person = "55@s.whatsapp.net"
    return {"type": "message", "wa_id": wa_id, "chat": person, "sender": person, "at_ms": 1, "raw": raw}


def text_of(raw: bytes) -> str:
    """The bare text in a message of WhatsApp's."""
    assert raw[0] == 0x0A
    length, shift, at = 0, 0, 1
    while True:
        length |= (raw[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if raw[at - 1] < 0x80:
            return raw[at : at + length].decode()


def main() -> None:
    """Lock the folder, greet, then answer until the end of the input."""
    if "exit" in (mode("machine"), mode(f"machine-{FOLDER.name}")):
        sys.exit(3)
    lock = (FOLDER / "lock").open("a")
    fcntl.flock(lock, fcntl.LOCK_EX)
    if mode("machine") == "mute":
        time.sleep(3600)
    version = 1 if mode("machine") == "old-version" else 2
    say({"type": "hello", "version": version, "pid": os.getpid(), "engine": "scripted 1"})
    say({"type": "ready"})
    sys.stderr.write("scripted machine is ready\n")
    undelivered = Undelivered()
    sessions = Sessions(undelivered)
    for text in sys.stdin:
        message = json.loads(text)
        if message["type"] == "acknowledge":
            undelivered.acknowledge(message["numbers"])
            continue
        answer = sessions.carry_out(message["command"])
        if NOTHING not in answer:
            say({"type": "answer", "id": message["id"], **answer})


main()
