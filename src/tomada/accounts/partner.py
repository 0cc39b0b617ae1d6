"""From the headers of a partner call to its account.

Clients break the rule that this call takes `Authorization: Bearer <partner token>`: some send the token without the
word Bearer, some only the header Client-Token with the account's token (docs/wire.md, authentication). All three are
taken; a partner token wins over a Client-Token. Look-up is by hash of a long random value, so comparing leaks nothing.
"""

from tomada.accounts.model import Account
from tomada.accounts.store import AccountStore
from tomada.errors import Unauthorized
from tomada.kit.sealing import token_hash

_SCHEME = "bearer "
CREDENTIAL_LENGTH_MAX = 4096  # a JWT of today's partners fits; more is not worth hashing


async def authenticate(store: AccountStore, authorization: str | None, client_token: str | None) -> Account:
    """The account of a partner call, from the two headers as sent. Raises Unauthorized."""
    partner_hash = _hash(_token_of(authorization))
    client_hash = _hash(client_token)
    if partner_hash is None and client_hash is None:
        raise Unauthorized
    account = await store.by_credential(partner_hash, client_hash)
    if account is None:
        raise Unauthorized
    return account


def _token_of(authorization: str | None) -> str | None:
    """The credential in an Authorization header: after `Bearer`, or all of it."""
    if authorization is None:
        return None
    value = authorization.strip()
    return value[len(_SCHEME) :].strip() if value.lower().startswith(_SCHEME) else value


def _hash(token: str | None) -> bytes | None:
    if not token or not token.strip() or len(token) > CREDENTIAL_LENGTH_MAX:
        return None
    return token_hash(token.strip())
