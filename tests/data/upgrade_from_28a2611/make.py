"""Made the archive in this folder, by running the product of commit 28a2611 and killing it. It runs nowhere else.

    git worktree add ../old 28a2611 && cp -r tests/data/upgrade_from_28a2611 ../old/tests/data/
    cd ../old && make .venv/.dev && .venv/bin/python -m tests.data.upgrade_from_28a2611.make

Everything in the archive is what that product wrote: the script speaks HTTP to it as an integrator and as people with
phones do, and where a state cannot be met by chance it makes the world around it misbehave: a fault of the simulated
network, a lock in PostgreSQL that holds up the pipeline, a database that is read-only for some seconds. No row and no
line is written by hand. README.md says what is in it.
"""

import asyncio
import json
import os
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.acceptance.hooks import Hooks
from tests.acceptance.product import Account, Instance, Phone, Product, http, wait_for
from tests.acceptance.remains import sql
from tests.receiver import Receiver
from tomada.postgres.launcher import embedded_server
from tomada.postgres.programs import find_programs

HERE = Path(__file__).parent
COMMIT = "28a2611"
PARTNER_TOKEN = "tmd_upgrade_fixture_partner_token"
OPERATOR_TOKEN = "upgrade-fixture-operator-token"
ANA, BETO = "5511988880001", "5511988880002"
SHOPS = {
    "told": "5511977770001",
    "outcome": "5511977770002",
    "refused": "5511977770003",
    "halted": "5511977770007",
    "cut": "5511977770004",
    "poisoned": "5511977770005",
    "unlinked": "5511977770006",
}
NOBODY = "5511900009999"  # a number without a phone
MADE_ANEW = (  # PostgreSQL's files: the dump has what is in them; the sandbox's certificates end some day
    "data/postgres",
    "data/database.address",
    *(f"data/sandbox/{name}" for name in ("ca-bundle.pem", "tls.key", "tls.pem")),
)
PAIRED = ("told", "outcome", "refused", "halted", "cut", "poisoned")


class Lock:
    """A transaction of a bystander that holds a lock in the product's database until the script ends."""

    def __init__(self, product: Product, statement: str) -> None:
        psql = find_programs().bin_dir / "psql"
        dsn = (product.data / "database.address").read_text()
        self._process = subprocess.Popen(
            [str(psql), "-qAt", dsn], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(
            f"set idle_in_transaction_session_timeout = 0; begin; {statement}; select 'locked';\n"
        )
        self._process.stdin.flush()
        while "locked" not in (line := self._process.stdout.readline()):
            assert line, "psql ended"

    def end(self) -> None:
        """End the bystander."""
        self._process.kill()
        self._process.communicate()


def as_admin(product: Product, *statements: str) -> None:
    """What the operator of a database does."""
    dsn = (product.data / "database.address").read_text().replace("tomada@/tomada", "postgres@/postgres")
    for statement in statements:
        subprocess.run([str(find_programs().bin_dir / "psql"), "-qAt", dsn, "-c", statement], check=True)


class Stage:
    """The running product, who is on it, and what is written down for later tests."""

    def __init__(self, product: Product, receiver: Receiver) -> None:
        self.product = product
        self.receiver = receiver
        self.hooks = Hooks(receiver)
        account_id = sql(product, "select id from account")[0]["id"]
        self.account = Account(product, account_id, PARTNER_TOKEN, None)
        self.ana, self.beto = product.phone(ANA, "Ana"), product.phone(BETO, "Beto")
        self.instances: dict[str, Instance] = {}
        self.shops: dict[str, Phone] = {}
        self.sent: list[dict[str, Any]] = []
        self.received: list[dict[str, Any]] = []
        self.group = ""

    def create(self, key: str, **more: object) -> Instance:
        """An instance, paid for if it is one that is to last."""
        instance = self.account.create_instance(self.hooks.url(key), name=f"Shop {key}", **more)
        if key not in ("never", "deleted"):
            path = instance.url("integrator/on-demand/subscription")
            reply = http("POST", path, headers=self.account.headers)
            assert reply.status < 300, reply
        self.instances[key] = instance
        return instance

    def pair(self, key: str) -> None:
        """With a phone of its own; then texts go both ways, so that there are Signal sessions both ways."""
        instance = self.create(key)
        assert instance.put("update-notify-sent-by-me", {"notifySentByMe": True}).status == 200
        shop = self.shops[key] = self.product.phone(SHOPS[key], f"Shop {key}")
        instance.pair(shop)
        for phone in (self.ana, self.beto):
            self.ask(key, phone, f"{key}: hello, are you open?")
            self.answer(key, phone, f"{key}: yes, come in")
            self.ask(key, phone, f"{key}: thank you")

    def ask(self, key: str, phone: Phone, text: str, to: str | None = None) -> str:
        """A phone writes, and the integrator hears of it."""
        wa_id = phone.send_text(to or SHOPS[key], text)
        self.hooks.wait_text(key, text)
        self.received.append({"instance": key, "from": phone.number, "chat": to, "text": text, "waId": wa_id})
        return wa_id

    def answer(self, key: str, phone: Phone, text: str, to: str | None = None, **more: object) -> str:
        """The instance writes; the messageId, once it is sent, delivered and read."""
        reply = self.instances[key].send_text(to or phone.number, text, **more)
        message_id = reply["messageId"]
        assert "error" not in self.hooks.wait_delivery(key, message_id)
        shown = wait_for(text, lambda: next((m for m in phone.messages() if m.get("text") == text), None))
        self.hooks.wait_status(key, message_id, "RECEIVED")
        phone.read(shown["id"])
        self.hooks.wait_status(key, message_id, "READ")
        chat = to or phone.number
        self.sent.append(
            {"instance": key, "chat": chat, "text": text, "waId": shown["id"], "to": phone.number, **reply}
        )
        return message_id

    def state(self, key: str, zaap_id: str) -> str:
        """Of an outgoing message."""
        statement = "select state from outgoing_message where instance_id = $1 and zaap_id = $2"
        return str(sql(self.product, statement, self.instances[key].id, zaap_id)[0]["state"])

    def slot(self, key: str) -> int:
        """In which machine an instance's session is."""
        found = [
            (process, path)
            for process in psutil.Process(self.product.pid).children(recursive=True)
            if any(self.instances[key].id in file.path for file in process.open_files())
            for path in [process.cmdline()]
        ]
        ((_, command),) = found
        return int(Path(command[command.index("--machine-dir") + 1]).name)

    def machine(self, slot: int) -> int:
        """The pid of a machine."""
        for process in psutil.Process(self.product.pid).children(recursive=True):
            if str(self.product.data / "machines" / str(slot)) in process.cmdline():
                return process.pid
        raise AssertionError(f"no machine in slot {slot}")


def journal(data: Path, slot: int) -> list[dict[str, Any]]:
    """The events in a journal that are not acknowledged."""
    head, *lines = (data / "machines" / str(slot) / "journal").read_bytes().splitlines()
    told = [json.loads(line) for line in lines]
    return [line for line in told if line["journal"] > int(head)]


def in_journal(stage: Stage, slot: int, matches: Callable[[dict[str, Any]], bool]) -> None:
    """Wait until an event lies there."""

    def look() -> bool:
        return any(matches(line["event"]) for line in journal(stage.product.data, slot))

    wait_for(f"a line in journal {slot}", look)


def deleted(stage: Stage) -> None:
    """One whose trial was over and that was deleted. First of all: the clock is moved for it."""
    gone = stage.create("deleted")
    stage.product.advance_clock(172_801)

    def delete() -> bool:
        url = gone.url("integrator/on-demand/delete")
        return http("DELETE", url, headers=stage.account.headers).status == 200

    wait_for("deleted", delete)
    stage.product.advance_clock(8 * 86_400)  # its events outlive it by a week
    receipt = f"/v1/instances/{gone.id}/erasure-receipt"
    wait_for("erased", lambda: stage.account.get(receipt).status == 200)


def ordinary_life(stage: Stage) -> None:
    """Seven shops that talk to two people: texts, receipts, replies, edits, a group, other kinds."""
    for key in SHOPS:
        stage.pair(key)
    told = stage.instances["told"]
    body = {"owner": ANA, "subject": "Team", "members": [SHOPS["told"], BETO]}
    stage.group = str(http("POST", f"{stage.product.base}/sandbox/groups", body).body["id"])
    group = stage.group.replace("@g.us", "-group")
    question = stage.ask("told", stage.ana, "told: who comes tonight?", to=stage.group)
    stage.answer("told", stage.beto, "told: we all do", to=group, messageId=question, mentioned=[ANA, BETO])
    stage.answer("told", stage.ana, "told: to the group again", to=group)
    first = stage.answer("told", stage.ana, "told: see you at 8")
    stage.answer("told", stage.ana, "told: see you at 9", editMessageId=first)
    asked = stage.ask("told", stage.beto, "told: how much is it?")
    stage.answer("told", stage.beto, "told: ten", messageId=asked)
    shown = next(m for m in stage.beto.messages() if m.get("text") == "told: ten")
    http("POST", f"{stage.beto.url}/send", {"to": SHOPS["told"], "text": "told: too much", "quoted": shown["id"]})
    stage.hooks.wait_text("told", "told: too much")
    http("POST", f"{stage.ana.url}/send", {"to": SHOPS["told"], "image": {"caption": "a picture"}})
    stage.hooks.wait("told", "ReceivedCallback", lambda it: it.get("waitingMessage") is True)
    stage.answer("outcome", stage.ana, "outcome: kept for a late receipt")
    stage.answer("cut", stage.ana, "cut: this will be edited")
    stage.answer("told", stage.beto, "told: this will be replied to")
    assert told.get("status").body["connected"] is True


def others(stage: Stage) -> None:
    """An instance whose phone let it go, and one that never had a phone."""
    device = stage.shops["unlinked"].linked_devices()[0]["device"]
    stage.shops["unlinked"].unlink(device)
    stage.hooks.wait("unlinked", "DisconnectedCallback")
    stage.create("never")


def poison(stage: Stage) -> None:
    """Received while the database is read-only: 28a2611 takes that for the event's fault and puts it aside."""
    slot = stage.slot("poisoned")
    file = stage.product.data / "machines" / str(slot) / "poisoned"
    wa_id = next(one["waId"] for one in stage.sent if one["instance"] == "poisoned" and one["to"] == BETO)
    as_admin(stage.product, "alter system set default_transaction_read_only = on", "select pg_reload_conf()")
    stage.ana.send_text(SHOPS["poisoned"], "poisoned: written while the database was read-only")
    stage.beto.send_text(SHOPS["poisoned"], "poisoned: and so was this")
    http("POST", f"{stage.beto.url}/played", {"ids": [wa_id]})
    wait_for("put aside", lambda: file.exists() and len(file.read_bytes().splitlines()) >= 3, 90)
    as_admin(stage.product, "alter system reset default_transaction_read_only", "select pg_reload_conf()")
    wait_for("writable", lambda: sql(stage.product, "show default_transaction_read_only")[0][0] == "off")


def dead_letters(stage: Stage) -> None:
    """A URL that is gone: what was for it lies in the dead letters."""
    instance = stage.instances["outcome"]
    url = stage.receiver.url("gone/outcome/delivery")
    assert instance.put("update-webhook-delivery", {"value": url}).status == 200
    for count in range(3):
        instance.send_text(BETO, f"outcome: nobody hears of its delivery {count}")
    wait_for("dead letters", lambda: sql(stage.product, "select count(*) from dead_letter")[0][0] >= 3)
    assert instance.put("update-webhook-delivery", {"value": stage.receiver.url("ok/outcome/delivery")}).status == 200


def waiting_callbacks(stage: Stage) -> None:
    """A receiver that answers 500: what is for it waits. `named-later` is 500 until a test says otherwise."""
    instance = stage.instances["poisoned"]
    url = stage.receiver.url("named-later/poisoned/received")
    assert instance.put("update-webhook-received", {"value": url}).status == 200
    for count in range(3):
        stage.ana.send_text(SHOPS["poisoned"], f"poisoned: its callback waits {count}")
    failing = "select count(*) from callback where attempts > 0"
    wait_for("waiting", lambda: sql(stage.product, failing)[0][0] >= 1)
    wait_for("all of them", lambda: sql(stage.product, "select count(*) from callback")[0][0] >= 3)


def held_up(stage: Stage) -> list[Lock]:
    """Sends and events that the machines know of, and PostgreSQL does not."""
    product, slot = stage.product, stage.slot("told")
    assert stage.slot("outcome") == slot
    # Sent, and written as sending: its row is locked before WhatsApp's answer comes.
    product.fault("delay", number=SHOPS["told"], ms=4000)
    sending = stage.instances["told"].send_text(ANA, "told: sent, and the outcome is in the journal")
    wait_for("claimed", lambda: stage.state("told", sending["zaapId"]) == "sending")
    row = f"select from outgoing_message where zaap_id = '{sending['zaapId']}' for update"
    locks = [Lock(product, row)]
    in_journal(stage, slot, lambda event: event.get("zaap_id") == sending["zaapId"])
    product.clear_faults()
    # Sends under way when their machine is killed: WhatsApp's answer never comes, more waits behind them.
    product.fault("no-ack", number=SHOPS["cut"])
    cut = stage.instances["cut"]
    first = next(one for one in stage.sent if one["text"] == "cut: this will be edited")
    open_end = cut.send_text(ANA, "cut: sent, and nobody was told")
    wait_for("sending", lambda: stage.state("cut", open_end["zaapId"]) == "sending")
    wait_for("shown", lambda: "cut: sent, and nobody was told" in stage.ana.texts())
    cut.send_text(ANA, "cut: this was edited", editMessageId=first["messageId"])
    cut.send_text(BETO, "cut: queued for Beto", delayMessage=1)
    cut.send_text(ANA, "cut: queued as a reply", messageId=first["messageId"])
    # An instance that cannot connect, with messages that wait for it; the first went out once, and nobody knows it.
    refused = stage.instances["refused"]
    product.fault("no-ack", number=SHOPS["refused"])
    again = refused.send_text(ANA, "refused: sent once, queued again")
    wait_for("shown", lambda: "refused: sent once, queued again" in stage.ana.texts())
    product.fault("refuse", number=SHOPS["refused"])
    product.fault("drop", number=SHOPS["refused"])
    wait_for("thrown out", lambda: not refused.get("status").body["connected"])
    wait_for("queued again", lambda: stage.state("refused", again["zaapId"]) == "queued")
    for count in range(3):
        refused.send_text(BETO, f"refused: queued while disconnected {count}")
    # From here on nothing that the pipeline handles can be committed.
    locks.append(Lock(product, "lock table event in exclusive mode"))
    told_to_outcome(stage, slot)
    return locks


def told_to_outcome(stage: Stage, slot: int) -> None:
    """What lies in the journal of the machine that is not killed at once."""
    product, told = stage.product, SHOPS["told"]
    receipt_for = next(one for one in stage.sent if one["text"] == "outcome: kept for a late receipt")
    reply_to = next(one for one in stage.sent if one["text"] == "told: this will be replied to")
    hello = next(one for one in stage.received if one["text"] == "told: how much is it?")
    # The first of an instance's events waits in its transaction, the others behind it.
    sent = stage.instances["outcome"].send_text(ANA, "outcome: sent, and its events are in the journal")
    in_journal(stage, slot, lambda event: event.get("zaap_id") == sent["zaapId"])
    wait_for("settled", lambda: stage.state("outcome", sent["zaapId"]) == "sent")
    nobody = stage.instances["outcome"].send_text(NOBODY, "outcome: to a number without WhatsApp")
    in_journal(stage, slot, lambda event: event.get("zaap_id") == nobody["zaapId"])
    http("POST", f"{stage.ana.url}/played", {"ids": [receipt_for["waId"]]})
    stage.ana.send_text(SHOPS["outcome"], "outcome: in the journal")
    stage.ana.send_text(told, "told: in the journal")
    stage.beto.send_text(stage.group, "told: in the journal, to the group")
    reply = {"to": told, "text": "told: in the journal, a reply", "quoted": reply_to["waId"]}
    http("POST", f"{stage.beto.url}/send", reply)
    edit = {"to": told, "edit": {"id": hello["waId"], "text": "told: how much was it?"}}
    http("POST", f"{stage.beto.url}/send", edit)
    for text in ("outcome: in the journal", "a reply", "to the group", "how much was it?"):
        in_journal(stage, slot, lambda event, text=text: text in json.dumps(event))  # type: ignore[misc]
    in_journal(stage, slot, lambda event: receipt_for["waId"] in event.get("wa_ids", ()))
    # With the engine when all ends: told to finish, the machine can only say that it does not know.
    product.fault("no-ack", number=SHOPS["halted"])
    last = stage.instances["halted"].send_text(BETO, "halted: under way when all ended")
    wait_for("shown", lambda: "halted: under way when all ended" in stage.beto.texts())
    assert stage.state("halted", last["zaapId"]) == "sending"
    stage.instances["halted"].send_text(BETO, "halted: queued behind it")


def kill(stage: Stage) -> None:
    """The main process first stops, so that it sees nothing; then a machine dies, then it, then the rest ends."""
    product = stage.product
    children = psutil.Process(product.pid).children(recursive=True)
    victim = stage.machine(stage.slot("cut"))
    os.kill(product.pid, signal.SIGSTOP)
    os.kill(victim, signal.SIGKILL)
    product.kill()
    psutil.wait_procs(children, timeout=60)
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


async def dump(data: Path) -> tuple[str, dict[str, list[dict[str, Any]]]]:
    """The database as SQL, and what later tests look for in it."""
    import asyncpg

    questions = {
        "unsettled": """select instance_id, number, zaap_id, message_id, wa_id, chat, content->>'message' as text,
            content->>'edits_wa_id' as edits, content->'quote'->>'wa_id' as quotes, state, attempts
            from outgoing_message where state in ('queued', 'sending') order by instance_id, number""",
        "settled": """select instance_id, zaap_id, message_id, wa_id, chat, content->>'message' as text, state, error
            from outgoing_message where state not in ('queued', 'sending') order by instance_id, number""",
        "waiting": """select c.instance_id, l.url, c.attempts, e.type, e.id as webhook_id, e.payload
            from callback c join lane l on l.id = c.lane_id
            join event e on (e.instance_id, e.number) = (c.instance_id, c.event_number)
            order by c.lane_id, c.position""",
        "dead": """select d.instance_id, l.url, d.reason, e.type, e.id as webhook_id, e.payload
            from dead_letter d join lane l on l.id = d.lane_id
            join event e on (e.instance_id, e.number) = (d.instance_id, d.event_number)
            order by d.lane_id, d.position""",
        "sessions": "select instance_id, wanted, condition, phone, push_name from session order by instance_id",
        "counts": """select (select count(*) from event) as event, (select count(*) from attempt) as attempt,
            (select count(*) from outgoing_message) as outgoing_message, (select count(*) from instance) as instance,
            (select count(*) from audit) as audit""",
    }
    async with embedded_server(data / "postgres") as server:
        connection = await asyncpg.connect(server.dsn)
        found = {name: [dict(row) for row in await connection.fetch(ask)] for name, ask in questions.items()}
        await connection.close()
        command = [
            str(find_programs().bin_dir / "pg_dump"), "--inserts", "--rows-per-insert=200", "--no-owner",
            "--no-privileges", server.dsn,
        ]  # fmt: skip
        done = await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, text=True)
    # psql's own commands would be in the way of whoever restores without psql.
    return "".join(line for line in done.stdout.splitlines(True) if not line.startswith("\\")), found


def written_down(stage: Stage, found: dict[str, list[dict[str, Any]]], slots: dict[str, int]) -> dict[str, Any]:
    """expected.json."""
    data = stage.product.data
    keys = {instance.id: key for key, instance in stage.instances.items()}

    def named(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"instance": keys[row.pop("instance_id")], **row} for row in rows]

    def lines(slot: int, texts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"slot": slot, "instance": keys[line["instance_id"]], **line} for line in texts]

    journals, poisoned = [], []
    for slot in sorted(set(slots.values())):
        journals += lines(slot, journal(data, slot))
        file = data / "machines" / str(slot) / "poisoned"
        if file.exists():
            poisoned += lines(slot, [json.loads(line) for line in file.read_bytes().splitlines()])
    return {
        "commit": COMMIT,
        "made_at_ms": time.time_ns() // 1_000_000,
        "receiver": f"127.0.0.1:{stage.receiver.port}",
        "account": stage.account.id,
        "partner_token": PARTNER_TOKEN,
        "operator_token": OPERATOR_TOKEN,
        "group": stage.group,
        "phones": {"ana": ANA, "beto": BETO, **SHOPS},
        "instances": {
            key: {
                "id": instance.id,
                "token": instance.token,
                "phone": SHOPS.get(key),
                "paired": key in PAIRED,
                "slot": slots.get(key),
            }
            for key, instance in stage.instances.items()
        },
        "sessions": named(found["sessions"]),
        "sent": stage.sent,
        "received": stage.received,
        "settled": named(found["settled"]),
        "unsettled": named(found["unsettled"]),
        "journals": journals,
        "poisoned": poisoned,
        "callbacks_waiting": named(found["waiting"]),
        "dead_letters": named(found["dead"]),
        "counts": found["counts"][0],
    }


def main() -> None:
    """Make it all."""
    with tempfile.TemporaryDirectory(prefix="tomada-fixture-") as folder:
        Path(folder).chmod(0o755)
        product = Product(
            Path(folder) / "data",
            {
                "TOMADA_INSTANCES_PER_MACHINE": "4",
                "TOMADA_BOOTSTRAP_PARTNER_TOKEN": PARTNER_TOKEN,
                "TOMADA_OPERATOR_TOKEN": OPERATOR_TOKEN,
            },
        )
        receiver = Receiver(Path(folder))
        locks: list[Lock] = []
        try:
            product.start()
            stage = Stage(product, receiver)
            for scene in (deleted, ordinary_life, others, poison, dead_letters, waiting_callbacks):
                scene(stage)
            slots = {key: stage.slot(key) for key in PAIRED}
            locks = held_up(stage)
            kill(stage)
        finally:
            for lock in locks:
                lock.end()
            product.kill()
            receiver.close()
        text, found = asyncio.run(dump(product.data))
        (Path(folder) / "database.sql").write_text(text)
        expected = written_down(stage, found, slots)
        (HERE / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n")
        with tarfile.open(HERE / "made.tar.xz", "w:xz", preset=9) as archive:
            archive.add(Path(folder) / "database.sql", "database.sql")
            archive.add(product.data, "data", filter=packed)


def packed(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Everything but what the next start makes anew, under no account of ours."""
    if member.name.startswith(MADE_ANEW):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    main()
