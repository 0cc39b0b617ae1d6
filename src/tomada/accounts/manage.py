"""Creating accounts and changing their tokens."""

from tomada.accounts.model import INSTANCES_MAX_DEFAULT, Account, NewAccount
from tomada.accounts.store import AccountStore, NewAccountRow
from tomada.errors import BadInput, NotFound
from tomada.kit import ids
from tomada.kit.sealing import Sealer, token_hash

NAME_LENGTH_MAX = 255
INSTANCES_MAX_MAX = 2**31 - 1


def sealing_context(account_id: str) -> str:
    """What an account's secrets are bound to (kit.sealing)."""
    return f"account:{account_id}"


async def create(
    store: AccountStore,
    sealer: Sealer,
    name: str,
    *,
    instances_max: int = INSTANCES_MAX_DEFAULT,
    with_client_token: bool = False,
) -> NewAccount:
    """Make an account with fresh tokens. Raises BadInput for an empty or overlong name or a negative limit."""
    account, row = _draft(sealer, name, ids.partner_token(), instances_max, with_client_token=with_client_token)
    await store.insert(row)
    return account


async def bootstrap(store: AccountStore, sealer: Sealer, partner_token: str) -> bool:
    """If there is no account, make one with this partner token; True if it was made."""
    _, row = _draft(sealer, "default", partner_token, INSTANCES_MAX_DEFAULT, with_client_token=False)
    return await store.insert_first(row)


async def list_accounts(store: AccountStore) -> list[Account]:
    """Every account, oldest first."""
    return await store.list()


async def rotate_partner_token(store: AccountStore, sealer: Sealer, account_id: str) -> str:
    """Give the account a new partner token; the old one ends at once. Raises NotFound."""
    token = ids.partner_token()
    if not await store.rotate(account_id, token_hash(token), sealer.seal(token, sealing_context(account_id))):
        raise NotFound("Account not found")
    return token


def _draft(
    sealer: Sealer, name: str, partner_token: str, instances_max: int, *, with_client_token: bool
) -> tuple[NewAccount, NewAccountRow]:
    if not name.strip() or len(name) > NAME_LENGTH_MAX or "\0" in name:
        raise BadInput(f"name: from 1 to {NAME_LENGTH_MAX} characters")
    if not 0 <= instances_max <= INSTANCES_MAX_MAX:
        raise BadInput("the limit of instances must be 0 or more")
    account_id = ids.account_id()
    context = sealing_context(account_id)
    client_token = ids.client_token() if with_client_token else None
    row = NewAccountRow(
        id=account_id,
        name=name,
        partner_token_hash=token_hash(partner_token),
        partner_token_sealed=sealer.seal(partner_token, context),
        client_token_hash=token_hash(client_token) if client_token else None,
        client_token_sealed=sealer.seal(client_token, context) if client_token else None,
        signing_secret_sealed=sealer.seal(ids.signing_secret(), context),
        instances_max=instances_max,
    )
    return NewAccount(account_id, name, partner_token, client_token), row
