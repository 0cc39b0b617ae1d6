"""The partner's lifecycle calls: read the row, decide, swap it; if the row changed in between, do it again.

What comes back is what the wire shows ({"id", "due"}); refusals are raised from the tree in `tomada.errors`. When one
of these returns, its change is committed: a 2xx is never sent before.
"""

from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct

from tomada.errors import NotFound, TomadaError, Unavailable
from tomada.instances import lifecycle
from tomada.instances.lifecycle import Change, Standing, Terms
from tomada.instances.lifecycle_port import LifecycleStore

SWAPS_MAX = 64
"""A swap is lost only to somebody else's change, so a crowd on one account gets on; this many in a row is no crowd."""
BATCH_MAX = 100


class Settled(Struct, frozen=True):
    """The instance after the call; `due` in lifecycle milliseconds, as the wire shows it."""

    id: str
    due: int


class BatchOutcome(Struct, frozen=True, omit_defaults=True):
    """What became of one instance of a batch; `error` is absent if it was deleted."""

    id: str
    deleted: bool
    error: str | None = None


class BatchItem(Struct, frozen=True):
    """One instance of a batch, named by id and token hash (the wire hashes the token at once)."""

    id: str
    token_hash: bytes


async def subscribe(
    store: LifecycleStore, terms: Terms, account_id: str, instance_id: str, *, with_calls: bool = False
) -> Settled:
    """Subscribes. Raises NotFound, Refused ("already paid", suspended account), Unavailable."""
    return await _settle(
        store,
        account_id,
        instance_id,
        lambda standing, now_ms: lifecycle.subscribe(standing, now_ms, terms, with_calls=with_calls),
    )


async def update_subscription(store: LifecycleStore, account_id: str, instance_id: str) -> Settled:
    """Adds calls to the subscription. Raises NotFound, Refused, SubscriptionNeeded, Unavailable."""
    return await _settle(store, account_id, instance_id, lambda standing, _now_ms: lifecycle.add_calls(standing))


async def cancel(store: LifecycleStore, terms: Terms, account_id: str, instance_id: str) -> Settled:
    """Cancels; `due` is until when it can be used. Raises NotFound, Unavailable."""
    return await _settle(
        store, account_id, instance_id, lambda standing, now_ms: lifecycle.cancel(standing, now_ms, terms)
    )


async def delete(store: LifecycleStore, terms: Terms, account_id: str, instance_id: str) -> Settled:
    """Deletes an ended instance for good. Raises NotFound, Refused ("not eligible"), Unavailable."""
    return await _settle(
        store, account_id, instance_id, lambda standing, now_ms: lifecycle.delete(standing, now_ms, terms)
    )


async def batch_delete(
    store: LifecycleStore,
    terms: Terms,
    account_id: str,
    items: Sequence[BatchItem],
    owned: Callable[[BatchItem], Awaitable[str]],
) -> list[BatchOutcome]:
    """Deletes up to BATCH_MAX instances, one after the other; a refusal stops none of the others.

    `owned` gives the id of an item whose token fits an instance of the account, and raises NotFound for any other.
    """
    outcomes = []
    for item in items[:BATCH_MAX]:
        try:
            await delete(store, terms, account_id, await owned(item))
            outcomes.append(BatchOutcome(item.id, deleted=True))
        except TomadaError as error:
            outcomes.append(BatchOutcome(item.id, deleted=False, error=error.message))
    return outcomes


async def _settle(
    store: LifecycleStore, account_id: str, instance_id: str, decide: Callable[[Standing, int], Change | None]
) -> Settled:
    for _ in range(SWAPS_MAX):
        snapshot = await store.read(account_id, instance_id)
        if snapshot is None:
            raise NotFound
        change = decide(snapshot.standing, snapshot.now_ms)
        if change is None:
            return Settled(instance_id, snapshot.standing.due_ms)
        if await store.swap(change, actor="partner"):
            return Settled(instance_id, change.after.due_ms)
    raise Unavailable
