"""kill -9 of the main process at every recorded step of a deletion: it is finished all the same, once, wholly.

A trigger that the test puts into the product's database holds the record of the n-th step back, so that the blow falls
exactly there: what the step does outside of the database is done, that it is done is not known. The trigger lets go in
the database server that comes after the blow. Real: everything else, with phones that show what is still linked.
"""

from pathlib import Path

import pytest

from tests.acceptance import remains
from tests.acceptance.hooks import Hooks
from tests.acceptance.product import Account, Instance, Phone, Product, http, wait_for

DAY_S = 24 * 3600
AT_ONCE = 4  # deletions that are carried out at the same time (instances/sweeper.py)
MACHINE_STEPS = 5
INSTANCE_STEPS = 7
PURGE_STEP = 5  # of the instance's; it waits for the events' retention
BACK_S = 90.0  # for sessions to come back and be logged out

HOLD = (
    "create table held (name text, steps integer, server timestamptz default pg_postmaster_start_time())",
    """
create function hold() returns trigger language plpgsql as $$
begin
    if exists (select 1 from held where name = new.instance_id and steps = jsonb_array_length(new.done)
               and jsonb_array_length(new.done) > jsonb_array_length(old.done)
               and server = pg_postmaster_start_time()) then
        perform pg_sleep(600);
    end if;
    return new;
end $$
""",
    "create trigger hold before update on deletion for each row execute function hold()",
)
SLEEPING = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"
STEPS = "select scope, epoch, done, finished_ms from deletion where instance_id = $1"
OPEN = "select count(*) from deletion where finished_ms is null and not_before_ms <= lifecycle_now_ms()"
RECEIPTS = "select count(*) from audit where subject = $1 and action = 'erased'"


def hold(product: Product, instance: Instance, steps: int) -> None:
    """The instance's next deletion stops while it records its `steps`-th step."""
    remains.sql(product, "insert into held (name, steps) values ($1, $2)", instance.id, steps)


def blow(product: Product, count: int) -> None:
    """Waits until so many deletions are held, and kills the main process."""
    wait_for(f"{count} held", lambda: remains.sql(product, SLEEPING)[0][0] == count)
    product.kill()
    product.start()


def all_carried_out(product: Product) -> None:
    """Until no deletion that may go on is open."""
    wait_for("deletions finished", lambda: remains.sql(product, OPEN)[0][0] == 0, BACK_S)


def partner_call(instance: Instance, method: str, call: str) -> int:
    """A partner's call on an instance; its status."""
    return http(method, instance.url(f"integrator/on-demand/{call}"), headers=instance.account.headers).status


@pytest.fixture
def product(tmp_path: Path) -> Product:
    """Not started. A cancel takes effect at once, so that the test chooses which deletion begins when."""
    tmp_path.chmod(0o755)
    return Product(tmp_path / "data", {"TOMADA_INSTANCES_PER_MACHINE": "1", "TOMADA_CANCEL_GRACE_DAYS": "0"})


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_kill_at_every_step_of_a_deletion(product: Product, hooks: Hooks) -> None:
    """First of the machine's deletion, then of the instance's; at the end rows, files, processes, phones are seen."""
    product.start()
    try:
        for statement in HOLD:
            remains.sql(product, statement)
        account = product.create_account("--limit", "100")
        pairs = [paired(account, hooks, number) for number in range(INSTANCE_STEPS)]
        instances = [instance for instance, _ in pairs]

        for first in range(0, MACHINE_STEPS, AT_ONCE):
            steps = range(first + 1, min(first + AT_ONCE, MACHINE_STEPS) + 1)
            cancel(product, {step: instances[step - 1] for step in steps})
        cancel(product, {MACHINE_STEPS + 1 + extra: instances[MACHINE_STEPS + extra] for extra in range(2)}, held=False)
        all_carried_out(product)
        for number, (instance, phone) in enumerate(pairs):
            check_machine_is_gone(product, instance, phone)
            assert len(hooks.of(f"crash{number}", "DisconnectedCallback")) == 1, instance
            assert remains.sql(product, RECEIPTS, instance.id)[0][0] == 1

        before_purge = range(1, PURGE_STEP)
        for first in range(0, len(before_purge), AT_ONCE):
            delete(product, {step: instances[step - 1] for step in before_purge[first : first + AT_ONCE]})
        delete(product, {step: instances[step - 1] for step in range(PURGE_STEP, INSTANCE_STEPS + 1)}, held=False)
        all_carried_out(product)
        for step in range(PURGE_STEP, INSTANCE_STEPS + 1):
            hold(product, instances[step - 1], step)
        product.advance_clock(8 * DAY_S)
        blow(product, INSTANCE_STEPS + 1 - PURGE_STEP)
        all_carried_out(product)
        for instance, phone in pairs:
            check_machine_is_gone(product, instance, phone)
            left = remains.rows(product, instance.id)
            assert remains.is_tombstone(product, instance.id), (left, remains.sql(product, STEPS, instance.id))
            assert remains.sql(product, RECEIPTS, instance.id)[0][0] == 2
        assert product.command("audit", "verify")["wrong"] == ""
    finally:
        product.stop()


def paired(account: Account, hooks: Hooks, number: int) -> tuple[Instance, Phone]:
    """A subscribed instance with a phone and a message that waits."""
    instance = account.create_instance(hooks.url(f"crash{number}"))
    phone = account.product.phone(f"551195555000{number}", "Shop")
    instance.pair(phone)
    assert partner_call(instance, "POST", "subscription") == 201
    return instance, phone


def cancel(product: Product, by_step: dict[int, Instance], *, held: bool = True) -> None:
    """Ends these instances, and kills the server while each deletion records the step told."""
    begin(product, by_step, "POST", "cancel", held=held)


def delete(product: Product, by_step: dict[int, Instance], *, held: bool = True) -> None:
    """The same with the delete call."""
    begin(product, by_step, "DELETE", "delete", held=held)


def begin(product: Product, by_step: dict[int, Instance], method: str, call: str, *, held: bool) -> None:
    """Holds, calls, kills."""
    for step, instance in by_step.items():
        if held:
            hold(product, instance, step)
        assert partner_call(instance, method, call) in (200, 201), instance
    if held:
        blow(product, len(by_step))


def check_machine_is_gone(product: Product, instance: Instance, phone: Phone) -> None:
    """No device on the phone, no file, no process, no session, nothing to send."""
    assert phone.linked_devices() == []
    assert remains.files(product, instance.id) == []
    assert remains.machines_of(product, instance.id) == []
    assert "session" not in remains.rows(product, instance.id)
    assert remains.waiting(product, instance.id) == 0
