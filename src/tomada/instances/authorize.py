"""From the credentials of an instance call to its instance.

The order of the checks is the wire's (docs/wire.md): first id and token, which must belong together; then the account's
Client-Token, if the account has that feature on; then the lifecycle. A wrong id and a wrong token are told by the same
words, after the same work.
"""

import hmac
import re

from tomada.errors import ClientTokenMissing, ClientTokenWrong, NotFound, SubscriptionNeeded
from tomada.instances.lifecycle import LIVE
from tomada.instances.model import Instance
from tomada.instances.store import Found, InstanceStore
from tomada.kit.sealing import token_hash

_OPAQUE = re.compile(r"[0-9A-Za-z_-]{1,64}")  # anything else cannot be an id or token of ours
_NO_HASH = bytes(32)
_SHOWN_LENGTH_MAX = 200  # of a wrong Client-Token that is shown to its sender


async def authorize(
    store: InstanceStore, instance_id: str, token: str, client_token: str | None, *, ended_too: bool = False
) -> Found:
    """The instance of a call, usable now (or, `ended_too`, at the end of its time), with what its account allows.

    Raises NotFound, ClientTokenMissing, ClientTokenWrong, SubscriptionNeeded.
    """
    found = None
    if _OPAQUE.fullmatch(instance_id) and _OPAQUE.fullmatch(token):
        found = await store.find(instance_id)
    expected = found.token_hash if found else _NO_HASH
    if not hmac.compare_digest(token_hash(token), expected) or found is None:
        raise NotFound
    _check_client_token(found, client_token)
    if not (ended_too and has_ended(found.instance)):
        require_usable(found.instance)
    return found


def require_usable(instance: Instance) -> None:
    """Raise SubscriptionNeeded unless the lifecycle lets this instance work now."""
    if instance.overdue or instance.state not in LIVE:
        raise SubscriptionNeeded


def has_ended(instance: Instance) -> bool:
    """Whether its own time is over (a suspended account's is not): its machine is gone, or going by itself."""
    return instance.state not in LIVE or (instance.overdue and instance.suspended_until_ms is None)


def _check_client_token(found: Found, sent: str | None) -> None:
    if found.client_token_hash is None:
        return
    value = (sent or "").strip()
    if not value:
        raise ClientTokenMissing
    if not hmac.compare_digest(token_hash(value), found.client_token_hash):
        raise ClientTokenWrong(f"Client-Token {value[:_SHOWN_LENGTH_MAX]} not allowed")
