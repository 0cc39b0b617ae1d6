"""Creating accounts, changing their limits and their secrets. Every change is in the account's audit log.

A secret is changed over with an overlap: for some hours the one before works beside the new one. For the partner token
that is a second hash and its end on the row; for the signing secret it is the sealed text itself, which then reads
`<new> <old>@<end in epoch ms>` and is read by callbacks/signing.py. The end is real time: the sandbox's clock does not
move it. A new rotation ends whatever was left of the one before.
"""

from collections.abc import Mapping

from cryptography.exceptions import InvalidTag

from tomada.accounts.model import INSTANCES_MAX_DEFAULT, Account, NewAccount, Rotated
from tomada.accounts.store import AccountStore, NewAccountRow
from tomada.errors import BadInput
from tomada.kit import ids
from tomada.kit.sealing import Sealer, token_hash

NAME_LENGTH_MAX = 255
LIMIT_MAX = 2**31 - 1
OVERLAP_HOURS_DEFAULT = 24.0  # a working day to deploy the new secret everywhere
OVERLAP_HOURS_MAX = 30 * 24.0


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
    actor: str = "cli",
) -> NewAccount:
    """Make an account with fresh secrets. Raises BadInput for an empty or overlong name or a negative limit."""
    account, row = _draft(sealer, name, ids.partner_token(), instances_max, with_client_token=with_client_token)
    await store.insert(row, actor)
    return account


async def bootstrap(store: AccountStore, sealer: Sealer, partner_token: str) -> bool:
    """If there is no account, make one with this partner token; True if it was made."""
    _, row = _draft(sealer, "default", partner_token, INSTANCES_MAX_DEFAULT, with_client_token=False)
    return await store.insert_first(row, "start")


async def key_fits(store: AccountStore, sealer: Sealer) -> bool:
    """Whether what lies in the database was sealed with this key; True without accounts."""
    sealed = await store.one_sealed()
    if sealed is None:
        return True
    try:
        sealer.open(sealed[1], sealing_context(sealed[0]))
    except InvalidTag:
        return False
    return True


async def list_accounts(store: AccountStore) -> list[Account]:
    """Every account, oldest first."""
    return await store.list()


async def set_limits(store: AccountStore, account_id: str, values: Mapping[str, int | None], actor: str) -> Account:
    """Set some of instances_max, created_per_day_max, messages_per_minute_max; None takes a limit per time away.

    Raises BadInput (nothing to set, out of range), NotFound.
    """
    if not values:
        raise BadInput("Say at least one limit")
    for name, value in values.items():
        if value is None and name == "instances_max":
            raise BadInput("The limit of instances cannot be taken away; set a large one")
        if value is not None:
            _check_limit(value)
    return await store.set_limits(account_id, values, actor)


async def rotate_partner_token(
    store: AccountStore, sealer: Sealer, account_id: str, *, overlap_hours: float, actor: str
) -> Rotated:
    """Give the account a new partner token. Raises BadInput, NotFound."""
    token, overlap_ms = ids.partner_token(), _overlap_ms(overlap_hours)
    sealed = sealer.seal(token, sealing_context(account_id))
    return Rotated(token, await store.rotate_token(account_id, token_hash(token), sealed, overlap_ms, actor))


async def rotate_signing_secret(
    store: AccountStore, sealer: Sealer, account_id: str, *, overlap_hours: float, actor: str
) -> Rotated:
    """Give the account a new signing secret; in the overlap callbacks carry a signature of each. As above."""
    secret, overlap_ms, context = ids.signing_secret(), _overlap_ms(overlap_hours), sealing_context(account_id)
    until_ms: int | None = None

    def change(sealed: bytes, now_ms: int) -> bytes:
        nonlocal until_ms
        until_ms = now_ms + overlap_ms if overlap_ms else None
        newest = sealer.open(sealed, context).split()[0]
        return sealer.seal(f"{secret} {newest}@{until_ms}" if overlap_ms else secret, context)

    detail = {"overlap_ms": overlap_ms}
    await store.change_signing_secret(account_id, change, actor, "signing_secret_rotated", detail)
    return Rotated(secret, until_ms)


async def end_overlap(store: AccountStore, sealer: Sealer, account_id: str, *, actor: str) -> None:
    """Whatever works only because of an overlap ends now: the previous partner token and signing secret."""
    context = sealing_context(account_id)

    def change(sealed: bytes, _now_ms: int) -> bytes:
        return sealer.seal(sealer.open(sealed, context).split()[0], context)

    await store.end_previous_token(account_id, actor)
    await store.change_signing_secret(account_id, change, actor, "previous_signing_secret_ended", None)


async def set_client_token(store: AccountStore, sealer: Sealer, account_id: str, *, on: bool, actor: str) -> str | None:
    """Demand the header Client-Token from now on, or no more; returns the token, or None when off. Raises NotFound.

    Switching on what is on answers the present token: whoever repeats the call locks nobody out.
    """
    context = sealing_context(account_id)
    token = ids.client_token()
    made = (token_hash(token), sealer.seal(token, context)) if on else None
    sealed = await store.set_client_token(account_id, made, actor)
    return sealer.open(sealed, context) if sealed is not None else None


def _overlap_ms(hours: float) -> int:
    if not 0 <= hours <= OVERLAP_HOURS_MAX:  # not a number is refused too
        raise BadInput(f"The overlap must lie between 0 and {OVERLAP_HOURS_MAX:.0f} hours")
    return int(hours * 3_600_000)


def _check_limit(value: int) -> None:
    if not 0 <= value <= LIMIT_MAX:
        raise BadInput(f"A limit must lie between 0 and {LIMIT_MAX}")


def _draft(
    sealer: Sealer, name: str, partner_token: str, instances_max: int, *, with_client_token: bool
) -> tuple[NewAccount, NewAccountRow]:
    if not name.strip() or len(name) > NAME_LENGTH_MAX or "\0" in name:
        raise BadInput(f"name: from 1 to {NAME_LENGTH_MAX} characters")
    _check_limit(instances_max)
    account_id = ids.account_id()
    context = sealing_context(account_id)
    client_token = ids.client_token() if with_client_token else None
    signing_secret = ids.signing_secret()
    row = NewAccountRow(
        id=account_id,
        name=name,
        partner_token_hash=token_hash(partner_token),
        partner_token_sealed=sealer.seal(partner_token, context),
        client_token_hash=token_hash(client_token) if client_token else None,
        client_token_sealed=sealer.seal(client_token, context) if client_token else None,
        signing_secret_sealed=sealer.seal(signing_secret, context),
        instances_max=instances_max,
    )
    return NewAccount(account_id, name, partner_token, client_token, signing_secret), row
