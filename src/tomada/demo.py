"""`make demo` and `make serve`: the product seen from outside, as an integrator's program sees it.

The demo starts a real server (`tomada serve --sandbox`) with its own PostgreSQL in a temporary directory and talks to
it over HTTP only; a receiver of its own prints each callback as it comes. It needs no phone, no Internet and no answer
from a person, ends with exit status 0 if everything happened, and leaves nothing running and no file behind.

Whatever ends it (a failure, Ctrl-C, SIGTERM), the server is asked to stop and waited for; should this program be killed
outright, the kernel asks for it. Why a server failed is shown in its own words, the last lines of its log.
"""

import argparse
import contextlib
import ctypes
import http.server
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

STEP_TIMEOUT_S = 60.0
POLL_S = 0.2
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
TWO_DAYS_S = 48 * 3600
SHOP_PHONE = "5511999990001"
CUSTOMER_PHONE = "5511988880002"

Json = dict[str, Any]


class Failed(Exception):
    """What was to be shown did not happen; the message says what."""


def say(words: str) -> None:
    """A line for the person who watches."""
    print(words, flush=True)


def call(method: str, url: str, body: object = None, token: str | None = None) -> Any:
    """One HTTP call with JSON in and out; an error status comes back as its body under `http_status`."""
    headers = {"Content-Type": "application/json"} if body is not None else {}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=STEP_TIMEOUT_S) as reply:
            return json.loads(reply.read() or b"null")
    except urllib.error.HTTPError as error:
        return {"http_status": error.code, **json.loads(error.read() or b"{}")}
    except OSError as error:
        raise Failed(f"{method} {urllib.parse.urlsplit(url).path.rpartition('/')[2]}: {error}") from None


class Receiver:
    """An integrator's webhook endpoint: answers 200 at once, prints and remembers every callback."""

    def __init__(self) -> None:
        self.callbacks: list[Json] = []
        self._changed = threading.Condition()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()
                receiver.take(json.loads(body))

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def take(self, callback: Json) -> None:
        """Print and keep one callback."""
        say(f"    <- callback  {json.dumps(callback, ensure_ascii=False)}")
        with self._changed:
            self.callbacks.append(callback)
            self._changed.notify_all()

    def wait(self, what: str, matches: Callable[[Json], bool]) -> Json:
        """The first callback that matches; fails the demo after a minute."""
        found: list[Json] = []

        def arrived() -> bool:
            found.extend(callback for callback in self.callbacks if matches(callback))
            return bool(found)

        with self._changed:
            if not self._changed.wait_for(arrived, STEP_TIMEOUT_S):
                raise Failed(f"no {what} came")
        return found[0]

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


def wait_for(what: str, condition: Callable[[], Any]) -> Any:
    """Poll until the condition gives something; fails the demo after a minute."""
    deadline = time.monotonic() + STEP_TIMEOUT_S
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.1)
    raise Failed(f"{what} did not happen")


@contextlib.contextmanager
def server(data: Path, environment: dict[str, str], log: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`tomada serve --sandbox` as a child in `environment`; gives it and its base URL, and stops it by SIGTERM.

    Its log is added to: another server may be writing there. On failure its last lines are part of the message.
    """
    command = [sys.executable, "-m", "tomada", "serve", "--sandbox", "--data", str(data)]
    with log.open("ab") as errors:
        begin = errors.tell()
        child = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            start_new_session=True,  # a Ctrl-C in the terminal is for us; we stop the server
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - one system call, and no thread holds a lock it needs
        )
    assert child.stdout is not None
    try:
        ready = child.stdout.readline()
        if not ready:
            child.wait(STEP_TIMEOUT_S)
            raise Failed(f"the server did not start:\n{_last_words(log, begin)}")
        yield child, json.loads(ready)["url"]
    except Failed as error:
        if child.poll() is None:
            error.add_note(f"the last lines of the server's log:\n{_last_words(log, begin)}")
        raise
    finally:
        status = _stop(child)
        child.stdout.close()
    if status != 0:
        raise Failed(f"the server ended with status {status}:\n{_last_words(log, begin)}")


def _stop(child: "subprocess.Popen[bytes]") -> int:
    """SIGTERM, and wait; further signals to us do not cut that short."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    child.terminate()
    try:
        return child.wait(STEP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_with_parent() -> None:
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _last_words(log: Path, begin: int) -> str:
    """What the server said for people; without that, the end of its log."""
    lines = log.read_bytes()[begin:].decode(errors="replace").splitlines()
    words = [line for line in lines if not line.startswith("{")]
    return "\n".join(words[-20:] or lines[-20:])


def create_account(data: Path, environment: dict[str, str]) -> Json:
    """`tomada accounts create Demo`, beside the running server."""
    command = [sys.executable, "-m", "tomada", "accounts", "create", "Demo"]
    done = subprocess.run(command, capture_output=True, check=False, env={**environment, "TOMADA_DATA_DIR": str(data)})
    if done.returncode != 0:
        raise Failed(f"accounts create: {done.stderr.decode(errors='replace').strip()}")
    account: Json = json.loads(done.stdout)
    return account


def create_instance(base: str, partner_token: str, hooks: str) -> Json:
    """The seed page's call, with its attributes."""
    body = {
        "name": "Instancia PlugMessage - 9292812",
        "sessionName": "Testes testes",
        "deliveryCallbackUrl": f"{hooks}/delivery",
        "receivedCallbackUrl": f"{hooks}/receive",
        "disconnectedCallbackUrl": f"{hooks}/disconnected",
        "connectedCallbackUrl": f"{hooks}/connected",
        "messageStatusCallbackUrl": f"{hooks}/status",
    }
    created: Json = call("POST", f"{base}/instances/integrator/on-demand", body, partner_token)
    say(f"    {json.dumps(created)}")
    return created


def converse(base: str, instance: str, receiver: Receiver) -> None:
    """A customer writes, the shop answers, the customer reads."""
    customer = f"{base}/sandbox/phones/{CUSTOMER_PHONE}"
    say("\n4. A customer writes to the shop")
    call("POST", f"{base}/sandbox/phones", {"number": CUSTOMER_PHONE, "name": "Maria"})
    call("POST", f"{customer}/send", {"to": SHOP_PHONE, "text": "Boa tarde! Tem tomada?"})
    receiver.wait("ReceivedCallback", lambda it: it["type"] == "ReceivedCallback")
    say("\n5. The shop answers through the API")
    sent = call("POST", f"{instance}/send-text", {"phone": CUSTOMER_PHONE, "message": "Temos sim!", "delayMessage": 1})
    say(f"    {json.dumps(sent)}")
    receiver.wait("DeliveryCallback", lambda it: it["type"] == "DeliveryCallback")

    def answer() -> list[Json]:
        return [it for it in call("GET", f"{customer}/messages") if it.get("text") == "Temos sim!"]

    seen = wait_for("the answer on the customer's phone", answer)
    say(f"    on Maria's phone: {seen[0]['text']}")
    call("POST", f"{customer}/read", {"ids": [seen[0]["id"]]})
    for status in ("SENT", "RECEIVED", "READ"):
        receiver.wait(f"status {status}", lambda it, status=status: it.get("status") == status and "ids" in it)  # type: ignore[misc]


def expire(base: str, instance_id: str, instance: str, partner_token: str, receiver: Receiver) -> None:
    """Nobody subscribes; two days pass; the machine is deleted and proves it."""
    say("\n6. Nobody subscribes, and two days pass")
    say(f"    {json.dumps(call('POST', f'{base}/sandbox/clock', {'advanceSeconds': TWO_DAYS_S + 60}))}")
    receiver.wait("DisconnectedCallback", lambda it: it["type"] == "DisconnectedCallback")

    def receipt() -> Json | None:
        found = call("GET", f"{base}/v1/instances/{instance_id}/erasure-receipt", token=partner_token)
        return found if "http_status" not in found else None

    say("    the receipt of what was erased:")
    say(json.dumps(wait_for("the erasure receipt", receipt), indent=2))
    say(f"    GET status now answers: {json.dumps(call('GET', f'{instance}/status'))}")
    linked = call("GET", f"{base}/sandbox/phones/{SHOP_PHONE}")["linkedDevices"]
    say(f"    devices still linked on the shop's phone: {json.dumps(linked)}")
    if linked:
        raise Failed("a ghost device stayed on the phone")


def demo() -> None:
    """The whole product, once, whatever the environment says: nothing of the caller's is touched."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TOMADA_")}
    environment["TOMADA_HTTP_PORT"] = "0"
    receiver = Receiver()
    with tempfile.TemporaryDirectory(prefix="tomada-demo-") as scratch:
        Path(scratch).chmod(0o755)  # as root the database runs under another uid and must reach its directory
        data = Path(scratch, "data")
        say("1. A server with its own PostgreSQL and a simulated WhatsApp network starts")
        with server(data, environment, Path(scratch, "server.log")) as (_, base):
            say(f"    {base}")
            account = create_account(data, environment)
            partner_token = account["partnerToken"]
            say("\n2. An integrator creates an instance: POST /instances/integrator/on-demand")
            created = create_instance(base, partner_token, receiver.url)
            instance = f"{base}/instances/{created['id']}/token/{created['token']}"
            say("\n3. A phone scans its QR code")
            call("POST", f"{base}/sandbox/phones", {"number": SHOP_PHONE, "name": "Loja"})
            qr = call("GET", f"{instance}/qr-code")["value"]
            say(f"    {qr[:60]}...")
            say(f"    {json.dumps(call('POST', f'{base}/sandbox/phones/{SHOP_PHONE}/scan', {'qr': qr}))}")
            receiver.wait("ConnectedCallback", lambda it: it["type"] == "ConnectedCallback")
            converse(base, instance, receiver)
            expire(base, created["id"], instance, partner_token, receiver)
        say("\nEverything happened; the server stopped and nothing is left running.")
    receiver.close()


def serve_by_hand() -> None:
    """`make serve`: the sandbox server on port 8080 (or TOMADA_HTTP_PORT) until Ctrl-C."""
    data = Path(os.environ.get("TOMADA_DATA_DIR") or "data").resolve()
    data.mkdir(parents=True, exist_ok=True)
    token_file = data / "serve-partner-token"
    token = os.environ.get("TOMADA_BOOTSTRAP_PARTNER_TOKEN") or kept_token(token_file)
    environment = {**os.environ, "TOMADA_BOOTSTRAP_PARTNER_TOKEN": token}
    with server(data, environment, data / "server.log") as (child, base):
        if not opens(base, token):  # the data directory has an account already, with another token
            token = create_account(data, dict(os.environ))["partnerToken"]
            token_file.write_text(token)
        say(introduction(base, token, data / "server.log"))
        while child.poll() is None:
            time.sleep(POLL_S)
        raise Failed("the server ended by itself; its log says why")


def opens(base: str, token: str) -> bool:
    """Whether the token is not refused; a base URL that does not lead here (TOMADA_PUBLIC_URL) proves nothing."""
    try:
        reply: Json = call("GET", f"{base}/instances", token=token)
    except Failed:
        return True
    return reply.get("http_status") != 401


def kept_token(path: Path) -> str:
    """The partner token of `make serve`, made at its first start."""
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"tmd_{secrets.token_urlsafe(32)}")
    return path.read_text()


def introduction(base: str, token: str, log: Path) -> str:
    """What `make serve` prints: the line under `Try` works as it stands."""
    create = (
        f"curl -X POST {base}/instances/integrator/on-demand -H 'Content-Type: application/json' "
        f"-H 'Authorization: Bearer {token}' -d '{{\"name\": \"My first instance\"}}'"
    )
    return "\n".join(
        [
            f"Base URL       {base}",
            f"Partner token  {token}",
            f"Log            {log}",
            f"Try            {create}",
            'Then           README.md, "By hand": pair a simulated phone with it, send, receive',
            "Ctrl-C stops it.",
        ]
    )


def main() -> None:
    """Entry of `python -m tomada.demo`. Status 0: all happened, or a serving that was stopped; 1: not; 130: stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", action="store_true", help="serve until Ctrl-C instead of showing the demo")
    by_hand = parser.parse_args().serve
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        serve_by_hand() if by_hand else demo()
    except KeyboardInterrupt:
        sys.exit(0 if by_hand else 130)
    except (Failed, OSError) as error:
        print(
            "\n".join([f"{'serve' if by_hand else 'demo'} failed: {error}", *getattr(error, "__notes__", [])]),
            file=sys.stderr,
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
