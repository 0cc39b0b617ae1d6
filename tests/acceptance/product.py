"""The product as its users have it: a server process, HTTP, simulated phones. Nothing here imports Tomada.

`Product` starts and stops (or kills) `tomada serve --sandbox`; `Instance` speaks the wire as an integrator's does;
`Phone` is a person with a simulated phone. Every wait is on a condition with a limit.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WAIT_S = 30.0
START_S = 60.0
TOMADA = [sys.executable, "-m", "tomada"]


@dataclass(frozen=True)
class Reply:
    """An HTTP answer: status, decoded JSON (or None) and headers."""

    status: int
    body: Any
    headers: dict[str, str]


def http(
    method: str,
    url: str,
    body: object = None,
    *,
    headers: dict[str, str] | None = None,
    raw: bytes | None = None,
    timeout_s: float = WAIT_S,
) -> Reply:
    """One request; any status is an answer. `body` is sent as JSON; `raw` as it is."""
    sent = dict(headers or {})
    data = raw
    if body is not None:
        data = json.dumps(body).encode()
        sent.setdefault("Content-Type", "application/json")
    request = urllib.request.Request(url, data, sent, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as reply:
            return _reply(reply.status, reply.read(), dict(reply.headers))
    except urllib.error.HTTPError as error:
        return _reply(error.code, error.read(), dict(error.headers))


def _reply(status: int, body: bytes, headers: dict[str, str]) -> Reply:
    return Reply(status, json.loads(body) if body else None, {name.lower(): value for name, value in headers.items()})


def wait_for(what: str, condition: Callable[[], Any], timeout_s: float = WAIT_S) -> Any:
    """The first thing other than None and False that the condition gives."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found is not None and found is not False:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout_s:g} s")
        time.sleep(0.05)


class Product:
    """A `tomada serve --sandbox` on a data directory; may be stopped, killed and started again."""

    def __init__(self, data: Path, environment: dict[str, str] | None = None) -> None:
        self.data = data
        self.log = data.parent / f"{data.name}.log"
        self._environment = {"TOMADA_SEND_DELAY_S": "0", **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self.base = ""
        self.port = 0

    def start(self) -> None:
        """Returns when the server says that it is ready; keeps its port over restarts."""
        command = [*TOMADA, "serve", "--sandbox", "--port", str(self.port), "--data", str(self.data)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, env={**os.environ, **self._environment}
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.kill()
            raise AssertionError(f"the server did not start:\n{self.log.read_text()[-4000:]}")
        self.base = json.loads(line)["url"]
        self.port = int(self.base.rsplit(":", 1)[1])

    @property
    def pid(self) -> int:
        """The main process."""
        assert self._process is not None
        return self._process.pid

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9 of the main process."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(how)
        status = process.wait(START_S)
        assert process.stdout is not None
        process.stdout.close()
        return status

    def command(self, *arguments: str, status: int = 0) -> Any:
        """`tomada ...` beside the running server, which must end with this status; the first line that it prints."""
        done = subprocess.run(
            [*TOMADA, *arguments],
            capture_output=True,
            env={**os.environ, **self._environment, "TOMADA_DATA_DIR": str(self.data)},
            timeout=START_S,
            check=False,
        )
        assert done.returncode == status, done.stderr.decode()
        lines = done.stdout.splitlines()
        return json.loads(lines[0]) if lines else None

    def create_account(self, *arguments: str) -> "Account":
        """`tomada accounts create`, beside the running server."""
        made = self.command("accounts", "create", "Test", *arguments)
        return Account(self, made["id"], made["partnerToken"], made["clientToken"])

    def phone(self, number: str, name: str = "Someone") -> "Phone":
        """Add a simulated phone (or take the one with this number)."""
        reply = http("POST", f"{self.base}/sandbox/phones", {"number": number, "name": name})
        assert reply.status == 200, reply
        return Phone(self, number)

    def fault(self, kind: str, **more: object) -> None:
        """Switch a fault of the simulated network on."""
        reply = http("POST", f"{self.base}/sandbox/faults", {"kind": kind, **more})
        assert reply.status == 200, reply

    def clear_faults(self) -> None:
        """Switch all faults off."""
        assert http("DELETE", f"{self.base}/sandbox/faults").status == 200

    def advance_clock(self, seconds: int) -> None:
        """Move lifecycle time forward."""
        assert http("POST", f"{self.base}/sandbox/clock", {"advanceSeconds": seconds}).status == 200


@dataclass(frozen=True)
class Account:
    """An integrator."""

    product: Product
    id: str
    partner_token: str
    client_token: str | None

    @property
    def headers(self) -> dict[str, str]:
        """The partner credential."""
        return {"Authorization": f"Bearer {self.partner_token}"}

    def post(self, path: str, body: object) -> Reply:
        """A partner call."""
        return http("POST", f"{self.product.base}{path}", body, headers=self.headers)

    def get(self, path: str) -> Reply:
        """A partner call."""
        return http("GET", f"{self.product.base}{path}", headers=self.headers)

    def create_instance(self, hooks: str | None = None, name: str = "Shop", **more: object) -> "Instance":
        """The seed page's call; `hooks` is a receiver's base URL, whose path then tells which callback it was."""
        urls = {
            f"{kind}CallbackUrl": f"{hooks}/{kind}"
            for kind in ("delivery", "received", "disconnected", "connected", "messageStatus")
            if hooks
        }
        reply = self.post("/instances/integrator/on-demand", {"name": name, **urls, **more})
        assert reply.status == 200, reply
        return Instance(self, reply.body["id"], reply.body["token"], reply.body["due"])


@dataclass(frozen=True)
class Instance:
    """An instance, spoken to with the token that its creation answered."""

    account: Account
    id: str
    token: str
    due: int

    def url(self, call: str) -> str:
        """The URL of an instance call."""
        return f"{self.account.product.base}/instances/{self.id}/token/{self.token}/{call}"

    def get(self, call: str) -> Reply:
        """GET an instance call."""
        return http("GET", self.url(call))

    def post(self, call: str, body: object = None) -> Reply:
        """POST an instance call."""
        return http("POST", self.url(call), body)

    def put(self, call: str, body: object = None) -> Reply:
        """PUT an instance call."""
        return http("PUT", self.url(call), body)

    def send_text(self, phone: str, message: str, **more: object) -> dict[str, str]:
        """send-text that must be accepted."""
        reply = self.post("send-text", {"phone": phone, "message": message, **more})
        assert reply.status == 200, reply
        accepted: dict[str, str] = reply.body
        return accepted

    def pair(self, phone: "Phone") -> None:
        """Scan the QR code and wait until connected."""
        reply = self.get("qr-code")
        assert reply.status == 200, reply
        phone.scan(reply.body["value"])
        self.wait_connected()

    def wait_connected(self, timeout_s: float = WAIT_S) -> None:
        """Until status says so."""
        wait_for("connected", lambda: self.get("status").body.get("connected"), timeout_s)


@dataclass(frozen=True)
class Phone:
    """A person with a simulated phone."""

    product: Product
    number: str

    @property
    def url(self) -> str:
        """Its sandbox resource."""
        return f"{self.product.base}/sandbox/phones/{self.number}"

    def _post(self, action: str, body: object) -> Any:
        reply = http("POST", f"{self.url}/{action}", body)
        assert reply.status == 200, reply
        return reply.body

    def scan(self, qr: str) -> int:
        """Scan a QR text; returns the device number."""
        return int(self._post("scan", {"qr": qr})["device"])

    def link_code(self, code: str) -> None:
        """Enter a pairing code."""
        self._post("link-code", {"code": code})

    def send_text(self, to: str, text: str) -> str:
        """Write to a number or a group; returns WhatsApp's id."""
        return str(self._post("send", {"to": to, "text": text})["id"])

    def messages(self) -> list[dict[str, Any]]:
        """What this phone received and sent, in order."""
        listed: list[dict[str, Any]] = http("GET", f"{self.url}/messages").body
        return listed

    def texts(self) -> list[str]:
        """The texts this phone received, in order."""
        return [message["text"] for message in self.messages() if not message["fromMe"] and "text" in message]

    def reply(self, to: str, text: str, quoted: str) -> str:
        """Answer a message, named by WhatsApp's id; returns that of the answer."""
        return str(self._post("send", {"to": to, "text": text, "quoted": quoted})["id"])

    def read(self, *ids: str) -> None:
        """Read messages."""
        self._post("read", {"ids": list(ids)})

    def play(self, *ids: str) -> None:
        """Play messages, as one does with voice."""
        self._post("played", {"ids": list(ids)})

    def unlink(self, device: int) -> None:
        """Unlink a device on the phone."""
        self._post("unlink", {"device": device})

    def linked_devices(self) -> list[dict[str, Any]]:
        """What the phone shows under linked devices."""
        devices: list[dict[str, Any]] = http("GET", self.url).body["linkedDevices"]
        return devices


@contextlib.contextmanager
def running(data: Path, environment: dict[str, str] | None = None) -> Iterator[Product]:
    """A started product that is stopped at the end, whatever happened."""
    product = Product(data, environment)
    product.start()
    try:
        yield product
    finally:
        product.stop()
