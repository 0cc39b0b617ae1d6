"""The product started on what an older one left behind when it was killed: nothing that was accepted is lost.

Real: everything; the data were made by running commit 28a2611 (tests/data/upgrade_from_28a2611/README.md). Oracles: the
receiver's own record, what the simulated phones show, and what was written down when the data were made.
"""

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.product import TOMADA, Phone, Product, running, wait_for
from tests.acceptance.remains import sql
from tests.receiver import Receiver
from tests.upgrade import ENVIRONMENT, Restored, change, restore

BACK_S = 60.0


class Upgraded:
    """The product on the old data, and the receiver to which the old URLs lead."""

    def __init__(self, product: Product, restored: Restored, receiver: Receiver) -> None:
        self.product = product
        self.restored = restored
        self.receiver = receiver

    def bodies(self, instance: str, kind: str) -> list[dict[str, Any]]:
        """The callbacks of one type that an instance's URLs got; one that was posted again counts once."""
        found = {}
        for request in self.receiver.requests():
            body = json.loads(request["body"])
            if request["target"].split("/")[2] == instance and body["type"] == kind and request["status"] == 200:
                found[request["headers"]["webhook-id"]] = body
        return list(found.values())

    def callback(self, instance: str, kind: str, **says: object) -> dict[str, Any]:
        """The one callback of this type that says this."""

        def found() -> list[dict[str, Any]]:
            bodies = self.bodies(instance, kind)
            return [body for body in bodies if all(body.get(name) == value for name, value in says.items())]

        wait_for(f"{kind} of {instance} with {says}", lambda: bool(found()))
        (body,) = found()
        return body

    def texts(self, phone: str) -> list[str]:
        """What a phone got, in order."""
        return Phone(self.product, self.restored.expected["phones"][phone]).texts()

    def goes_both_ways(self, name: str) -> None:
        """A text to the shop is told, and its answer, a reply, arrives."""
        instance, ana = self.restored.instance(self.product, name), self.restored.phone(self.product, "ana")
        asked = ana.send_text(self.restored.expected["phones"][name], f"{name}: asked afterwards")
        self.callback(name, "ReceivedCallback", messageId=asked)
        instance.send_text(ana.number, f"{name}: answered afterwards", messageId=asked)
        answer = self.shown("ana", f"{name}: answered afterwards")
        assert answer["quoted"] == asked

    def shown(self, phone: str, text: str) -> dict[str, Any]:
        """The message as a phone shows it."""
        owner = self.restored.phone(self.product, phone)
        found: dict[str, Any] = wait_for(
            text, lambda: next((one for one in owner.messages() if one.get("text") == text), None), BACK_S
        )
        return found


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgraded]:
    """Restored once; each test looks at another side of it."""
    folder = tmp_path_factory.mktemp("upgrade")
    receiver = Receiver(folder)
    try:
        restored = restore(folder / "data", receiver)
        call = urllib.request.Request(receiver.url("_set/later/ok"), method="PUT")
        urllib.request.urlopen(call, timeout=10).close()  # the URL that was down is up again
        with running(restored.data, ENVIRONMENT) as product:
            yield Upgraded(product, restored, receiver)
    finally:
        receiver.close()


def test_paired_phones_come_back_and_texts_go_both_ways(old: Upgraded) -> None:
    """No new QR code: the keys and the Signal sessions of the old store are used on."""
    for name in old.restored.paired():
        old.restored.instance(old.product, name).wait_connected(BACK_S)
    for name in old.restored.paired():
        old.goes_both_ways(name)


def test_instances_without_a_phone_are_as_they_were(old: Upgraded) -> None:
    """One that its phone let go, and one that never had one, are served and show a QR code; the deleted one is not."""
    for name in ("unlinked", "never"):
        instance = old.restored.instance(old.product, name)
        assert instance.get("status").body["connected"] is False
        assert instance.get("qr-code").body["value"]
    assert old.restored.instance(old.product, "deleted").get("status").status == 400


def test_the_database_remembers_its_migrations(old: Upgraded) -> None:
    """It was made before databases did."""
    names = [row["name"] for row in sql(old.product, "select name from migration where revision <= '0004' order by 1")]
    assert names == ["0001_instances.sql", "0002_callbacks.sql", "0003_lifecycle.sql", "0004_accounts.sql"]


def test_data_of_an_edit_that_was_never_released_are_refused(
    old: Upgraded, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The start ends in one line and status 1, with the database as it was."""
    folder = tmp_path_factory.mktemp("edited")
    restored = restore(folder / "data", old.receiver)
    change(restored.data, "alter table outgoing_message drop column error")
    command = [*TOMADA, "serve", "--sandbox", "--port", "0", "--data", str(restored.data)]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert line.startswith(
        "tomada: this database (at revision 0004) was made by a Tomada from before the first release"
    )


def test_what_lay_in_a_journal_is_told_once(old: Upgraded) -> None:
    """Messages, receipts and outcomes that were told to WhatsApp as received, and were in no database."""
    for line in old.restored.expected["journals"]:
        name, event = line["instance"], line["event"]
        if not (event.get("unknown") or event.get("kind") == "delivered"):
            kind, says = expected_callback(old.restored, event)
            old.callback(name, kind, **says)
    assert list(old.restored.data.glob("machines/*/journal*")) == []


def test_quarantined_events_are_told(old: Upgraded) -> None:
    """They were put aside because the database was read-only, which was no fault of theirs."""
    expected = old.restored.of("poisoned", "poisoned")
    assert len(expected) == 3
    for one in expected:
        kind, says = expected_callback(old.restored, one["event"])
        old.callback("poisoned", kind, **says)
    assert list(old.restored.data.glob("machines/*/poisoned")) == []
    assert sql(old.product, "select * from quarantined_event") == []


def test_keys_lie_in_the_database_alone(old: Upgraded) -> None:
    """The files from which they were taken over are gone."""
    keys = {row["key"] for row in sql(old.product, "select key from machine.tomada_session")}
    assert keys == {f"{old.restored.expected['instances'][name]['id']}.1" for name in old.restored.paired()}
    assert not (old.restored.data / "instances").exists()


def test_what_may_have_been_sent_under_an_unknown_id_fails_in_words(old: Upgraded) -> None:
    """Sent again it would be another message to whoever has it already; so its outcome is told as unknown."""
    outcomes = {
        one["event"]["zaap_id"]
        for one in old.restored.expected["journals"]
        if "zaap_id" in one["event"] and not one["event"].get("unknown")
    }
    doubtful = [one for one in old.restored.expected["unsettled"] if one["attempts"] and one["zaap_id"] not in outcomes]
    assert {one["instance"] for one in doubtful} == {"refused", "halted", "cut"}
    for one in doubtful:
        words = "The outcome of this message is unknown"
        old.callback(one["instance"], "DeliveryCallback", messageId=one["message_id"], error=words)
        assert old.texts("ana").count(one["text"]) + old.texts("beto").count(one["text"]) <= 1


def expected_callback(restored: Restored, event: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The type of callback that an event in the journal becomes, and what tells it from others."""
    told = {one["wa_id"]: one["message_id"] for one in restored.expected["settled"]}
    ids = {one["zaap_id"]: one["message_id"] for kind in ("settled", "unsettled") for one in restored.expected[kind]}
    match event["type"]:
        case "message_received":
            shown = event.get("edited_wa_id") or event["wa_id"]
            return "ReceivedCallback", {"messageId": shown, "text": {"message": event["content"]["message"]}}
        case "receipt_received":
            return "MessageStatusCallback", {"ids": [told[it] for it in event["wa_ids"]], "status": "PLAYED"}
        case "message_sent":
            return "DeliveryCallback", {"messageId": ids[event["zaap_id"]], "error": None}
        case "message_failed":
            return "DeliveryCallback", {"messageId": ids[event["zaap_id"]], "error": event["error"]}
    raise AssertionError(event)


def test_what_waited_in_the_queue_goes_out_once_and_in_order(old: Upgraded) -> None:
    """Replies and edits among it, which name a message that was sent before."""
    for phone, number in (
        ("ana", old.restored.expected["phones"]["ana"]),
        ("beto", old.restored.expected["phones"]["beto"]),
    ):
        queued = [
            one["text"]
            for one in old.restored.expected["unsettled"]
            if one["state"] == "queued" and one["chat"] == number and not one["attempts"] and not one["edits"]
        ]
        for name in old.restored.paired():
            of_one = [text for text in queued if text.startswith(f"{name}: ")]
            for text in of_one:
                old.shown(phone, text)
            assert [text for text in old.texts(phone) if text in of_one] == of_one
    before = next(one for one in old.restored.expected["sent"] if one["text"] == "cut: this will be edited")
    assert old.shown("ana", "cut: this was edited")["target"] == before["waId"]
    assert old.shown("ana", "cut: queued as a reply")["quoted"] == before["waId"]


def test_messages_sent_before_keep_the_id_that_was_told(old: Upgraded) -> None:
    """A receipt, a reply from the phone, and an edit of ours find them."""
    kept = next(one for one in old.restored.expected["sent"] if one["text"] == "told: this will be replied to")
    beto = old.restored.phone(old.product, "beto")
    shop = old.restored.expected["phones"]["told"]
    answer = beto.reply(shop, "told: replied afterwards", kept["waId"])
    body = old.callback("told", "ReceivedCallback", messageId=answer)
    assert body["referenceMessageId"] == kept["messageId"]
    beto.play(kept["waId"])
    old.callback("told", "MessageStatusCallback", ids=[kept["messageId"]], status="PLAYED")
    edit = {"editMessageId": kept["messageId"]}
    old.restored.instance(old.product, "told").send_text(beto.number, "told: edited afterwards", **edit)
    assert old.shown("beto", "told: edited afterwards")["target"] == kept["waId"]


def test_callbacks_that_waited_are_delivered_and_dead_letters_kept(old: Upgraded) -> None:
    """The receiver of one URL was down, that of another is gone."""
    account = old.restored.account(old.product)
    dead = account.get("/v1/dead-letters").body
    webhook_ids = {one["webhook_id"] for one in old.restored.expected["dead_letters"]}
    assert webhook_ids <= set(json.dumps(dead).replace('"', " ").split()), dead
    waiting = [json.loads(one["payload"])["messageId"] for one in old.restored.expected["callbacks_waiting"]]

    def delivered() -> list[str]:
        return [it["messageId"] for it in old.bodies("poisoned", "ReceivedCallback") if it["messageId"] in waiting]

    wait_for("delivered", lambda: len(delivered()) == len(waiting), 240)
    assert delivered() == waiting
