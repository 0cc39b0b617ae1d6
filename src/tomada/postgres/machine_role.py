"""A role and a schema for the machines' session store, so that a machine sees keys and nothing else of the database.

The role owns the schema and has no right anywhere else: not to our tables, and not to make others. Our own role is a
member of it, since an instance's keys are erased by us (machines/keys.py).

On the embedded server the launcher makes the role, and it is let in by the kernel's word for who is calling, like our
own (configuration.py). On an external one we make it, with a password that follows from the sealing key: so every start
and every node knows it, and no file holds it. Whoever runs a server where we may not make roles makes it once by hand;
without one the machines take our own role, and the log says how to do better.
"""

from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
import structlog

log = structlog.get_logger(__name__)

ROLE = "tomada_machine"
SCHEMA = "machine"

_BY_HAND = (
    f"create role {ROLE} login; grant {ROLE} to <the role of TOMADA_DATABASE_URL>; and let that role set its password: "
    f"grant {ROLE} to <that role> with admin option"
)


async def machine_dsn(dsn: str, password: str | None) -> str:
    """Make role and schema where they are missing; the address under which machines reach their store.

    `password` None: the server lets the role in without one (the embedded server), where it is there already.
    """
    connection = await asyncpg.connect(dsn, timeout=60.0)
    try:
        role = await _role(connection, password)
        await connection.execute(f"create schema if not exists {SCHEMA} authorization {role}")
    finally:
        await connection.close(timeout=5.0)
    return _as_role(dsn, ROLE, password) if role == ROLE else dsn


async def _role(connection: "asyncpg.Connection[asyncpg.Record]", password: str | None) -> str:
    """The role that machines shall have: theirs, or ours where it cannot be had."""
    if password is None:
        return ROLE
    try:
        if not await connection.fetchval("select true from pg_roles where rolname = $1", ROLE):
            await connection.execute(f"create role {ROLE} login")
        if not await connection.fetchval("select pg_has_role(current_user, $1, 'USAGE')", ROLE):
            await connection.execute(f"grant {ROLE} to current_user")
        await connection.execute(f"alter role {ROLE} login password '{password}'")  # hex digits only
    except asyncpg.InsufficientPrivilegeError:
        log.warning("machine_role.not_made", effect="machines use our own role", by_hand=_BY_HAND)
        return "current_user"
    return ROLE


def _as_role(dsn: str, role: str, password: str | None) -> str:
    """The same address for another role."""
    parts = urlsplit(dsn)
    hosts = parts.netloc.rpartition("@")[2]
    user = role if password is None else f"{role}:{quote(password, safe='')}"
    query = "&".join(item for item in parts.query.split("&") if item and not item.startswith(("user=", "password=")))
    return urlunsplit(parts._replace(netloc=f"{user}@{hosts}", query=query))
