"""send-text with its attributes, groups, and what the number itself writes, as phones and integrators see it.

Real: everything; oracles: the receiver's own record and what the simulated phones show.
"""

from typing import Any

import pytest

from tests.acceptance.hooks import Hooks
from tests.acceptance.product import Account, Instance, Phone, Product, http, wait_for

SHOP, ANA, CAIO = "5511999960001", "5511999960002", "5511999960003"
KEY = "texts"


class Chat:
    """A shop's instance that tells of its own messages too, two people, and a group of the three."""

    def __init__(self, product: Product, account: Account, hooks: Hooks) -> None:
        self.hooks = hooks
        self.instance: Instance = account.create_instance(hooks.url(KEY), name="Texts")
        self.shop, self.ana, self.caio = (
            product.phone(SHOP, "Shop"),
            product.phone(ANA, "Ana"),
            product.phone(CAIO, "Caio"),
        )
        self.instance.pair(self.shop)
        body = {"owner": ANA, "subject": "Team", "members": [SHOP, CAIO]}
        self.group_jid = str(http("POST", f"{product.base}/sandbox/groups", body).body["id"])
        self.group = self.group_jid.replace("@g.us", "-group")
        assert self.instance.put("update-notify-sent-by-me", {"notifySentByMe": True}).status == 200

    def send(self, to: str, text: str, **more: object) -> str:
        """send-text; the message id, once it was sent."""
        message_id = self.instance.send_text(to, text, **more)["messageId"]
        assert "error" not in self.hooks.wait_delivery(KEY, message_id)
        return message_id

    def asked(self, phone: Phone, to: str, text: str) -> str:
        """A phone writes; the message id once the integrator has heard of it."""
        message_id = phone.send_text(to, text)
        self.hooks.wait_text(KEY, text)
        return message_id

    def heard(self, phone: Phone, text: str) -> dict[str, Any]:
        """The message as a phone shows it."""

        def find() -> dict[str, Any] | None:
            return next((one for one in phone.messages() if one.get("text") == text), None)

        found: dict[str, Any] = wait_for(text, find)
        return found


@pytest.fixture(scope="module")
def chat(product: Product, account: Account, hooks: Hooks) -> Chat:
    """One for all tests here; each uses texts of its own."""
    return Chat(product, account, hooks)


def test_a_group_is_named_by_its_id_and_says_who_wrote(chat: Chat) -> None:
    """phone is `<id>-group`, isGroup true, participantPhone the author; chatLid is of direct chats only."""
    message_id = chat.asked(chat.ana, chat.group_jid, "hello team")

    body = chat.hooks.wait_text(KEY, "hello team")
    assert (body["phone"], body["isGroup"], body["participantPhone"]) == (chat.group, True, ANA)
    assert (body["messageId"], body["senderName"], body["chatLid"]) == (message_id, "Ana", None)
    assert body["participantLid"].endswith("@lid")
    assert body["chatName"] == "Team"


def test_an_answer_in_a_group_quotes_and_mentions(chat: Chat) -> None:
    """messageId makes it a reply, mentioned names people; every member's receipts are told with the participant."""
    asked = chat.asked(chat.ana, chat.group_jid, "who comes?")

    answered = chat.send(chat.group, "you two", messageId=asked, mentioned=[ANA, CAIO])

    for phone in (chat.ana, chat.caio):
        heard = chat.heard(phone, "you two")
        assert (heard["chat"], heard["quoted"], heard["quotedFrom"]) == (chat.group_jid, asked, ANA)
        assert heard["mentioned"] == [ANA, CAIO]

    def told(body: dict[str, Any]) -> bool:
        return answered in body["ids"] and body.get("participant") == CAIO and body["status"] == "RECEIVED"

    status = chat.hooks.wait(KEY, "MessageStatusCallback", told).body
    assert (status["phone"], status["isGroup"]) == (chat.group, True)


def test_a_private_answer_leaves_the_group(chat: Chat) -> None:
    """privateAnswer replies to whoever wrote in the group, and the others see nothing."""
    asked = chat.asked(chat.ana, chat.group_jid, "what do I owe?")

    answered = chat.send(chat.group, "nothing at all", messageId=asked, privateAnswer=True)

    heard = chat.heard(chat.ana, "nothing at all")
    assert (heard["chat"], heard["quoted"], heard["quotedFrom"]) == (SHOP, asked, ANA)
    chat.hooks.wait_status(KEY, answered, "RECEIVED")
    chat.send(chat.group, "for all again")
    chat.heard(chat.caio, "for all again")
    assert "nothing at all" not in chat.caio.texts()


def test_an_edit_is_told_under_the_id_of_what_it_changes(chat: Chat) -> None:
    """editMessageId changes the text on the phone; the callback says isEdit with the first message's id."""
    first = chat.send(CAIO, "see you at 8")

    chat.send(CAIO, "see you at 9", editMessageId=first)

    assert chat.heard(chat.caio, "see you at 9")["target"] == chat.heard(chat.caio, "see you at 8")["id"]
    body = chat.hooks.wait_text(KEY, "see you at 9")
    assert (body["messageId"], body["isEdit"], body["fromMe"], body["fromApi"]) == (first, True, True, True)


def test_one_chat_has_one_identity(chat: Chat, product: Product) -> None:
    """chatLid and chatName are the contact's, whoever writes: the API by number or hidden id, our phone, theirs."""
    lid = http("GET", f"{product.base}/sandbox/phones/{CAIO}").body["lid"]
    chat.asked(chat.caio, SHOP, "by the other")
    chat.send(CAIO, "by number")
    chat.send(lid, "by hidden id")
    chat.shop.send_text(CAIO, "by hand")

    bodies = [chat.hooks.wait_text(KEY, f"by {how}") for how in ("the other", "number", "hidden id", "hand")]
    assert [(body["chatLid"], body["chatName"]) for body in bodies] == [(lid, "Caio")] * 4
    assert len({body["senderLid"] for body in bodies[1:]}) == 1
    in_group = chat.send(chat.group, "by us all")
    body = chat.hooks.wait_text(KEY, "by us all")
    assert (body["messageId"], body["participantLid"]) == (in_group, bodies[1]["senderLid"])
    assert (body["chatLid"], body["chatName"]) == (None, "Team")


def test_what_the_phone_itself_writes(chat: Chat) -> None:
    """With notifySentByMe it is told as fromMe, not fromApi; without, only its status."""
    chat.shop.send_text(CAIO, "typed by hand")
    body = chat.hooks.wait_text(KEY, "typed by hand")
    assert (body["phone"], body["fromMe"], body["fromApi"], body["status"]) == (CAIO, True, False, "SENT")

    chat.instance.put("update-notify-sent-by-me", {"notifySentByMe": False})
    quiet = chat.shop.send_text(CAIO, "typed in silence")
    chat.hooks.wait_status(KEY, quiet, "RECEIVED")
    chat.asked(chat.caio, SHOP, "a message after it")
    told = [it.body.get("text", {}).get("message") for it in chat.hooks.of(KEY, "ReceivedCallback")]
    assert "typed in silence" not in told
    chat.instance.put("update-notify-sent-by-me", {"notifySentByMe": True})


def test_setting_every_url_does_not_ask_for_ones_own_messages(product: Product, account: Account, hooks: Hooks) -> None:
    """A bot that sets all URLs at once must not hear, and answer, its own words, unless it asked for them."""
    instance = account.create_instance(name="Bot")
    instance.pair(product.phone("5511999960009", "Bot"))
    person = product.phone("5511999960010", "Person")
    assert instance.put("update-every-webhooks", {"value": hooks.url("bot") + "/all"}).status == 200
    assert instance.get("me").body["receiveCallbackSentByMe"] is False

    first = instance.send_text(person.number, "said by the bot")["messageId"]
    hooks.wait_status("bot", first, "RECEIVED")
    person.send_text("5511999960009", "said by a person")
    hooks.wait_text("bot", "said by a person")
    assert [it.body["fromMe"] for it in hooks.of("bot", "ReceivedCallback")] == [False]

    instance.put("update-every-webhooks", {"value": hooks.url("bot") + "/all", "notifySentByMe": True})
    instance.send_text(person.number, "said and heard")
    assert hooks.wait_text("bot", "said and heard")["fromMe"] is True
    instance.put("update-notify-sent-by-me", {"notifySentByMe": False})
    assert instance.get("me").body["receiveCallbackSentByMe"] is False


def test_reading_on_ones_own_phone(chat: Chat) -> None:
    """READ_BY_ME, with the id that ReceivedCallback had."""
    message_id = chat.asked(chat.caio, SHOP, "read this")
    chat.shop.read(message_id)
    chat.hooks.wait_status(KEY, message_id, "READ_BY_ME")


@pytest.mark.parametrize(
    ("to", "words"),
    [
        ("5500999999999", "Phone number does not exist"),
        ("999999999999999@lid", "Phone number does not exist"),
        ("120363000000000999-group", "Group does not exist"),
    ],
)
def test_an_address_that_is_not_on_whatsapp(chat: Chat, to: str, words: str) -> None:
    """Accepted, then a DeliveryCallback with the words that clients look for; the next message goes out."""
    nobody = chat.instance.send_text(to, "anybody?")["messageId"]
    assert chat.hooks.wait_delivery(KEY, nobody)["error"] == words
    chat.send(CAIO, "after nobody")
