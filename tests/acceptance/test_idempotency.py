"""Idempotency-Key on create, over the whole product: one instance, whatever is sent again and whatever dies.

Triggers that the test puts into the product's database hold a create at a step, so that kill -9 falls exactly there.
They let go in the database server that comes after the blow.
"""

import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from http.client import HTTPException
from pathlib import Path

from tests.acceptance import remains
from tests.acceptance.product import Account, Product, Reply, http, wait_for

PATH = "/instances/integrator/on-demand"

# Step of a create -> the event whose trigger holds it there. The last one holds it when all statements are done.
STEPS = {
    "note the key": "trigger hold_key before insert on idempotency for each row",
    "count the instance": "trigger hold_count before update of instances_live on account for each row",
    "insert the instance": "trigger hold_instance before insert on instance for each row",
    "keep the reply": "trigger hold_reply before update of completed_ms on idempotency for each row",
    "commit": "constraint trigger hold_commit after insert on instance deferrable initially deferred for each row",
}
HOLD = (
    "create table held (account_id text, step text, server timestamptz default pg_postmaster_start_time())",
    """
create function hold() returns trigger language plpgsql as $$
begin
    if exists (select 1 from held where step = tg_argv[0] and server = pg_postmaster_start_time()
               and account_id = coalesce(to_jsonb(new) ->> 'account_id', to_jsonb(new) ->> 'id')) then
        perform pg_sleep(600);
    end if;
    return new;
end $$
""",
    *(f"create {event} execute function hold('{step}')" for step, event in STEPS.items()),
)
SLEEPING = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"
LEFT = """
select (select count(*) from instance where account_id = $1), (select instances_live from account where id = $1),
    (select count(*) from idempotency where account_id = $1),
    (select count(*) from idempotency where account_id = $1 and completed_ms is not null)
"""
CLAIMS_ANEW = "update idempotency set claimed_ms = real_now_ms()"  # a slow start shall not outlast the claims
CLAIMS_OVER = "update idempotency set claimed_ms = claimed_ms - 61000 where completed_ms is null"


def create(account: Account, key: str, name: str = "Shop") -> Reply:
    """A create with a key."""
    headers = {**account.headers, "Idempotency-Key": key}
    return http("POST", f"{account.product.base}{PATH}", {"name": name}, headers=headers)


def total(account: Account) -> int:
    """How many instances the account has."""
    return int(account.get("/instances").body["total"])


def test_many_at_once_make_one_instance(account: Account, product: Product) -> None:
    """Each hears the one instance, or 409; another body is refused; another account's same key is another key."""
    mine, other = product.create_account(), product.create_account()
    replies: list[Reply] = []
    threads = [threading.Thread(target=lambda: replies.append(create(mine, "order-1"))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = Counter(reply.status for reply in replies)
    assert set(statuses) <= {200, 409}
    assert statuses[200] >= 1
    assert len({reply.body["id"] for reply in replies if reply.status == 200}) == 1
    assert total(mine) == 1
    again = create(mine, "order-1")
    assert again.body["id"] in {reply.body["id"] for reply in replies if reply.status == 200}
    refused = create(mine, "order-1", "Another name")
    assert (refused.status, refused.body) == (400, {"error": "This Idempotency-Key was used for another request"})
    assert create(other, "order-1").body["id"] != again.body["id"]
    assert (total(mine), total(other)) == (1, 1)


def test_the_answer_survives_kill_and_restart(tmp_path: Path) -> None:
    """The same bytes answer the same instance and token after kill -9, and after an orderly stop."""
    tmp_path.chmod(0o755)
    product = Product(tmp_path / "data")
    product.start()
    try:
        account = product.create_account()
        first = create(account, "order-2")
        product.kill()
        product.start()
        assert create(account, "order-2").body == first.body
        assert product.stop() == 0
        product.start()
        assert create(account, "order-2").body == first.body
        assert total(account) == 1
        token = first.body["token"]
        assert http("GET", f"{product.base}/instances/{first.body['id']}/token/{token}/status").status == 200
    finally:
        product.stop()


def test_a_kill_at_every_step_of_a_create(tmp_path: Path) -> None:
    """After kill -9 nothing is there but the claim; a minute later the same key makes one instance, and one only."""
    tmp_path.chmod(0o755)
    product = Product(tmp_path / "data")
    product.start()
    try:
        for statement in HOLD:
            remains.sql(product, statement)
        accounts = {step: product.create_account() for step in STEPS}
        plain = product.create_account()
        held = [*((account, step) for step, account in accounts.items()), (plain, "insert the instance")]
        for account, step in held:
            remains.sql(product, "insert into held values ($1, $2)", account.id, step)
        calls = [unanswered(partial(create, account, "order-3")) for account in accounts.values()]
        calls.append(unanswered(lambda: plain.post(PATH, {"name": "Shop"})))
        wait_for("all are held", lambda: remains.sql(product, SLEEPING)[0][0] == len(held))
        product.kill()
        for call in calls:
            assert call() is None, "nobody was answered"
        product.start()

        remains.sql(product, CLAIMS_ANEW)
        assert left(plain) == (0, 0, 0, 0)
        for step, account in accounts.items():
            noted = int(step != "note the key")
            assert left(account) == (0, 0, noted, 0), step
            assert not noted or create(account, "order-3").status == 409, step
        remains.sql(product, CLAIMS_OVER)
        for step, account in accounts.items():
            first = create(account, "order-3")
            assert first.status == 200, (step, first)
            assert create(account, "order-3").body == first.body
            assert left(account) == (1, 1, 1, 1), step
        assert plain.create_instance().get("status").status == 200
        assert left(plain) == (1, 1, 0, 0)
    finally:
        product.stop()


def left(account: Account) -> tuple[int, ...]:
    """Instances, the account's count of them, keys, kept replies."""
    return tuple(remains.sql(account.product, LEFT, account.id)[0])


def unanswered(call: Callable[[], Reply]) -> Callable[[], Reply | None]:
    """Makes the call beside us; what comes back waits for its end and says what was answered, None for nothing."""
    answers: list[Reply] = []

    def run() -> None:
        try:
            answers.append(call())
        except (OSError, HTTPException):
            return

    thread = threading.Thread(target=run)
    thread.start()

    def end() -> Reply | None:
        thread.join()
        return answers[0] if answers else None

    return end
