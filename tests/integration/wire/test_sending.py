"""send-text with every attribute, and the queue."""

import pytest

from tests.integration.wire.client import JSON
from tests.integration.wire.conftest import Wire
from tests.integration.wire.test_instance_calls import _id
from tomada.errors import QueueFull


async def test_send_text(wire: Wire) -> None:
    """The three ids, id equal to messageId, and the text as it was sent."""
    path = await wire.instance(await wire.account())
    answer = await wire.client().call(
        "POST", f"{path}/send-text", json={"phone": "5511988887777", "message": "Olá *ê*\n😀"}
    )
    assert answer.status == 200
    sent = answer.json()
    assert set(sent) == {"zaapId", "messageId", "id"}
    assert sent["id"] == sent["messageId"]
    assert wire.messages.sent() == [
        {"type": "text", "message": "Olá *ê*\n😀", "typing_s": 0.0, "chat": "5511988887777", "delay": None}
    ]


async def test_every_attribute(wire: Wire) -> None:
    """Delays, reply, edit, private answer and mentions reach the message; numbers may come as texts."""
    path = await wire.instance(await wire.account())
    body = {
        "phone": 5511988887777,
        "message": "oi",
        "delayMessage": "5",
        "delayTyping": 3,
        "messageId": "3EB0AA",
        "editMessageId": "3EB0BB",
        "privateAnswer": True,
        "mentioned": ["5511977776666", 5511966665555],
        "groupMentioned": [{"phone": "120363012345678901-group", "subject": "Equipe"}],
        "unknown": 1,
    }
    assert (await wire.client().call("POST", f"{path}/send-text", json=body)).status == 200
    assert wire.messages.sent() == [
        {
            "type": "text",
            "message": "oi",
            "quote": {"wa_id": "3EB0AA", "sender": "5511988887777"},
            "mentioned": ("5511977776666", "5511966665555"),
            "group_mentioned": ({"group": "120363012345678901-group", "subject": "Equipe"},),
            "private_answer": True,
            "edits_wa_id": "3EB0BB",
            "typing_s": 3.0,
            "chat": "5511988887777",
            "delay": 5.0,
        }
    ]


async def test_null_for_every_option(wire: Wire) -> None:
    """A client that sends null for all it does not use is served."""
    path = await wire.instance(await wire.account())
    names = (
        "delayMessage",
        "delayTyping",
        "messageId",
        "editMessageId",
        "privateAnswer",
        "mentioned",
        "groupMentioned",
    )
    body = {"phone": "+55 (11) 98888-7777", "message": "oi", **dict.fromkeys(names)}
    assert (await wire.client().call("POST", f"{path}/send-text", json=body)).status == 200
    assert wire.messages.sent() == [
        {"type": "text", "message": "oi", "typing_s": 0.0, "chat": "5511988887777", "delay": None}
    ]


async def test_empty_text_for_every_option(wire: Wire) -> None:
    """A form that sends an empty text for all it does not use is served; ids of blanks alone are none."""
    path = await wire.instance(await wire.account())
    empty = ("delayMessage", "delayTyping", "privateAnswer", "mentioned", "groupMentioned")
    body = {
        "phone": "5511988887777",
        "message": "oi",
        "messageId": " ",
        "editMessageId": "\t",
        **dict.fromkeys(empty, ""),
    }
    assert (await wire.client().call("POST", f"{path}/send-text", json=body)).status == 200
    assert wire.messages.sent() == [
        {"type": "text", "message": "oi", "typing_s": 0.0, "chat": "5511988887777", "delay": None}
    ]


@pytest.mark.parametrize(
    ("given", "text"),
    [(b"482913", "482913"), (b"-5", "-5"), (b"19.9", "19.9"), (b"9" * 30, "9" * 30), (b'"007"', "007")],
)
async def test_a_number_as_message(wire: Wire, given: bytes, text: str) -> None:
    """One-time codes and prices come as numbers from low-code builders; their digits are the text."""
    path = await wire.instance(await wire.account())
    body = b'{"phone": "5511988887777", "message": ' + given + b"}"
    assert (await wire.client().call("POST", f"{path}/send-text", body=body, headers=JSON)).status == 200
    assert wire.messages.sent()[0]["message"] == text


async def test_ids_are_kept_without_blanks(wire: Wire) -> None:
    """The ids of the message replied to and edited lose the blanks around them, which no id has."""
    path = await wire.instance(await wire.account())
    body = {"phone": "5511988887777", "message": "oi", "messageId": " 3EB0AA\n", "editMessageId": "3EB0BB "}
    assert (await wire.client().call("POST", f"{path}/send-text", json=body)).status == 200
    (sent,) = wire.messages.sent()
    assert (sent["quote"], sent["edits_wa_id"]) == ({"wa_id": "3EB0AA", "sender": "5511988887777"}, "3EB0BB")


@pytest.mark.parametrize(
    ("given", "kept"), [(0, 0.0), (15, 15.0), (99, 15.0), (-1, None), ("nan", None), ("inf", 15.0)]
)
async def test_delay_bounds(wire: Wire, given: object, kept: float | None) -> None:
    """Delays are at most 15 seconds; negative ones and what is no number mean the default."""
    path = await wire.instance(await wire.account())
    body = {"phone": "5511988887777", "message": "oi", "delayMessage": given}
    assert (await wire.client().call("POST", f"{path}/send-text", json=body)).status == 200
    assert wire.messages.sent()[0]["delay"] == kept


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"message": "x"}, "phone is required"),
        ({"phone": "5511988887777"}, "message is required"),
        ({"phone": "5511988887777", "message": ""}, "message"),
        ({"phone": "5511988887777", "message": True}, "message: expected number or string, got boolean"),
        ({"phone": "5511988887777", "message": ["x"]}, "message: expected number or string, got list"),
        ({"phone": "5511988887777", "message": {"text": "x"}}, "message: expected number or string, got object"),
        ({"phone": "5511988887777", "message": None}, "message: expected number or string, got null"),
        ({"phone": "abc", "message": "x"}, "Invalid phone"),
        ({"phone": "", "message": "x"}, "phone must not be empty"),
        ({"phone": {"a": 1}, "message": "x"}, "phone: expected"),
        ({"phone": 10**400, "message": "x"}, "Invalid phone"),
        ({"phone": "5511988887777", "message": "x", "mentioned": "5511"}, "mentioned: expected list"),
        ({"phone": "5511988887777", "message": "x", "mentioned": [{}]}, "mentioned[0]"),
        ({"phone": "5511988887777", "message": "x", "groupMentioned": [{"phone": "1"}]}, "groupMentioned[0].subject"),
        ({"phone": "5511988887777", "message": "x", "delayMessage": "soon"}, "delayMessage: expected number"),
        ({"phone": "5511988887777", "message": "a\u0000b"}, "U+0000"),
    ],
)
async def test_bad_send(wire: Wire, body: dict[str, object], words: str) -> None:
    """Wrong input is a 400 naming the field; nothing is queued."""
    path = await wire.instance(await wire.account())
    answer = await wire.client().call("POST", f"{path}/send-text", json=body)
    assert answer.status == 400
    assert words in answer.json()["error"]
    assert wire.messages.rows == []


async def test_not_queued_while_disconnected(wire: Wire) -> None:
    """An instance told not to queue while disconnected answers `{"value": false}` and takes messages when connected."""
    path = await wire.instance(await wire.account(), disableEnqueueWhenDisconnected=True)
    body = {"phone": "5511988887777", "message": "oi"}
    answer = await wire.client().call("POST", f"{path}/send-text", json=body)
    assert (answer.status, answer.json()) == (200, {"value": False})
    assert wire.messages.rows == []
    await wire.pool.execute("insert into session (instance_id, condition) values ($1, 'connected')", _id(path))
    assert "zaapId" in (await wire.client().call("POST", f"{path}/send-text", json=body)).json()
    await wire.pool.execute("update session set condition = 'disconnected' where instance_id = $1", _id(path))
    await wire.client().call("PUT", f"{path}/update-queue-settings", json={"disableEnqueueWhenDisconnected": False})
    assert "zaapId" in (await wire.client().call("POST", f"{path}/send-text", json=body)).json()


async def test_full_queue(wire: Wire) -> None:
    """A full queue is a 400 with words."""
    path = await wire.instance(await wire.account())
    wire.messages.fails = QueueFull()
    answer = await wire.client().call("POST", f"{path}/send-text", json={"phone": "5511988887777", "message": "oi"})
    assert (answer.status, answer.json()) == (400, {"error": "The queue of this instance is full (1000 messages)"})


async def test_queue(wire: Wire) -> None:
    """Listing in both shapes, counting, removing one and clearing; each instance sees its own queue only."""
    account = await wire.account()
    path, other = await wire.instance(account), await wire.instance(account)
    sent = []
    for number in range(5):
        body = {"phone": "5511988887777", "message": f"m{number}", "delayMessage": number or None, "delayTyping": 1}
        sent.append((await wire.client().call("POST", f"{path}/send-text", json=body)).json())
    client = wire.client()
    assert (await client.call("GET", f"{path}/queue/count")).json() == {"count": 5}
    assert (await client.call("GET", f"{other}/queue/count")).json() == {"count": 0}
    second = (await client.call("GET", f"{path}/queue?page=2&pageSize=2")).json()["messages"]
    assert [item["Message"] for item in second] == ["m2", "m3"]
    assert second[0] == {
        "_id": sent[2]["zaapId"],
        "ZaapId": sent[2]["zaapId"],
        "MessageId": sent[2]["messageId"],
        "InstanceId": _id(path),
        "Phone": "5511988887777",
        "Message": "m2",
        "DelayMessage": 2.0,
        "DelayTyping": 1.0,
        "IsTrial": True,
        "Created": 1_767_225_600_000,
        "CreatedAt": "2026-01-01T00:00:00.000+00:00",
        "Beta": False,
    }
    seen, state = [], None
    while True:
        page = (await client.call("POST", f"{path}/queue", json={"pageSize": 2, "pagingState": state})).json()
        seen += [item["Message"] for item in page["messages"]]
        state = page["pagingState"]
        if not page["hasMore"]:
            break
    assert seen == [f"m{number}" for number in range(5)]
    assert state is None
    assert (await client.call("DELETE", f"{path}/queue/{sent[1]['zaapId']}")).json() == {"value": True}
    assert (await client.call("DELETE", f"{path}/queue/{sent[1]['zaapId']}")).json() == {"value": False}
    assert (await client.call("DELETE", f"{path}/queue/{sent[2]['messageId']}")).json() == {"value": True}
    assert (await client.call("DELETE", f"{path}/queue/%01x")).json() == {"value": False}
    assert (await client.call("DELETE", f"{path}/queue")).status == 200
    assert (await client.call("GET", f"{path}/queue/count")).json() == {"count": 0}


async def test_a_page_of_the_queue_has_room_for_so_many_texts(wire: Wire) -> None:
    """Where there is no more room, a page ends and says so; one of the old listing goes on without texts."""
    path = await wire.instance(await wire.account())
    client = wire.client()
    for number in range(5):
        await client.call("POST", f"{path}/send-text", json={"phone": "5511988887777", "message": f"m{number}"})
    wire.messages.texts_max = 2
    old = (await client.call("GET", f"{path}/queue?page=1&pageSize=4")).json()["messages"]
    assert [item["Message"] for item in old] == ["m0", "m1", "", ""]
    old = (await client.call("GET", f"{path}/queue?page=2&pageSize=4")).json()["messages"]
    assert [item["Message"] for item in old] == ["m4"]
    pages: list[list[str]] = []
    state = None
    while not pages or state:
        page = (await client.call("POST", f"{path}/queue", json={"pageSize": 4, "pagingState": state})).json()
        pages.append([item["Message"] for item in page["messages"]])
        state = page["pagingState"]
    assert pages == [["m0", "m1"], ["m2", "m3"], ["m4"]]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({}, b'"DelayMessage":-1,"DelayTyping":0,'),
        ({"delayMessage": 5, "delayTyping": 3.0}, b'"DelayMessage":5,"DelayTyping":3,'),
        ({"delayMessage": 1.5, "delayTyping": 0.25}, b'"DelayMessage":1.5,"DelayTyping":0.25,'),
    ],
)
async def test_queue_shows_whole_delays_as_whole_numbers(wire: Wire, given: dict[str, float], shown: bytes) -> None:
    """A client that reads these fields as integers can: a fraction is there only if one was given."""
    path = await wire.instance(await wire.account())
    body = {"phone": "5511988887777", "message": "oi", **given}
    assert (await wire.client().call("POST", f"{path}/send-text", json=body)).status == 200
    assert shown in (await wire.client().call("GET", f"{path}/queue")).body
    assert shown in (await wire.client().call("POST", f"{path}/queue")).body


@pytest.mark.parametrize("body", [None, b"", b"[]", b"{}", b"null", b'""', b" null\r\n", b"  "])
@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded", None])
async def test_queue_listing_without_body(wire: Wire, body: bytes | None, content_type: str | None) -> None:
    """POST queue needs no body: what clients send in its place is none, whatever it is announced as."""
    path = await wire.instance(await wire.account())
    headers = {"Content-Type": content_type} if content_type else {}
    answer = await wire.client().call("POST", f"{path}/queue", body=body, headers=headers)
    assert (answer.status, answer.json()) == (200, {"messages": [], "pagingState": None, "hasMore": False})


@pytest.mark.parametrize("state", ["x", "////", "LTE=", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5", "é"])
async def test_foreign_paging_state(wire: Wire, state: str) -> None:
    """A paging state that is not ours is a 400."""
    path = await wire.instance(await wire.account())
    assert (await wire.client().call("POST", f"{path}/queue", json={"pagingState": state})).status == 400
