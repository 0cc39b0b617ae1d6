"""How the embedded server is set up: settings with their reasons, who may connect, and what a new cluster looks like.

Settings are given on the command line at every start, so that none of them can drift in a file. Nobody is trusted:
the only way in is the socket in a directory of 0700, and there the kernel tells PostgreSQL which account is calling
(`peer`). That account may be `postgres` (superuser, used by the launcher alone, once), `tomada`, which owns the
database and is no superuser, so that the embedded server allows nothing that an external one would refuse, or
`tomada_machine`, which sees the machines' session store alone (machine_role.py).
"""

import os
from collections.abc import Mapping
from pathlib import Path

from tomada.postgres import machine_role
from tomada.postgres.account import Account
from tomada.postgres.layout import PORT
from tomada.postgres.programs import Programs

ADMIN = "postgres"
OWNER = "tomada"
MACHINE = machine_role.ROLE
DATABASE = "tomada"

_HBA = "# written by Tomada at every start\nlocal all all peer map=tomada\n"

_SETTINGS: dict[str, str] = {
    "listen_addresses": "",  # the socket is the only way in
    "unix_socket_permissions": "0700",
    "port": str(PORT),
    "max_connections": "64",  # pools of a few roles plus the machines' session stores; each idle one costs memory
    "shared_buffers": "64MB",  # 13 MB resident when idle; the operating system caches the rest
    "fsync": "on",  # "accepted" must survive a power cut
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "min_wal_size": "32MB",  # an empty server stays small on disk
    "max_wal_size": "1GB",
    "checkpoint_timeout": "15min",  # fewer full-page images; recovery stays short because max_wal_size bounds it
    "jit": "off",  # our queries are short; compiling costs more than it saves
    "TimeZone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "log",  # errors of statements are the caller's to log; here only what concerns the server
    "log_min_error_statement": "panic",  # no statement, hence no personal data, in the log
    "log_checkpoints": "off",
    "logging_collector": "off",  # it writes to our file (`server.log`)
    "log_destination": "stderr",
    "log_line_prefix": "%m [%p] ",
    "cluster_name": "tomada",  # what `ps` shows
    "idle_in_transaction_session_timeout": "60s",  # a frozen client must not hold locks for ever
    # One killed backend ends the whole server, and the launcher starts it again, as it does when the postmaster is
    # killed. PostgreSQL could restart itself, but 18.6 never ends if it is told to stop during that very recovery.
    "restart_after_crash": "off",
}

_SETTINGS_SINCE: dict[int, dict[str, str]] = {
    18: {"io_method": "sync"},  # no worker processes for asynchronous reads: less memory, and our data are cached
}


def initdb_command(programs: Programs, data_argument: str) -> list[str]:
    """The command that makes a new cluster: UTF-8, compared byte by byte on every system alike."""
    locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    return [
        str(programs.bin_dir / "initdb"),
        f"--pgdata={data_argument}",
        f"--username={ADMIN}",
        "--auth=peer",
        "--encoding=UTF8",
        *(locale if programs.major >= 17 else ["--locale=C.UTF-8"]),
        "--no-instructions",
    ]


def server_command(programs: Programs, data_argument: str, socket_dir: Path, overrides: Mapping[str, str]) -> list[str]:
    """The command that runs the server in the foreground."""
    settings = {**_SETTINGS, "unix_socket_directories": str(socket_dir)}
    for major, newer in _SETTINGS_SINCE.items():
        if programs.major >= major:
            settings |= newer
    settings |= overrides
    settings |= {"hba_file": f"{data_argument}/pg_hba.conf", "ident_file": f"{data_argument}/pg_ident.conf"}
    arguments = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
    return [str(programs.bin_dir / "postgres"), "-D", data_argument, *arguments]


def write_access_files(cluster: Path, own_name: str, account: Account) -> None:
    """Lets `own_name`, and no other operating-system account, in as `postgres` or `tomada`."""
    quoted = '"' + own_name.replace('"', '""') + '"'
    ident = "".join(f"tomada {quoted} {role}\n" for role in (ADMIN, OWNER, MACHINE))
    for name, text in (("pg_hba.conf", _HBA), ("pg_ident.conf", ident)):
        path = cluster / name
        if path.exists() and path.read_text() == text:
            continue
        partial = cluster / f"{name}.new"
        partial.write_text(text)
        partial.chmod(0o600)
        if account.foreign:
            os.chown(partial, account.uid, account.gid)
        partial.replace(path)
