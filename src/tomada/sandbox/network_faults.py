"""Carrying out faults on the connections that exist (see `faults` for what they are)."""

from __future__ import annotations

from typing import Any

from tomada.sandbox.connection import Connection
from tomada.sandbox.faults import SINGLE, FaultSpec, parse_fault
from tomada.sandbox.network_state import World
from tomada.sandbox.node import SERVER, Attrs, Node, element, user_jid

_DEFAULT_STREAM_ERROR = 503


def apply_fault(world: World, connections: set[Connection], body: Any) -> dict[str, Any]:
    """Do what the decoded JSON asks for; returns the fault and how many connections it struck at once.

    Raises `FaultError` for a request that makes no sense.
    """
    spec = parse_fault(body)
    if spec.kind not in SINGLE:
        world.faults.add(spec)
    struck = [connection for connection in connections if spec.number in (None, connection.account_number)]
    hit = [connection for connection in struck if _strike(world, connection, spec)]
    return {"kind": spec.kind, "number": spec.number, "struck": len(hit)}


def _strike(world: World, connection: Connection, spec: FaultSpec) -> bool:
    """Act on one connection; a ban and an outdated client show at the next log-in, so those are cut."""
    if spec.kind in ("drop", "ban", "outdated"):
        connection.abort()
    elif not connection.account_number:
        return False
    elif spec.kind == "replaced":
        connection.close(_stream_error(None, "replaced"))
    elif spec.kind == "stream-error":
        connection.close(_stream_error(spec.code or _DEFAULT_STREAM_ERROR, None))
    elif spec.kind == "server-error-receipt":
        connection.push(_server_error(world, connection))
    else:
        return False
    return True


def _stream_error(code: int | None, conflict: str | None) -> Node:
    body = [element("conflict", {"type": conflict})] if conflict else None
    return element("stream:error", {"code": code}, body)


def _server_error(world: World, connection: Connection) -> Node:
    """What the real server sends when a medium cannot be had any more."""
    sender = user_jid(connection.account_number) if connection.account_number else SERVER
    head: Attrs = {"from": sender, "id": world.fresh_id(), "type": "server-error", "t": world.now_s()}
    return element("receipt", head, [element("error", {"code": 404})])
