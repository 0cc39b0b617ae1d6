"""The lifecycle's decisions: pure functions from what an instance's row says, and the time, to what it shall say next.

    trial ──subscribe──▶ active ──cancel──▶ in_cancellation ──due──▶ canceled ──retention──▶ deleted
      └──due──▶ expired ◀──suspension── (the three live states)         │
                   └──subscribe: a new machine──▶ active ◀──────────────┘

A decision returns a `Change`, None when nothing is to be done (the call is repeated, or nobody asked for anything), or
raises what the caller shall hear. A Change says which row it was decided on (its revision) and in which span of time it
holds; the store applies it as one conditional UPDATE that checks both against the row and the database's clock. So the
instance row is the only referee: of a subscribe and an expiry that meet, one UPDATE finds the row as it was, and the
other finds none, reads again and decides anew. That is why a process may be slow, frozen or wrong about the time and
still delete nothing that is paid for. The same functions run in production and in `tests/simulation`.

`epoch` grows whenever the instance loses or gains its machine. Whatever a deletion does outside of the database carries
the epoch, and touches only machines from before it.
"""

from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from tomada.errors import BadInput, NotFound, Refused, SubscriptionNeeded
from tomada.instances.billing import DAY_MS, HOUR_MS, cycle_end_ms

END_OF_TIME_MS = 1 << 62
SUSPENSION_DAYS_MAX = 3650.0
STALE_MS = 60_000
"""How long a decision that writes a time holds. A process that freezes between deciding and swapping decides anew."""


class State(StrEnum):
    """The states of an instance, as the column `instance.state` holds them."""

    TRIAL = "trial"
    ACTIVE = "active"
    IN_CANCELLATION = "in_cancellation"
    CANCELED = "canceled"
    EXPIRED = "expired"
    DELETED = "deleted"


LIVE = frozenset({State.TRIAL, State.ACTIVE, State.IN_CANCELLATION})
"""The states in which an instance has a machine."""

ENDED = frozenset({State.CANCELED, State.EXPIRED})
"""The states in which it has none any more, but can be subscribed again."""


class Scope(StrEnum):
    """How much a deletion removes."""

    MACHINE = "machine"  # the machine and what only it needs; the instance can be subscribed again
    INSTANCE = "instance"  # everything; a tombstone remains


class Terms(Struct, frozen=True, kw_only=True):
    """The operator's terms; docs/lifecycle.md says where each default comes from."""

    trial_hours: float = 48.0
    billing_zone: str = "America/Sao_Paulo"
    cancel_grace_days: int | None = None  # None: to the end of the running month
    retention_days: float = 40.0  # how long an ended instance can be subscribed again
    delete_after_days: float = 0.0  # how long an ended instance refuses the delete call
    events_retention_days: float = 7.0  # events outlive the instance, so that they are delivered
    suspension_days: float = 5.0  # from an account's suspension to the end of its instances

    @property
    def trial_ms(self) -> int:
        """From the creation of an instance to its `due`; the statement that creates it adds this."""
        return round(self.trial_hours * HOUR_MS)


class Standing(Struct, frozen=True, kw_only=True):
    """The part of an instance's row that the lifecycle reads and writes. Times are lifecycle milliseconds."""

    id: str
    account_id: str
    state: State
    created_ms: int
    due_ms: int
    epoch: int = 1
    revision: int = 0  # grows with every change of this part
    with_calls: bool = False
    ended_ms: int | None = None  # when it lost its machine
    retire_ms: int | None = None  # when an ended instance becomes a tombstone
    suspended_until_ms: int | None = None  # its account is suspended; at this time the instance ends


class Change(Struct, frozen=True, kw_only=True):
    """`before` becomes `after`, if the row still is `before` and the database's clock is in `from_ms` to `until_ms`."""

    before: Standing
    after: Standing
    action: str  # for the audit log
    from_ms: int = 0
    until_ms: int = END_OF_TIME_MS

    @property
    def deletes(self) -> Scope | None:
        """The deletion that this change starts."""
        if self.after.state is State.DELETED:
            return Scope.INSTANCE
        return Scope.MACHINE if self.before.state in LIVE and self.after.state not in LIVE else None

    @property
    def gains_machine(self) -> bool:
        """Whether the instance is given a new machine, to be paired anew."""
        return self.before.state not in LIVE and self.after.state in LIVE


def check_serves(standing: Standing, now_ms: int) -> None:
    """Raises what a call to the instance API shall hear if the instance may not be used; does not wait for a sweep."""
    if standing.state is State.DELETED:
        raise NotFound
    over = standing.state in {State.TRIAL, State.IN_CANCELLATION} and standing.due_ms <= now_ms
    if over or standing.state not in LIVE or standing.suspended_until_ms is not None:
        raise SubscriptionNeeded


def subscribe(standing: Standing, now_ms: int, terms: Terms, *, with_calls: bool = False) -> Change:
    """To active, from anywhere but active and deleted; an ended instance gets a new machine.

    A trial that is over but was not swept yet is still there, so it is kept: paying late beats losing a pairing.
    Raises NotFound, Refused (already paid; account suspended).
    """
    _check_there(standing)
    if standing.state is State.ACTIVE:
        raise Refused("This instance is already paid")
    if standing.suspended_until_ms is not None:
        raise Refused("This account is suspended until its invoice is paid")
    due_ms = cycle_end_ms(now_ms, terms.billing_zone)
    after = replace(
        standing,
        state=State.ACTIVE,
        due_ms=due_ms,
        epoch=standing.epoch + (standing.state in ENDED),
        revision=standing.revision + 1,
        with_calls=with_calls,
        ended_ms=None,
        retire_ms=None,
    )
    return Change(
        before=standing, after=after, action="subscribed", from_ms=now_ms, until_ms=min(due_ms, now_ms + STALE_MS)
    )


def add_calls(standing: Standing) -> Change | None:
    """Adds calls to a subscription; the way back is to cancel. Raises NotFound, Refused, SubscriptionNeeded."""
    _check_there(standing)
    if standing.state in ENDED:
        raise SubscriptionNeeded
    if standing.state is not State.ACTIVE:
        raise Refused("This instance is not subscribed")
    if standing.with_calls:
        return None
    after = replace(standing, with_calls=True, revision=standing.revision + 1)
    return Change(before=standing, after=after, action="calls_added")


def cancel(standing: Standing, now_ms: int, terms: Terms) -> Change | None:
    """To in_cancellation until the end of the month (or `cancel_grace_days` days).

    A trial needs no cancelling and ends at its due anyway, so the call changes nothing there; nor does repeating it,
    nor calling it after the end, as clients do to tidy up. Raises NotFound.
    """
    _check_there(standing)
    if standing.state is not State.ACTIVE:
        return None
    month_end_ms = cycle_end_ms(now_ms, terms.billing_zone)
    grace_days = terms.cancel_grace_days
    after = replace(
        standing,
        state=State.IN_CANCELLATION,
        due_ms=month_end_ms if grace_days is None else now_ms + grace_days * DAY_MS,
        revision=standing.revision + 1,
    )
    until_ms = min(month_end_ms, now_ms + STALE_MS)
    return Change(before=standing, after=after, action="cancel_asked", from_ms=now_ms, until_ms=until_ms)


def delete(standing: Standing, now_ms: int, terms: Terms) -> Change | None:
    """To deleted, from an ended state and not before `delete_after_days`. Raises Refused. Repeating changes nothing."""
    if standing.state is State.DELETED:
        return None
    eligible_ms = (standing.ended_ms or 0) + int(terms.delete_after_days * DAY_MS)
    if standing.state not in ENDED or now_ms < eligible_ms:
        raise Refused("Instance not eligible for deletion")
    return _retired(standing, "delete_asked", eligible_ms)


def wake(standing: Standing, now_ms: int, terms: Terms) -> Change | None:
    """What time alone brings about; None if the instance is not due for anything. Only sweepers call it."""
    if standing.state in ENDED:
        retire_ms = standing.retire_ms
        return _retired(standing, "retired", retire_ms) if retire_ms is not None and retire_ms <= now_ms else None
    if standing.state not in LIVE:
        return None
    suspended_until_ms = standing.suspended_until_ms
    if suspended_until_ms is not None and suspended_until_ms <= now_ms:
        return _ended(standing, now_ms, terms, State.EXPIRED, "expired_unpaid", suspended_until_ms)
    if standing.due_ms > now_ms:
        return None
    if standing.state is State.TRIAL:
        return _ended(standing, now_ms, terms, State.EXPIRED, "expired", standing.due_ms)
    if standing.state is State.IN_CANCELLATION:
        return _ended(standing, now_ms, terms, State.CANCELED, "canceled", standing.due_ms)
    due_ms = cycle_end_ms(now_ms, terms.billing_zone)
    renewed = replace(standing, due_ms=due_ms, revision=standing.revision + 1)
    return Change(before=standing, after=renewed, action="renewed", from_ms=standing.due_ms, until_ms=due_ms)


def next_ms(standing: Standing) -> int | None:
    """When time alone may next decide something; None: never. The generated column `instance.next_ms` is the same."""
    if standing.state in LIVE:
        until_ms = standing.suspended_until_ms
        return standing.due_ms if until_ms is None else min(standing.due_ms, until_ms)
    return standing.retire_ms if standing.state in ENDED else None


def suspension_ms(days: float) -> int:
    """The days of a suspension in milliseconds. Raises BadInput unless they lie between 0 and SUSPENSION_DAYS_MAX."""
    if not 0 <= days <= SUSPENSION_DAYS_MAX:  # not a number is refused too
        raise BadInput(f"days must lie between 0 and {SUSPENSION_DAYS_MAX:.0f}")
    return int(days * DAY_MS)


def _check_there(standing: Standing) -> None:
    if standing.state is State.DELETED:
        raise NotFound


def _ended(standing: Standing, now_ms: int, terms: Terms, state: State, action: str, from_ms: int) -> Change:
    after = replace(
        standing,
        state=state,
        epoch=standing.epoch + 1,
        revision=standing.revision + 1,
        ended_ms=now_ms,
        retire_ms=now_ms + int(terms.retention_days * DAY_MS),
    )
    return Change(before=standing, after=after, action=action, from_ms=from_ms, until_ms=now_ms + STALE_MS)


def _retired(standing: Standing, action: str, from_ms: int) -> Change:
    after = replace(
        standing, state=State.DELETED, epoch=standing.epoch + 1, revision=standing.revision + 1, retire_ms=None
    )
    return Change(before=standing, after=after, action=action, from_ms=from_ms)
