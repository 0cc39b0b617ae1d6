"""Questions: what is known of a group, of numbers, of hidden ids; and what the machine does not know."""

import msgspec
import pytest

from tests.integration.machines.conftest import Pair
from tests.integration.machines.driven import Driven
from tests.integration.machines.stage import Stage, jid
from tomada.machines.protocol import Ask, CloseSession


async def test_group_info(stage: Stage, shared: Driven, pair: Pair) -> None:
    """Subject, owner and participants with both of their addresses and their rights."""
    owner = await stage.network.phone("Owner")
    body = {"owner": owner, "subject": "Team", "members": [pair.alice_number, pair.bob_number]}
    group = (await stage.network.call("POST", "groups", body))["id"]
    info = await shared.question(pair.alice, "group_info", group=group)
    assert (info["group"], info["subject"]) == (group, "Team")
    people = {one["phone"]: one for one in info["participants"]}
    assert set(people) == {jid(owner), jid(pair.alice_number), jid(pair.bob_number)}
    assert people[jid(owner)]["is_super_admin"]
    assert not people[jid(pair.bob_number)]["is_admin"]
    assert people[jid(pair.bob_number)]["lid"] == await stage.lid(pair.bob_number)


async def test_on_whatsapp(stage: Stage, shared: Driven, pair: Pair) -> None:
    """Which numbers have an account, under which address; all that were asked for are answered."""
    answers = await shared.question(pair.alice, "on_whatsapp", phones=[pair.bob_number, "5599900000000"])
    known = {one["query"]: one for one in answers}
    assert known["+" + pair.bob_number]["exists"]
    assert known["+" + pair.bob_number]["jid"] in {jid(pair.bob_number), await stage.lid(pair.bob_number)}
    assert not known["+5599900000000"]["exists"]


async def test_numbers(stage: Stage, shared: Driven, pair: Pair) -> None:
    """Numbers behind hidden ids, those that this session has met; the others are left out."""
    await stage.say(pair.bob_number, pair.alice_number, "so that we have met")
    await shared.text(pair.alice, "so that we have met")
    lid = await stage.lid(pair.bob_number)
    assert await shared.question(pair.alice, "numbers", lids=[lid, "999@lid"]) == {lid: jid(pair.bob_number)}
    stranger = stage.fresh("stranger")
    await stage.paired(shared, stranger)
    assert await shared.question(stranger, "numbers", lids=[lid]) == {}  # what one tenant knows is not another's


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("make_coffee", {}),
        ("group_info", {"group": "nonsense"}),
        ("group_info", {"group": "1@s.whatsapp.net"}),
        ("group_info", ["not", "an", "object"]),
        ("group_info", {"group": "12345@g.us"}),
        ("numbers", {"lids": ["1@s.whatsapp.net"]}),
        ("on_whatsapp", {"phones": 5}),
    ],
)
async def test_a_question_that_makes_no_sense(shared: Driven, pair: Pair, name: str, arguments: object) -> None:
    """Unknown, badly asked, about nothing: refused in words, and the machine lives on."""
    answer = await shared.ask(Ask(pair.alice, name, arguments))
    assert answer.kind == "refused"
    assert answer.error
    assert await shared.question(pair.alice, "numbers", lids=[]) == {}


@pytest.mark.parametrize(
    "command",
    [
        b'{"type":"make_coffee","instance_id":"alice"}',
        b'{"type":17}',
        b'"open_session"',
        b"[]",
        b'{"type":"open_session"}',
        b'{"type":"open_session","spec":{"instance_id":"x"}}',
        b'{"type":"send","instance_id":"alice"}',
        b'{"type":"send","instance_id":"alice","message":{"chat":"1@s.whatsapp.net"}}',
        b'{"type":"send","instance_id":"alice","message":{"wa_id":"A","raw":"not base64!"}}',
    ],
)
async def test_a_command_that_makes_no_sense(shared: Driven, pair: Pair, command: bytes) -> None:
    """The frame was right, so it is answered: refused, and the machine lives on."""
    answer = await shared.ask_raw(msgspec.Raw(command))
    assert answer.kind == "refused", answer
    await shared.done(CloseSession("nobody"))


async def test_a_question_without_a_session(shared: Driven) -> None:
    """Ask again when it is open."""
    assert (await shared.ask(Ask("nobody", "numbers", {"lids": []}))).kind == "retry"
