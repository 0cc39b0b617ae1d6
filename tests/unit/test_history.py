"""The judge finds what it is there to find."""

from typing import Any

import msgspec

from tests.history import Accepted, Report, check

A, B = "instance-a", "instance-b"
TOKENS = {A: "token-a", B: "token-b"}
PATHS = {A: "/ok/a", B: "/ok/b"}
ACCEPTED = [Accepted(A, str(n), n, f"evt_{n}") for n in (1, 2, 3)]


def request(number: int, instance: str = A, **changes: Any) -> dict[str, Any]:
    """One line of a receiver's record."""
    headers = {"webhook-id": f"evt_{number}", "z-api-token": TOKENS[instance]}
    body = msgspec.json.encode({"instanceId": instance, "key": str(number)}).decode()
    return {"body": body, "target": PATHS[instance], "status": 200, "headers": headers, **changes}


def judged(*requests: dict[str, Any], dead: tuple[str, ...] = ()) -> Report:
    """The report on these requests."""
    return check(ACCEPTED, requests, dead, tokens=TOKENS, paths=PATHS)


def test_all_well_with_a_duplicate() -> None:
    """A duplicate under the same id is counted, not blamed; a dead letter is not lost."""
    report = judged(request(1), request(2), request(1), dead=("evt_3",))
    assert report.problems == []
    assert (report.accepted, report.delivered, report.dead, report.duplicates) == (3, 2, 1, 1)


def test_each_fault_is_found() -> None:
    """Loss, disorder, foreign path, foreign token, other id, other body, unknown event, refused and never repeated."""
    rest = [request(2), request(3)]
    assert "lost" in judged(*rest).problems[0]
    assert "arrived after" in judged(request(2), request(1), request(3)).problems[0]
    assert "another's path" in judged(request(1, target="/ok/b"), *rest).problems[0]
    headers = {"webhook-id": "evt_1", "z-api-token": "token-b"}
    assert "another's token" in judged(request(1, headers=headers), *rest).problems[0]
    headers = {"webhook-id": "evt_9", "z-api-token": "token-a"}
    assert "another id" in judged(request(1), request(1, headers=headers), *rest).problems[0]
    spaced = request(1)["body"].replace(":", ": ")
    assert "two bodies" in judged(request(1), request(1, body=spaced), *rest).problems[0]
    assert "never accepted" in judged(request(1), *rest, request(4)).problems[0]
    assert "lost" in judged(request(1, status=500), *rest).problems[0]


def test_a_header_excuses_disorder() -> None:
    """What says that it overtakes, gave way or is replayed may come out of order."""
    headers = {"webhook-id": "evt_1", "z-api-token": "token-a", "tomada-order": "gave-way"}
    assert judged(request(2), request(1, headers=headers), request(3)).problems == []
