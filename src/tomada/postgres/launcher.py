"""The embedded PostgreSQL: started beside the program, restarted when it dies, stopped with it, never left behind.

    async with embedded_server(data_dir) as server:
        pool = await connect(server.dsn)

What it survives, and on what each guarantee rests:

| hazard | what happens | rests on |
| --- | --- | --- |
| started by root | the server runs as an unprivileged account | `account.py`; nothing is created or opened up |
| the program is killed | the server shuts down at once | the kernel's parent-death signal, `child.py` |
| started again before the old server is gone | waits for it | a lock that the server's processes inherit, `locks.py` |
| PostgreSQL, or a part of it, is killed | it is back within a second with all that was committed | `run()` |
| the computer loses power | crash recovery at the next start | fsync, `configuration.py` |
| `initdb` is cut short | done again from nothing | the cluster gets its name by a rename at the end |
| stale `postmaster.pid` whose number is in use again | ignored | the lock, and PG_GRANDPARENT_PID (below) |
| long or unreachable paths | the socket goes elsewhere, the data are named otherwise | `layout.py` |

PostgreSQL refuses to start if `postmaster.pid` names a living process, except itself, its parent and the process that
PG_GRANDPARENT_PID names (made for `pg_ctl`). We hold `server.lock`, so the number in that file is stale whatever it
means today, and we hand it over under that name. Should a server be there after all (started by hand, without our
lock), PostgreSQL still refuses because its shared memory is in use.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from time import monotonic
from urllib.parse import quote

import asyncpg
import structlog

from tomada.postgres import child, configuration, layout, locks
from tomada.postgres.account import Account, own_name, reachable, server_account
from tomada.postgres.errors import DataDirectoryUnusable, EmbeddedServerError, StartFailed
from tomada.postgres.programs import Programs, copy_programs, find_programs

_log = structlog.get_logger(__name__)

_LOG_BYTES_MAX = 8 * 1024 * 1024
_READY_TIMEOUT_S = 600.0
"""Crash recovery of a gigabyte of log on a slow disk takes minutes; a server that is still at it is left alone."""


@contextlib.asynccontextmanager
async def embedded_server(
    data_dir: Path, *, settings: Mapping[str, str] | None = None, search_path: str | None = None
) -> AsyncIterator["EmbeddedServer"]:
    """Runs a PostgreSQL on `data_dir` (made at first use) while the block runs, and keeps it running.

    `settings` overrides PostgreSQL settings; `search_path` stands in for PATH where `postgres` is looked for.
    Must be entered on the main thread. Raises an `EmbeddedServerError` that says what to do.
    """
    server = EmbeddedServer(data_dir, settings or {}, search_path)
    supervisor: asyncio.Task[None] | None = None
    try:
        await server.start()
        supervisor = asyncio.create_task(server.run(), name="embedded-postgresql")
        yield server
    finally:
        if supervisor is not None:
            supervisor.cancel()
            await asyncio.wait([supervisor])
        await server.stop()


class EmbeddedServer:
    """One PostgreSQL on one data directory; see the module. Use `embedded_server`, which pairs start with stop."""

    _account: Account
    _programs: Programs
    _server_lock: int
    _log_fd: int

    def __init__(self, data_dir: Path, settings: Mapping[str, str], search_path: str | None = None) -> None:
        self._data_dir = data_dir.absolute()
        self._cluster = self._data_dir / "cluster"
        self._settings = settings
        self._search_path = search_path
        self._process: subprocess.Popen[bytes] | None = None
        self._with_locks = contextlib.ExitStack()
        self._socket_dir: Path | None = None
        self._programs_dir: Path | None = None
        self.restarts = 0

    @property
    def pid(self) -> int:
        """The process number of the running server; another one after a restart."""
        assert self._process is not None
        return self._process.pid

    @property
    def dsn(self) -> str:
        """Where to connect as the owner of the database; the same over all restarts, without a secret in it."""
        return self.dsn_of(configuration.DATABASE)

    def dsn_of(self, database: str, role: str = configuration.OWNER) -> str:
        """Where to connect to another `database` of this server."""
        host = quote(str(self._socket_dir), safe="/")
        return f"postgresql://{role}@/{quote(database)}?host={host}&port={layout.PORT}"

    async def start(self) -> None:
        """Takes the data directory, makes the cluster if there is none, and returns when connections are accepted."""
        programs = await asyncio.to_thread(find_programs, self._search_path)
        layout.prepare_data_dir(self._data_dir)
        name = own_name()
        self._hold(await locks.lock_launcher(self._data_dir, timeout_s=0.5))
        self._account = server_account(self._cluster)
        self._server_lock = await locks.lock_server(self._data_dir, self._cluster, timeout_s=60.0)
        self._hold(self._server_lock)
        self._socket_dir = layout.prepare_socket_dir(self._data_dir, self._account)
        self._programs = programs
        if not reachable(programs.bin_dir / "postgres", self._account):
            self._programs_dir = layout.prepare_programs_dir(self._data_dir, self._account)
            self._programs = await asyncio.to_thread(copy_programs, programs, self._programs_dir)
        self._log_fd = self._open_log()
        if not self._cluster.exists():
            await self._make_cluster()
        self._check_version()
        configuration.write_access_files(self._cluster, name, self._account)
        await self._launch(attempts_max=6)
        await self._ensure_database()

    async def run(self) -> None:
        """Restarts PostgreSQL whenever it ends, for as long as this runs; the pause between tries grows to 5 s."""
        while True:
            assert self._process is not None
            while not await child.exited(self._process, timeout_s=60.0):
                self._trim_log()
            _log.error("postgresql_died", pid=self._process.pid, exit=self._process.returncode)
            began = monotonic()
            await self._launch(attempts_max=None)
            self.restarts += 1
            _log.warning("postgresql_restarted", pid=self._process.pid, after_s=round(monotonic() - began, 3))

    async def stop(self) -> None:
        """Fast shutdown; everything that was committed is on disk. Releases the data directory."""
        try:
            if self._process is not None:
                await child.stop(self._process)
            layout.clear(self._data_dir, self._socket_dir, self._programs_dir)
        finally:
            self._with_locks.close()

    async def _launch(self, attempts_max: int | None) -> None:
        """Starts the server until it is ready; a killed predecessor's processes may stand in the way for a moment."""
        attempt = 0
        while True:
            attempt += 1
            try:
                await self._launch_once()
            except (StartFailed, OSError) as error:
                if attempt == attempts_max:
                    raise
                _log.warning("postgresql_start_failed", attempt=attempt, error=str(error))
                await asyncio.sleep(min(5.0, 0.05 * 2**attempt))
            else:
                return

    async def _launch_once(self) -> None:
        assert self._socket_dir is not None
        socket_dir = self._socket_dir
        stale_pid = locks.postmaster_pid(self._cluster)
        log_offset = os.fstat(self._log_fd).st_size
        self._process = process = self._spawn(
            lambda data: configuration.server_command(self._programs, data, socket_dir, self._settings),
            self._cluster,
            environment={"PG_GRANDPARENT_PID": str(stale_pid)} if stale_pid else {},
            death_signal=signal.SIGINT,
        )
        deadline = monotonic() + _READY_TIMEOUT_S
        while not locks.is_ready(self._cluster, process.pid):
            if await child.exited(process, timeout_s=0.0):
                raise StartFailed(f"PostgreSQL ended with {process.returncode}: {self._log_tail(log_offset)}")
            if monotonic() > deadline:
                await child.stop(process)
                raise StartFailed(f"PostgreSQL was not ready in time: {self._log_tail(log_offset)}")
            await asyncio.sleep(0.01)

    def _spawn(
        self,
        command: Callable[[str], list[str]],
        cluster: Path,
        *,
        environment: Mapping[str, str],
        death_signal: signal.Signals,
    ) -> subprocess.Popen[bytes]:
        """Starts what `command` makes of the name under which the child finds `cluster`."""
        cluster_fd = os.open(cluster, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return child.spawn(
                command(layout.data_argument(cluster, self._account, cluster_fd)),
                account=self._account,
                output_fd=self._log_fd,
                environment=environment,
                keep_fds=[self._server_lock, cluster_fd],
                death_signal=death_signal,
            )
        finally:
            os.close(cluster_fd)

    async def _make_cluster(self) -> None:
        """`initdb` into a directory that gets its final name only when it is complete and on disk."""
        partial = self._data_dir / "cluster.new"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        if self._account.foreign:
            os.chown(partial, self._account.uid, self._account.gid)
        log_offset = os.fstat(self._log_fd).st_size
        process = self._spawn(
            lambda data: configuration.initdb_command(self._programs, data),
            partial,
            environment={},
            death_signal=signal.SIGKILL,
        )
        try:
            await child.exited(process, poll_s=0.01)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode != 0:
            raise StartFailed(f"initdb ended with {process.returncode}: {self._log_tail(log_offset)}")
        partial.rename(self._cluster)

    async def _ensure_database(self) -> None:
        """The roles and the database that the program uses; made once, looked for at every start."""
        admin = await asyncpg.connect(self.dsn_of("postgres", configuration.ADMIN), timeout=30.0)
        try:
            owner, database = configuration.OWNER, configuration.DATABASE
            if not await admin.fetchval("select 1 from pg_roles where rolname = $1", owner):
                await admin.execute(f"create role {owner} login createdb")
            if not await admin.fetchval("select 1 from pg_roles where rolname = $1", configuration.MACHINE):
                await admin.execute(f"create role {configuration.MACHINE} login")
                await admin.execute(f"grant {configuration.MACHINE} to {owner}")
            if not await admin.fetchval("select 1 from pg_database where datname = $1", database):
                await admin.execute(f"create database {database} owner {owner}")
        finally:
            await admin.close(timeout=5.0)

    def _check_version(self) -> None:
        made_by = (self._cluster / "PG_VERSION").read_text().strip()
        if made_by != str(self._programs.major):
            raise DataDirectoryUnusable(
                f"{self._cluster} was made by PostgreSQL {made_by}, and the programs found here are "
                f"{self._programs.version}. Install the package of the old version again, and see "
                "docs/adr/0003-embedded-postgresql.md for the way to a new one."
            )

    def _hold(self, fd: int) -> None:
        self._with_locks.callback(os.close, fd)

    def _open_log(self) -> int:
        fd = os.open(self._data_dir / "server.log", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._hold(fd)
        return fd

    def _trim_log(self) -> None:
        """Bounds `server.log`. It is opened for appending, so cutting it under the server's feet is safe."""
        if os.fstat(self._log_fd).st_size > _LOG_BYTES_MAX:
            os.ftruncate(self._log_fd, 0)

    def _log_tail(self, offset: int) -> str:
        text = os.pread(self._log_fd, 65536, offset).decode(errors="replace")
        return " | ".join(text.strip().splitlines()[-6:]) or "it said nothing"


__all__ = ["EmbeddedServer", "EmbeddedServerError", "embedded_server"]
