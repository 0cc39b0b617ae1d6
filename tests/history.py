"""The judge of deliveries: compares what was accepted with what the receiver's own record says, and with nothing else.

    report = check(accepted, received, dead)
    assert report.problems == []

Rules: every accepted event was received or lies in the dead letters; nothing was received that was not accepted (save
what the recorder was told nothing about, `unanswered`); the first arrivals of a lane are in order of number, unless a
header says otherwise; a repeated event has the same webhook-id and a body that is the same byte for byte, and different
events have different ids; no event arrived at another instance's path or under another's token.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec


class Accepted(msgspec.Struct, frozen=True):
    """An event that a recorder was told is recorded."""

    instance_id: str
    key: str
    number: int
    id: str


class Report(msgspec.Struct, frozen=True):
    """What was found. `duplicates` counts requests beyond the first that was answered with 2xx, per event."""

    accepted: int
    delivered: int
    dead: int
    duplicates: int
    problems: list[str]


def check(
    accepted: Sequence[Accepted],
    received: Sequence[Mapping[str, Any]],
    dead_ids: Iterable[str] = (),
    *,
    tokens: Mapping[str, str],
    paths: Mapping[str, str],
    unanswered: frozenset[tuple[str, str]] = frozenset(),
) -> Report:
    """Judge. `tokens` and `paths`: the token and request target that belong to each instance.

    `unanswered`: (instance, key) of events whose recording was cut off, so that they may or may not have been recorded.
    """
    problems: list[str] = []
    events = {(event.instance_id, event.key): event for event in accepted}
    dead = set(dead_ids)
    answered: Counter[str] = Counter()
    bodies: dict[str, str] = {}
    highest: dict[str, int] = {}
    ids = {event.id for event in accepted}
    if len(ids) != len(accepted):
        problems.append("two accepted events have one id")
    for request in received:
        body, headers = msgspec.json.decode(request["body"]), request["headers"]
        instance_id, key, event_id = body["instanceId"], body["key"], headers["webhook-id"]
        event = events.get((instance_id, key))
        if headers["z-api-token"] != tokens.get(instance_id) or request["target"] != paths.get(instance_id):
            problems.append(f"event {key} of {instance_id} arrived at another's path or under another's token")
        if bodies.setdefault(event_id, request["body"]) != request["body"]:
            problems.append(f"{event_id} arrived with two bodies")
        if event is None:
            if (instance_id, key) not in unanswered:
                problems.append(f"event {key} of {instance_id} arrived and was never accepted")
            continue
        if event.id != event_id:
            problems.append(f"event {key} of {instance_id} arrived under another id")
        if request["status"] is None or not 200 <= request["status"] < 300:
            continue
        answered[event_id] += 1
        if answered[event_id] == 1 and "tomada-order" not in headers:
            if event.number < highest.get(instance_id, 0):
                problems.append(f"event {event.number} of {instance_id} arrived after {highest[instance_id]}")
            highest[instance_id] = max(event.number, highest.get(instance_id, 0))
    lost = [event for event in accepted if not answered[event.id] and event.id not in dead]
    problems += [f"event {event.number} of {event.instance_id} was accepted and is lost" for event in lost]
    return Report(
        accepted=len(accepted),
        delivered=sum(1 for event in accepted if answered[event.id]),
        dead=sum(1 for event in accepted if event.id in dead),
        duplicates=sum(count - 1 for count in answered.values()),
        problems=problems,
    )
