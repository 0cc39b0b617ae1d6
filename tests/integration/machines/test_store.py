"""What a host that starts reads of a session: above all, of which machine the session is."""

import msgspec
import pytest

from tomada.machines import store
from tomada.machines.session_state import SessionState
from tomada.postgres.pool import Pool

ACCOUNT = """
insert into account (id, name, partner_token_hash, partner_token_sealed, signing_secret_sealed)
values ('A', 'test', 'h', 's', 's')
"""
INSTANCE = """
insert into instance (id, account_id, token_hash, token_sealed, name, session_name, created_ms, due_ms, state, epoch)
values ('I', 'A', 'h', 's', '', '', 0, 0, $1, $2)
"""


@pytest.mark.parametrize(
    ("state", "epoch", "machine_epoch"),
    [
        ("trial", 1, 1),
        ("active", 3, 3),
        ("in_cancellation", 3, 3),
        ("expired", 2, 1),
        ("canceled", 4, 3),
        ("deleted", 3, 1),
    ],
)
async def test_a_session_is_of_the_machine_from_before_the_end(
    pool: Pool, state: str, epoch: int, machine_epoch: int
) -> None:
    """A deletion with the instance's present epoch must find the session older than itself, also after a restart."""
    await pool.execute(ACCOUNT)
    await pool.execute(INSTANCE, state, epoch)
    read = await store.read_one(pool, "I")
    assert read is not None
    assert read.epoch == machine_epoch


async def test_a_name_with_a_nul_is_written_without_it(pool: Pool) -> None:
    """The account's owner chooses it; a row that is refused for it would leave the session unpaired after a restart."""
    await pool.execute(ACCOUNT)
    await pool.execute(INSTANCE, "active", 1)
    state = SessionState(
        wanted=True, condition="banned", reason="\0why", phone="55\0", lid="9\0", push_name="A\0na", platform="\0"
    )

    await store.save(pool, "I", 1, state)

    read = await store.read_one(pool, "I")
    assert read is not None
    named = msgspec.structs.replace(state, reason="why", phone="55", lid="9", push_name="Ana", platform="")
    assert read.state == named
