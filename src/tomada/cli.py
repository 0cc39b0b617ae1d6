"""The command `tomada`: serve, and look after accounts.

    tomada serve [--sandbox] [--port N] [--data DIR]
    tomada accounts create NAME [--limit N] [--client-token]
    tomada accounts list
    tomada accounts limits ID [--instances N] [--created-per-day N|none] [--messages-per-minute N|none]
    tomada accounts client-token ID on|off
    tomada accounts rotate-token ID [--overlap-hours H]
    tomada accounts rotate-signing-secret ID [--overlap-hours H]
    tomada accounts end-overlap ID
    tomada accounts suspend ID [--days D]
    tomada accounts resume ID
    tomada audit verify [--noted HASH ...]

Every command takes --data DIR; beside a server it must be the server's. What a program may want to read goes to
standard output as JSON lines; logs and errors for people go to standard error. Exit status: 0 done, 1 refused or
failed, 2 wrong usage.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from typing import Any, NoReturn

import uvloop

from tomada import administration, app
from tomada.accounts.manage import OVERLAP_HOURS_DEFAULT
from tomada.errors import TomadaError
from tomada.kit import logs
from tomada.kit.machine_program import MachineUnusable
from tomada.postgres.errors import EmbeddedServerError
from tomada.settings import Settings, SettingsError, load

_LIMITS = ("instances_max", "created_per_day_max", "messages_per_minute_max")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; ends the process with its exit status."""
    parsed = _parser().parse_args(arguments)
    try:
        settings = load(_environment(parsed))
        logs.configure(settings.log_level)
        is_new = parsed.command != "serve" and not settings.database_url and not settings.data_path.exists()
        status = uvloop.run(_command(parsed, settings))
        if is_new:
            _note(
                f"{settings.data_path} is new. A server that runs on another directory does not know what was made "
                "here; --data DIR or TOMADA_DATA_DIR names its directory"
            )
        sys.exit(status)
    except (SettingsError, TomadaError, EmbeddedServerError, MachineUnusable) as error:
        _refuse(str(error))
    except OSError as error:  # a full disk, a directory that is not ours: the system's words say it
        if settings.log_level == "debug":
            raise
        _refuse(f"{error} (TOMADA_LOG_LEVEL=debug shows where)")
    except KeyboardInterrupt:
        sys.exit(130)


def _note(words: str) -> None:
    print(f"tomada: {words}", file=sys.stderr)


def _refuse(words: str) -> NoReturn:
    _note(words)
    sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tomada", description="A self-hosted PlugzAPI. Settings: docs/settings.md.")
    anywhere = argparse.ArgumentParser(add_help=False)
    anywhere.add_argument("--data", metavar="DIR", help="data directory; default TOMADA_DATA_DIR, else ./data")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", parents=[anywhere], help="run everything on this computer")
    serve.add_argument("--sandbox", action="store_true", help="with the simulated WhatsApp network")
    serve.add_argument("--port", type=int, help="port to listen on; 0 picks a free one")
    accounts = commands.add_parser("accounts", help="integrators").add_subparsers(dest="action", required=True)
    create = accounts.add_parser("create", parents=[anywhere], help="a new integrator with its partner token")
    create.add_argument("name")
    create.add_argument("--limit", type=int, metavar="N", help="instances at most")
    create.add_argument("--client-token", action="store_true", help="demand the header Client-Token on instance calls")
    accounts.add_parser("list", parents=[anywhere], help="all integrators, one JSON line each")
    _add_changes(accounts, anywhere)
    audit = commands.add_parser("audit", help="the audit log").add_subparsers(dest="action", required=True)
    verify = audit.add_parser("verify", parents=[anywhere], help="check the chain of hashes")
    verify.add_argument("--noted", nargs="+", type=bytes.fromhex, default=[], metavar="HASH", help="heads from earlier")
    return parser


def _add_changes(accounts: Any, anywhere: argparse.ArgumentParser) -> None:
    """The commands on one account; docs/accounts.md says what each brings about."""

    def command(name: str, words: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = accounts.add_parser(name, parents=[anywhere], help=words)
        added.add_argument("id")
        return added

    limits = command("limits", "set limits; none takes one away")
    limits.add_argument("--instances", type=int, metavar="N", dest="instances_max")
    limits.add_argument("--created-per-day", type=_limit, metavar="N", dest="created_per_day_max")
    limits.add_argument("--messages-per-minute", type=_limit, metavar="N", dest="messages_per_minute_max")
    command("client-token", "demand the header Client-Token, or no more").add_argument("switch", choices=("on", "off"))
    for name, words in (
        ("rotate-token", "a new partner token; the old one works on for a while"),
        ("rotate-signing-secret", "a new secret for signing callbacks, beside the old one for a while"),
    ):
        command(name, words).add_argument(
            "--overlap-hours",
            type=float,
            metavar="H",
            default=OVERLAP_HOURS_DEFAULT,
            help="default 24; 0: ends at once",
        )
    command("end-overlap", "the old partner token and signing secret end now")
    command("suspend", "it does not pay: its instances stop now, and end after some days").add_argument(
        "--days", type=float, metavar="D"
    )
    command("resume", "it has paid")


def _limit(text: str) -> int | str:
    """A number; `none` stays a text, because argparse means not given by None."""
    return text if text == "none" else int(text)


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
        return administration.verify_audit(settings, parsed.noted, _out)
    return _account_command(parsed, settings)


def _account_command(parsed: argparse.Namespace, settings: Settings) -> Coroutine[object, object, int]:
    match parsed.action:
        case "create":
            return administration.create_account(settings, parsed.name, parsed.limit, parsed.client_token, _out)
        case "list":
            return administration.list_accounts(settings, _out)
        case "limits":
            given = {name: getattr(parsed, name) for name in _LIMITS if getattr(parsed, name) is not None}
            limits = {name: None if value == "none" else value for name, value in given.items()}
            return administration.set_limits(settings, parsed.id, limits, _out)
        case "client-token":
            return administration.set_client_token(settings, parsed.id, parsed.switch == "on", _out)
        case "rotate-token":
            return administration.rotate_token(settings, parsed.id, parsed.overlap_hours, _out)
        case "rotate-signing-secret":
            return administration.rotate_signing_secret(settings, parsed.id, parsed.overlap_hours, _out)
        case "end-overlap":
            return administration.end_overlap(settings, parsed.id, _out)
        case "suspend":
            return administration.suspend(settings, parsed.id, parsed.days, _out)
        case _:
            return administration.resume(settings, parsed.id, _out)


async def _serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; one that comes during the start ends the start."""
    task = asyncio.current_task()
    assert task is not None
    stop, starting = asyncio.Event(), True

    def asked() -> None:
        if starting and not stop.is_set():  # once: a second cancel would cut short the cleaning up
            task.cancel()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked)
    try:
        async with app.running(settings) as url:
            starting = False
            _out({"url": url, "data": str(settings.data_path), "sandbox": settings.sandbox})
            await stop.wait()
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
    return 0


def _out(line: object) -> None:
    print(json.dumps(line, ensure_ascii=False), flush=True)
