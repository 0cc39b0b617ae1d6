"""The command `tomada`: serve, and look after accounts.

    tomada serve [--sandbox] [--port N] [--data DIR]
    tomada accounts create NAME [--limit N] [--client-token]
    tomada accounts list
    tomada accounts rotate-token ID
    tomada audit verify

What a program may want to read goes to standard output as JSON lines; logs and errors for people go to standard error.
Exit status: 0 done, 1 refused or failed, 2 wrong usage.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Coroutine, Sequence

import uvloop

from tomada import administration, app
from tomada.errors import TomadaError
from tomada.kit import logs
from tomada.postgres.errors import EmbeddedServerError
from tomada.settings import Settings, SettingsError, load


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; ends the process with its exit status."""
    parsed = _parser().parse_args(arguments)
    try:
        settings = load(_environment(parsed))
        logs.configure(settings.log_level)
        sys.exit(uvloop.run(_command(parsed, settings)))
    except (SettingsError, TomadaError, EmbeddedServerError) as error:
        print(f"tomada: {error}", file=sys.stderr)
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tomada", description="A self-hosted PlugzAPI. Settings: docs/settings.md.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="run everything on this computer")
    serve.add_argument("--sandbox", action="store_true", help="with the simulated WhatsApp network")
    serve.add_argument("--port", type=int, help="port to listen on; 0 picks a free one")
    serve.add_argument("--data", metavar="DIR", help="data directory")
    accounts = commands.add_parser("accounts", help="integrators").add_subparsers(dest="action", required=True)
    create = accounts.add_parser("create", help="a new integrator with its partner token")
    create.add_argument("name")
    create.add_argument("--limit", type=int, metavar="N", help="instances at most")
    create.add_argument("--client-token", action="store_true", help="demand the header Client-Token on instance calls")
    accounts.add_parser("list", help="all integrators, one JSON line each")
    rotate = accounts.add_parser("rotate-token", help="a new partner token; the old one ends at once")
    rotate.add_argument("id")
    audit = commands.add_parser("audit", help="the audit log").add_subparsers(dest="action", required=True)
    audit.add_parser("verify", help="check the chain of hashes")
    return parser


def _environment(parsed: argparse.Namespace) -> dict[str, str]:
    """The environment, with what the command line says on top."""
    environment = dict(os.environ)
    if getattr(parsed, "sandbox", False):
        environment["TOMADA_SANDBOX"] = "1"
    if getattr(parsed, "port", None) is not None:
        environment["TOMADA_HTTP_PORT"] = str(parsed.port)
    if getattr(parsed, "data", None):
        environment["TOMADA_DATA_DIR"] = parsed.data
    return environment


def _command(parsed: argparse.Namespace, settings: Settings) -> Coroutine[object, object, int]:
    if parsed.command == "serve":
        return _serve(settings)
    if parsed.command == "audit":
        return administration.verify_audit(settings, _out)
    if parsed.action == "create":
        return administration.create_account(settings, parsed.name, parsed.limit, parsed.client_token, _out)
    if parsed.action == "list":
        return administration.list_accounts(settings, _out)
    return administration.rotate_token(settings, parsed.id, _out)


async def _serve(settings: Settings) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with app.running(settings) as url:
        _out({"url": url, "data": str(settings.data_path), "sandbox": settings.sandbox})
        await stop.wait()
    return 0


def _out(line: object) -> None:
    print(json.dumps(line, ensure_ascii=False), flush=True)
