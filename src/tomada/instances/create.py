"""The call of the seed page: create an instance on demand.

The id and the token are made here, so the statement can be repeated after a broken connection without making two. The
caller hears them only after the commit. Nothing runs for a new instance until its QR code is asked for.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from tomada.errors import BadAddress, BadInput, LimitReached
from tomada.instances.model import CALLBACK_FIELDS, Created, NewInstance
from tomada.instances.store import CREATE
from tomada.kit import ids
from tomada.kit.addresses import AddressRefused
from tomada.kit.sealing import Sealer, token_hash

NAME_LENGTH_MAX = 255
MESSAGE_LENGTH_MAX = 4096

_REFUSED = {
    "instances": "Your account may not have more instances",
    "day": "Your account may not create more instances today",
    "suspended": "Your account is suspended until its invoice is paid",
}

# Runs a Statement with its arguments and gives its row: GroupCommit.execute, or within a transaction of the caller's.
Execute = Callable[..., Awaitable[Any]]
# Raises AddressRefused for a URL that must not be called; see kit/addresses.py.
CheckUrl = Callable[[str], object]


def sealing_context(instance_id: str) -> str:
    """What an instance's token is bound to (kit.sealing)."""
    return f"instance:{instance_id}"


async def create(
    execute: Execute, sealer: Sealer, check_url: CheckUrl, account_id: str, trial_ms: int, wanted: NewInstance
) -> Created:
    """Make an instance whose trial ends `trial_ms` from now.

    Raises BadInput for a bad name, BadAddress for a URL that may not be called, LimitReached for the account's limit.
    """
    clean = _checked(wanted, check_url)
    instance_id, token = ids.instance_id(), ids.instance_token()
    sealed = sealer.seal(token, sealing_context(instance_id))
    values = msgspec.structs.astuple(clean)
    row = await execute(CREATE, instance_id, account_id, token_hash(token), sealed, trial_ms, *values)
    if row is None or row["due_ms"] is None:
        raise LimitReached(_REFUSED.get(row["refused"]) if row else None)
    return Created(instance_id, token, row["due_ms"])


def checked_name(value: str, field: str = "name") -> str:
    """A name as it is stored: without surrounding space. Raises BadInput."""
    return _bounded(value.strip(), field, NAME_LENGTH_MAX)


def checked_url(value: str | None, check_url: CheckUrl) -> str | None:
    """A callback URL as it is stored: untouched, or None for an empty one. Raises BadAddress."""
    if value is None or not value.strip():
        return None
    try:
        check_url(value)
    except AddressRefused as refused:
        raise BadAddress(str(refused)) from None
    return value


def checked_message(value: str | None) -> str | None:
    """The text sent to a rejected caller. Raises BadInput."""
    return _bounded(value, "callRejectMessage", MESSAGE_LENGTH_MAX) if value else None


def _checked(wanted: NewInstance, check_url: CheckUrl) -> NewInstance:
    name = checked_name(wanted.name)
    session_name = checked_name((wanted.session_name or "").strip() or name, "sessionName")
    urls = {field: checked_url(getattr(wanted, field), check_url) for field in CALLBACK_FIELDS.values()}
    return msgspec.structs.replace(
        wanted,
        name=name,
        session_name=session_name,
        call_reject_message=checked_message(wanted.call_reject_message),
        **urls,
    )


def _bounded(value: str, field: str, length_max: int) -> str:
    if not value:
        raise BadInput(f"{field} must not be empty")
    if len(value) > length_max:
        raise BadInput(f"{field} must have at most {length_max} characters")
    return value
