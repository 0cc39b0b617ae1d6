"""The command line and the two make targets as people meet them: real processes, clear words, nothing left behind."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.acceptance.product import TOMADA, Account, Product, Reply, http, running, wait_for

TIMEOUT_S = 60.0


def environment(**settings: str) -> dict[str, str]:
    """This process's environment without any setting of Tomada but these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TOMADA_")}
    return {**kept, **{f"TOMADA_{name.upper()}": value for name, value in settings.items()}}


def tomada(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """One command, to its end."""
    return subprocess.run(
        [*TOMADA, *arguments],
        capture_output=True,
        text=True,
        env=environment(**settings),
        timeout=TIMEOUT_S,
        check=False,
    )


def words(done: subprocess.CompletedProcess[str]) -> str:
    """What it said to people: standard error without log lines. A refusal is one line and no traceback."""
    said = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert done.returncode == 1, done
    assert done.stdout == ""
    assert len(said) == 1, done.stderr
    assert said[0].startswith("tomada: ")
    return said[0]


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """What it said to programs."""
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("trial_hours", "two", "TOMADA_TRIAL_HOURS: write a number"),
        ("sandbox", "maybe", "TOMADA_SANDBOX: write 1 or 0"),
        ("datadir", "/tmp", "did you mean TOMADA_DATA_DIR?"),
        ("secret_key", "zz", "TOMADA_SECRET_KEY"),
        ("public_url", "tomada.example.com", "TOMADA_PUBLIC_URL"),
        ("send_delay_s", "3-1", "TOMADA_SEND_DELAY_S"),
        ("bootstrap_partner_token", "short", "24 characters"),
        ("database_url", "mysql://db/tomada", "TOMADA_DATABASE_URL: not understood"),
        ("database_url", "postgresql://127.0.0.1:1/tomada", "did not answer: Connection refused"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line(tmp_path: Path, name: str, value: str, expected: str) -> None:
    """Status 1, the setting's name, what is wrong; no traceback."""
    assert expected in words(tomada("serve", "--port", "0", **{"data_dir": str(tmp_path), name: value}))


def test_an_address_with_a_password_is_not_shown(tmp_path: Path) -> None:
    """A password that makes the address unreadable is likely to stand in the error's text."""
    done = tomada("accounts", "list", data_dir=str(tmp_path), database_url="postgresql://u:hun/ter2@db:5432/tomada")

    assert "hun" not in words(done)


@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("accounts", "list"), ("audit", "verify")])
def test_a_data_directory_that_cannot_be_used(tmp_path: Path, command: tuple[str, ...]) -> None:
    """A file in its place; a folder where nobody can make one."""
    occupied = tmp_path / "file"
    occupied.touch()

    assert "is not a directory" in words(tomada(*command, "--data", str(occupied)))
    assert "TOMADA_DATA_DIR" in words(tomada(*command, "--data", "/proc/tomada"))


def test_a_port_in_use(tmp_path: Path) -> None:
    """The port is named, and nothing of the start remains."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = tomada("serve", "--port", str(port), "--data", str(tmp_path / "data"))

    assert f"cannot listen on 127.0.0.1:{port}" in words(done)
    assert not (tmp_path / "data" / "database.address").exists()


def test_a_second_server_on_the_same_data_directory(product: Product) -> None:
    """It is refused, and the first does not notice."""
    done = tomada("serve", "--sandbox", "--port", "0", "--data", str(product.data))

    assert "one data directory serves one program" in words(done)
    assert http("GET", f"{product.base}/ready").status == 200


def test_a_data_directory_is_of_one_network(product: Product) -> None:
    """Real sessions would lose their keys in the sandbox, and simulated ones would knock at WhatsApp."""
    done = tomada("serve", "--port", "0", "--data", str(product.data))

    assert "belongs to the sandbox" in words(done)


def test_a_database_without_its_key_is_refused(tmp_path: Path) -> None:
    """Restored without secret.key, nothing is served or sealed under a new key; with it all is as it was."""
    data = tmp_path / "data"
    lines(tomada("accounts", "create", "Shop", "--data", str(data)))
    key = data / "secret.key"
    saved = key.rename(tmp_path / "backup")

    assert "another key" in words(tomada("serve", "--port", "0", "--data", str(data)))
    assert "another key" in words(tomada("accounts", "create", "New", "--data", str(data)))
    assert not key.exists()  # or the next backup would take a wrong one along
    saved.rename(key)
    assert [account["name"] for account in lines(tomada("accounts", "list", "--data", str(data)))] == ["Shop"]


def test_accounts_without_a_server(tmp_path: Path) -> None:
    """Each command starts the database for itself; tokens are shown once; names keep their accents."""
    data = ["--data", str(tmp_path / "data")]

    made = lines(tomada("accounts", "create", "Loja São João", "--limit", "3", "--client-token", *data))[0]
    rotated = lines(tomada("accounts", "rotate-token", made["id"], *data))[0]
    listed = lines(tomada("accounts", "list", *data))
    audited = lines(tomada("audit", "verify", *data))

    assert made["name"] == "Loja São João"
    assert made["clientToken"]
    assert rotated["partnerToken"] != made["partnerToken"]
    assert [(account["id"], account["limit"]) for account in listed] == [(made["id"], 3)]
    assert made["partnerToken"] not in json.dumps(listed)
    assert [(chain["id"], chain["wrong"]) for chain in audited] == [(made["id"], "")]
    assert words(tomada("accounts", "rotate-token", "NOBODY", *data)) == "tomada: Account not found"
    assert "name" in words(tomada("accounts", "create", "", *data))


def test_a_command_that_makes_a_new_directory_says_so(tmp_path: Path) -> None:
    """Typed where the server's directory was not exported, it works on another, whose tokens that server refuses."""
    command = [*TOMADA, "accounts", "create", "Shop"]
    told = []
    for _ in range(2):
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, env=environment(), timeout=TIMEOUT_S, check=False
        )
        assert lines(done)[0]["name"] == "Shop"
        told.append([line for line in done.stderr.splitlines() if line.startswith("tomada: ")])

    ((note,), nothing) = told
    assert nothing == []
    assert str(tmp_path / "data") in note
    assert "--data DIR or TOMADA_DATA_DIR" in note


def test_heads_that_were_noted(tmp_path: Path) -> None:
    """A head given back later is looked for: still there, or named with status 1; what is no hash is wrong usage."""
    data = ["--data", str(tmp_path / "data")]
    made = lines(tomada("accounts", "create", "Shop", *data))[0]
    head = lines(tomada("audit", "verify", *data))[0]["head"]
    lines(tomada("accounts", "limits", made["id"], "--instances", "3", *data))

    assert [chain["rows"] for chain in lines(tomada("audit", "verify", "--noted", head, *data))] == [2]
    other = head[:-2] + ("00" if head[-2:] != "00" else "ff")
    done = tomada("audit", "verify", "--noted", head, other, *data)
    assert done.returncode == 1
    assert [json.loads(line).get("noted") for line in done.stdout.splitlines()] == [None, other]
    assert tomada("audit", "verify", "--noted", "x", *data).returncode == 2


def test_accounts_beside_a_server(product: Product) -> None:
    """What a command changes holds at once for the running server."""
    data = ["--data", str(product.data)]
    made = lines(tomada("accounts", "create", "Beside", *data))[0]
    old = Account(product, made["id"], made["partnerToken"], None)
    assert old.get("/instances").status == 200

    rotated = lines(tomada("accounts", "rotate-token", made["id"], "--overlap-hours", "0", *data))[0]

    assert old.get("/instances").status == 401
    assert Account(product, made["id"], rotated["partnerToken"], None).get("/instances").status == 200
    assert made["id"] in {account["id"] for account in lines(tomada("accounts", "list", *data))}


@pytest.mark.parametrize("when", ["data", "cluster", "address"])
def test_a_stop_during_the_start(tmp_path: Path, when: str) -> None:
    """SIGTERM before the server is ready ends the start with status 0, and leaves no process."""
    data = tmp_path / "data"
    sign = {"data": data / "secret.key", "cluster": data / "postgres/cluster", "address": data / "database.address"}
    server = subprocess.Popen(
        [*TOMADA, "serve", "--sandbox", "--port", "0", "--data", str(data)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    try:
        wait_for("the start has come so far", sign[when].exists)
        family = psutil.Process(server.pid).children(recursive=True)
        server.terminate()
        _, errors = server.communicate(timeout=TIMEOUT_S)
    finally:
        server.kill()

    assert server.returncode == 0, errors.decode()
    wait_for("all processes gone", lambda: not [one for one in family if one.is_running()], 15)


def test_ready_while_the_database_is_frozen(tmp_path: Path) -> None:
    """/ready says 503 within seconds instead of waiting along; /health goes on; both are well again afterwards."""
    with running(tmp_path / "data") as product:
        (server,) = [one for one in psutil.Process(product.pid).children() if "postgres" in one.name()]
        server.suspend()  # first: from then on it starts no further process
        database = [server, *server.children()]
        for process in database:
            process.suspend()
        try:
            wait_for("503", lambda: http("GET", f"{product.base}/ready", timeout_s=5).status == 503, 10)
            alive = http("GET", f"{product.base}/health", timeout_s=10)
        finally:
            for process in database:
                process.resume()
        wait_for("ready again", lambda: http("GET", f"{product.base}/ready").status == 200)

    assert alive.status == 200


@contextlib.contextmanager
def serving_by_hand(**settings: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """`make serve` with what it printed, by the words that the lines begin with."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tomada.demo", "--serve"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(http_port="0", **settings),
    )
    assert child.stdout is not None
    printed: dict[str, str] = {}
    try:
        for line in child.stdout:
            name, _, value = line.rstrip("\n").partition("  ")
            printed[name] = value.strip()
            if line.startswith("Ctrl-C"):
                break
        yield child, printed
    finally:
        child.terminate()
        child.communicate(timeout=TIMEOUT_S)


@pytest.mark.parametrize("before", ["nothing", "an account"])
def test_make_serve_prints_a_line_that_works(tmp_path: Path, before: str) -> None:
    """Its curl line creates an instance, also on a data directory that has accounts already; SIGTERM ends it with 0."""
    data = tmp_path / "data"
    if before == "an account":
        lines(tomada("accounts", "create", "First", "--data", str(data)))

    with serving_by_hand(data_dir=str(data)) as (child, printed):
        assert "Base URL" in printed, child.communicate()
        created = subprocess.run(
            ["bash", "-c", f"{printed['Try']} --silent"], capture_output=True, timeout=TIMEOUT_S, check=True
        )
        family = psutil.Process(child.pid).children(recursive=True)
        child.terminate()
        status = child.wait(TIMEOUT_S)

    assert set(json.loads(created.stdout)) == {"id", "token", "due"}
    assert status == 0
    wait_for("all processes gone", lambda: not [one for one in family if one.is_running()], 15)


def test_make_serve_twice_and_killed(tmp_path: Path) -> None:
    """The second is told why not and leaves the first one's log alone; kill -9 of the first takes its server along."""
    data = tmp_path / "data"
    with serving_by_hand(data_dir=str(data)) as (child, printed):
        log = Path(printed["Log"])
        size = log.stat().st_size
        second = subprocess.run(
            [sys.executable, "-m", "tomada.demo", "--serve"],
            capture_output=True,
            text=True,
            env=environment(data_dir=str(data), http_port="0"),
            timeout=TIMEOUT_S,
            check=False,
        )
        family = psutil.Process(child.pid).children(recursive=True)
        child.kill()
        wait_for("all processes gone", lambda: not [one for one in family if one.is_running()], 30)

    assert second.returncode == 1
    assert "one data directory serves one program" in second.stderr
    assert "Traceback" not in second.stderr
    assert log.stat().st_size > size


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 112 MB; PostgreSQL takes 42 of them to begin with."""
    disk = tmp_path / "disk"
    disk.mkdir(mode=0o755)
    command = ["mount", "-t", "tmpfs", "-o", "size=112m,mode=755", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("may not mount a file system")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Take every block of it; removing the answer gives them back."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(b"\0" * 4096):
            pass
    return ballast


def test_a_full_disk(small_disk: Path) -> None:
    """With no block left, a send is refused with a JSON error or kept; the server is back when there is space again."""
    with running(small_disk / "data") as product:
        instance = product.create_account().create_instance()
        ballast = fill(small_disk)
        replies = [_send(instance.url("send-text"), number) for number in range(400)]
        accepted = [reply.body["zaapId"] for reply in replies if reply.status == 200]
        refused = [reply for reply in replies if reply.status != 200]
        ballast.unlink()
        wait_for("ready again", lambda: http("GET", f"{product.base}/ready").status == 200, 60)
        after = _send(instance.url("send-text"), 1000)
        waiting = {
            item["ZaapId"]
            for page in range(1, 30)
            for item in instance.get(f"queue?page={page}&pageSize=30").body["messages"]
        }

    assert refused, "the disk was never full for the database"
    assert {reply.status for reply in refused} <= {500, 503}
    assert all(isinstance(reply.body["error"], str) for reply in refused)
    assert after.status == 200
    assert set(accepted) <= waiting


def _send(url: str, number: int) -> Reply:
    return http("POST", url, {"phone": "5511999990001", "message": f"{number} " + os.urandom(20_000).hex()})
