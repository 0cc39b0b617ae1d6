"""What must be true of every run, told from outside: by what clients heard, when, and what is left at the end.

It uses none of the decisions it judges: the time zone is counted by hand, the promises are those of docs/lifecycle.md.
"""

from datetime import UTC, datetime, timedelta

from tests.simulation.schedule import DAY_MS
from tests.simulation.world import ACCOUNT, Heard, World
from tomada.instances.deletion import digest

LIVE = ("trial", "active", "in_cancellation")
ENDINGS = ("expired", "canceled", "expired_unpaid")
SLACK_MS = 60_000  # between a decision and its commit
SAO_PAULO = timedelta(hours=-3)  # without daylight saving since 2019


def judge(world: World) -> list[str]:
    """Everything that is wrong with a run; empty if all promises were kept."""
    wrong = list(world.machines.wrong)
    for name in world.store.standings:
        wrong += [f"{name}: {words}" for words in (*_early(world, name), *_paid(world, name), *_left(world, name))]
    return wrong + _doubled(world) + _missed(world)


def _fresh(world: World, name: str) -> bool:
    """Whether a deletion of the instance began so lately that no sweeper needs to have come by again."""
    late_ms = world.lifecycle_ms() - SLACK_MS - int(2000 * world.sweep_s)
    return any(item.instance_id == name and item.asked_ms > late_ms for item in world.store.unfinished())


def _entries(world: World, name: str) -> list[tuple[int, str]]:
    return [(at_ms, action) for at_ms, _actor, action, subject in world.store.audit if subject == name]


def _early(world: World, name: str) -> list[str]:
    """Nothing ends before its time: trial, month of the cancellation, days of suspension, retention."""
    wrong = []
    standing = world.store.standings[name]
    state, cancel_ms, ended_ms = "trial", 0, 0
    for at_ms, action in _entries(world, name):
        if action == "subscribed":
            state = "active"
        elif action == "cancel_asked":
            state, cancel_ms = "in_cancellation", at_ms
        elif action in ENDINGS:
            wrong += _ending(world, state, action, at_ms, standing.created_ms, cancel_ms)
            state, ended_ms = "ended", at_ms
        elif action in {"retired", "delete_asked"}:
            days = world.terms.retention_days if action == "retired" else world.terms.delete_after_days
            if state != "ended" or at_ms < ended_ms + days * DAY_MS - SLACK_MS:
                wrong.append(f"{action} at {at_ms}, but it was {state} since {ended_ms}")
            state = "deleted"
    return wrong


def _ending(world: World, state: str, action: str, at_ms: int, created_ms: int, cancel_ms: int) -> list[str]:
    if action == "expired_unpaid":
        since = [when for when, _actor, what, _subject in world.store.audit if what == "suspended" and when <= at_ms]
        resumed = [when for when, _actor, what, _subject in world.store.audit if what == "resumed" and when <= at_ms]
        first = min((when for when in since if not resumed or when >= max(resumed)), default=None)
        fine = state in LIVE and first is not None and at_ms >= first + world.terms.suspension_days * DAY_MS
    elif action == "expired":
        fine = state == "trial" and at_ms >= created_ms + 48 * 3_600_000
    else:
        grace = world.terms.cancel_grace_days
        earliest_ms = month_end_ms(cancel_ms) if grace is None else cancel_ms + grace * DAY_MS
        fine = state == "in_cancellation" and at_ms >= earliest_ms - SLACK_MS * (grace is not None)
    return [] if fine else [f"{action} at {at_ms} while {state} (created {created_ms}, canceled {cancel_ms})"]


def month_end_ms(at_ms: int) -> int:
    """The end of the month in São Paulo, by hand."""
    local = datetime.fromtimestamp(at_ms / 1000, UTC) + SAO_PAULO
    first = (local.replace(day=28) + timedelta(days=4)).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return int((first - SAO_PAULO).timestamp() * 1000)


def _paid(world: World, name: str) -> list[str]:
    """A subscribe that was answered 2xx holds, unless somebody asked for the contrary later or at the same time."""
    for heard in world.history:
        if heard.verb != "subscribe" or heard.instance_id != name or heard.outcome != "ok":
            continue
        if any(_against(other, name, heard.asked_ms) for other in world.history):
            continue
        if world.store.standings[name].state != "active":
            return [f"subscribed at {heard.ended_ms}, but it is {world.store.standings[name].state}"]
    return []


def _against(other: Heard, name: str, since_ms: int) -> bool:
    """Whether a call that may end the instance was or may have been under way at or after a time."""
    concerns = other.verb == "suspend" or (other.verb in {"cancel", "delete"} and other.instance_id == name)
    return concerns and (other.ended_ms is None or other.ended_ms >= since_ms)


def _left(world: World, name: str) -> list[str]:
    """What has ended leaves nothing behind, on the phone nothing that was not admitted; what lives kept its machine."""
    standing, paper, machines = world.store.standings[name], world.store.papers[name], world.machines
    if _fresh(world, name):
        return []
    old = {key for key in machines.keys | machines.files if key[0] == name and key[1] < standing.epoch}
    wrong = [f"left behind: machine {key}" for key in sorted(old)]
    ghosts = sorted(key for key in machines.linked if key[0] == name and key[1] < standing.epoch)
    wrong += [f"still linked, and no receipt says so: {key}" for key in ghosts if not _admitted(world, key)]
    if standing.state in LIVE:
        key = (name, standing.epoch)
        if key in machines.ever and not all(key in kept for kept in (machines.linked, machines.keys, machines.files)):
            wrong.append("lost the machine it is paired with")
        return wrong
    if paper.queued or paper.session:
        wrong.append(f"left behind: {paper.queued} queued messages, session row {paper.session}")
    waits = any(deletion.instance_id == name for deletion in world.store.unfinished())
    if standing.state == "deleted" and not waits and (paper.events or paper.tokens or paper.name):
        wrong.append("left behind: events, tokens or names of a deleted instance")
    return wrong


def _admitted(world: World, key: tuple[str, int]) -> bool:
    """Whether a deletion after this machine's loss says that a linked device may remain."""
    return any(
        name == key[0] and epoch > key[1] and any("may remain" in item.note for item in row.deletion.done)
        for (name, epoch), row in world.store.rows.items()
    )


def _doubled(world: World) -> list[str]:
    """Every machine is removed once, every loss is told once, every finished deletion has one receipt."""
    wrong = []
    if len(set(world.machines.removals)) != len(world.machines.removals):
        wrong.append(f"a machine was removed twice: {world.machines.removals}")
    if len(set(world.store.sent)) != len(world.store.sent):
        wrong.append(f"a disconnected callback was sent twice: {world.store.sent}")
    for name in world.store.standings:
        actions = [action for _at_ms, action in _entries(world, name)]
        losses = sum(action in ENDINGS for action in actions)
        finals = sum(action in {"retired", "delete_asked"} for action in actions)
        if _fresh(world, name):
            continue
        receipts = [row for key, row in world.store.rows.items() if key[0] == name and row.digest]
        told = sum(instance_id == name for instance_id, _key in world.store.sent)
        waiting = sum(deletion.instance_id == name for deletion in world.store.unfinished())
        if finals > 1 or told != losses or actions.count("erased") != len(receipts):
            wrong.append(f"{name}: {losses} losses, {told} told, {finals} final, {actions.count('erased')} receipts")
        if len(receipts) + waiting < min(1, losses):
            wrong.append(f"{name}: no receipt")
        wrong += [f"{name}: digest" for row in receipts if row.digest != digest(row.deletion.done)]
    return wrong


def _missed(world: World) -> list[str]:
    """Nothing is overdue once everything works again, and no deletion is stuck but for events that are kept a while."""
    now_ms = world.lifecycle_ms()
    late_ms = now_ms - SLACK_MS - int(1000 * world.sweep_s)
    wrong = []
    for standing in world.store.standings.values():
        due_ms = standing.due_ms if standing.state in LIVE else standing.retire_ms
        if due_ms is not None and due_ms <= late_ms and standing.state != "deleted":
            wrong.append(f"{standing.id}: still {standing.state}, due {now_ms - due_ms} ms ago")
        unpaid_ms = world.store.accounts[ACCOUNT].suspended_until_ms
        if unpaid_ms is not None and unpaid_ms <= late_ms and standing.state in LIVE:
            wrong.append(f"{standing.id}: still {standing.state} in an account that did not pay")
    for deletion in world.store.unfinished():
        kept_ms = deletion.asked_ms + world.terms.events_retention_days * DAY_MS
        if _fresh(world, deletion.instance_id):
            continue
        if deletion.scope == "machine" or kept_ms <= late_ms - 1000 * world.sweep_s:
            wrong.append(f"{deletion.instance_id}: deletion {deletion.epoch} is stuck after {len(deletion.done)} steps")
    return wrong
