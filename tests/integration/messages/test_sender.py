"""The queue of outgoing messages on a real PostgreSQL: order, once, nothing lost.

Real: PostgreSQL, store, accept, sender. Doubled: only the machine, by `Machine` below, which takes messages as the host
does and tells their outcomes when the test says so.
"""

import asyncio
from collections.abc import AsyncIterator
from random import Random  # noqa: TID251 - passed in

import pytest

from tomada.engine.port import Content, EngineRefused, MessageTooLarge, Text
from tomada.errors import DatabaseUnavailable, QueueFull, SubscriptionNeeded
from tomada.messages import store
from tomada.messages.accept import Accepted, accept
from tomada.messages.sender import ATTEMPTS_MAX, SWEEP_S, Sender
from tomada.messages.store import Claim, MessageStore, Outgoing
from tomada.postgres.group_commit import GroupCommit
from tomada.postgres.pool import Pool

INSTANCE = "I" * 32
OUTCOME_S = 0.5
ACCOUNT = "A" * 32


class Machine:
    """Takes messages; `taken` are those whose outcome is still to be told."""

    def __init__(self) -> None:
        self.up = True
        self.epoch = 1
        self.refuse = 0
        self.restarts = 0
        self.fail_restarts = 0
        self.bytes_max = 1000
        self.taken: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    def connected(self, instance_id: str) -> int | None:
        return self.epoch if self.up else None

    async def transmit(self, instance_id: str, message_id: str, chat: str, content: Content) -> None:
        if not self.up or self.refuse:
            self.refuse = max(0, self.refuse - 1)
            raise EngineRefused("not connected", retry=True)
        if len(content.message) > self.bytes_max:
            raise MessageTooLarge
        self.taken.put_nowait((message_id, content.message))

    async def restart(self, instance_id: str) -> None:
        self.restarts += 1
        if self.restarts <= self.fail_restarts:
            raise DatabaseUnavailable

    async def restarted(self, times: int) -> None:
        """Wait until that was asked so often."""
        async with asyncio.timeout(10):
            while self.restarts < times:
                await asyncio.sleep(0.02)

    async def next(self) -> tuple[str, str]:
        return await asyncio.wait_for(self.taken.get(), 5)


class Gate:
    """A place in the sender's way that can be shut; `reached` when somebody stands before it."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self.reached = asyncio.Event()

    def shut(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    async def passed(self) -> None:
        self.reached.set()
        await self._open.wait()


class Store(MessageStore):
    """The real store, whose answers can be lost: the statement is committed, and then the connection breaks."""

    lose_claims = 0
    lose_returns = 0

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool)
        self.claimed = Gate()  # claims are committed, and not yet answered

    async def claim(self, message: Outgoing, epoch: int) -> Claim | None:
        claimed = await super().claim(message, epoch)
        await self.claimed.passed()
        if self.lose_claims:
            self.lose_claims -= 1
            raise ConnectionResetError
        return claimed

    async def give_back(self, instance_id: str, message_id: str, *, counted: bool) -> None:
        if self.lose_returns:
            self.lose_returns -= 1
            raise ConnectionResetError
        await super().give_back(instance_id, message_id, counted=counted)


async def _told(_connection: object, _message: Outgoing) -> None:
    """What became of it is told to nobody here."""


class Queue:
    """A sender with its surroundings."""

    def __init__(self, pool: Pool) -> None:
        self.store = Store(pool)
        self.committer = GroupCommit(pool)
        self.machine = Machine()
        self.failed: list[str] = []
        self.resolving = Gate()
        self.sender = Sender(self.store, self.machine, self._resolve, self._gave_up, (0.0, 0.0), Random(1), OUTCOME_S)

    async def _resolve(self, message: Outgoing) -> Content:
        await self.resolving.passed()
        return message.content

    async def _gave_up(self, message: Outgoing, error: str) -> None:
        self.failed.append(message.message_id)
        await self.store.settle(message.instance_id, message.message_id, "failed", error, _told)

    async def accept(self, text: str, queue_max: int = 1000) -> Accepted:
        accepted = await accept(self.committer, INSTANCE, "5511999999999", Text(text), None, queue_max)
        self.sender.wake(INSTANCE)
        return accepted

    async def tell_sent(self, message_id: str) -> None:
        await self.store.settle(INSTANCE, message_id, "sent", None, _told)
        self.sender.settled(message_id, known=True)


@pytest.fixture
async def queue(pool: Pool) -> AsyncIterator[Queue]:
    """A queue of one instance, its sender running."""
    await pool.execute(
        "insert into account (id, name, partner_token_hash, partner_token_sealed, signing_secret_sealed)"
        " values ($1, 'test', 'x', 'x', 'x')",
        ACCOUNT,
    )
    await pool.execute(
        "insert into instance (id, account_id, token_hash, token_sealed, name, session_name, created_ms, due_ms)"
        " values ($1, $2, 'x', 'x', 'test', 'test', 0, 0)",
        INSTANCE,
        ACCOUNT,
    )
    made = Queue(pool)
    running = asyncio.create_task(made.sender.run())
    yield made
    running.cancel()
    await asyncio.wait([running])


async def test_messages_leave_in_the_order_of_acceptance_one_at_a_time(queue: Queue) -> None:
    """The next message is given to the machine only when the present one's outcome is committed."""
    accepted = [await queue.accept(f"text {number}") for number in range(5)]

    seen = []
    for _ in accepted:
        message_id, _ = await queue.machine.next()
        assert queue.machine.taken.empty()
        seen.append(message_id)
        await queue.tell_sent(message_id)

    assert [one.message_id for one in accepted] == seen
    assert await queue.store.count(ACCOUNT, INSTANCE) == 0


async def test_what_the_machine_does_not_take_waits_for_the_connection(queue: Queue) -> None:
    """A refused hand-over is no attempt: the message keeps its place and goes out when the session is connected."""
    queue.machine.up = False
    accepted = await queue.accept("later")
    assert queue.machine.taken.empty()

    queue.machine.up = True
    queue.sender.wake(INSTANCE)

    assert (await queue.machine.next())[0] == accepted.message_id
    head = await queue.store.head(INSTANCE)
    assert head is not None
    assert (head.state, head.attempts) == ("sending", 1)


async def test_an_unknown_outcome_is_sent_again_in_its_place(queue: Queue) -> None:
    """After a machine died with a message under way, that message is the first to go out again."""
    first = await queue.accept("first")
    second = await queue.accept("second")
    await queue.machine.next()

    await queue.sender.session_opening(INSTANCE)
    queue.sender.wake(INSTANCE)

    assert (await queue.machine.next())[0] == first.message_id
    await queue.tell_sent(first.message_id)
    assert (await queue.machine.next())[0] == second.message_id


@pytest.mark.parametrize("where", ["claim", "quote"])
async def test_a_session_opened_before_the_hand_over_does_not_send_twice(queue: Queue, where: str) -> None:
    """Regression: the claim's answer or the look-up of a quote took a second, and the opening had requeued the message.

    It was sent all the same, and then once more as the head of the queue.
    """
    gate = queue.store.claimed if where == "claim" else queue.resolving
    gate.shut()
    first = await queue.accept("first")
    await asyncio.wait_for(gate.reached.wait(), 5)

    await queue.sender.session_opening(INSTANCE)
    queue.sender.wake(INSTANCE)
    gate.open()

    assert (await queue.machine.next())[0] == first.message_id
    head = await queue.store.head(INSTANCE)
    assert head is not None
    assert (head.zaap_id, head.state) == (first.zaap_id, "sending")
    await queue.tell_sent(first.message_id)
    await settle(queue)
    assert queue.machine.taken.empty()


async def test_a_message_whose_outcome_stays_unknown_fails_after_some_attempts(queue: Queue) -> None:
    """It is not sent for ever: its failure is reported, and the queue goes on."""
    first = await queue.accept("poison")
    second = await queue.accept("second")
    for _ in range(ATTEMPTS_MAX):
        assert (await queue.machine.next())[0] == first.message_id
        await queue.sender.session_opening(INSTANCE)
        queue.sender.wake(INSTANCE)

    assert (await queue.machine.next())[0] == second.message_id
    assert queue.failed == [first.message_id]


async def test_a_claim_whose_answer_is_lost_does_not_block_the_queue(queue: Queue) -> None:
    """Regression: PostgreSQL died between commit and answer, and the message stood as `sending` for ever."""
    queue.store.lose_claims = 1
    first = await queue.accept("first")
    await settle(queue)

    queue.sender.wake(INSTANCE)

    assert (await queue.machine.next())[0] == first.message_id
    head = await queue.store.head(INSTANCE)
    assert head is not None
    assert head.attempts == 1


async def test_a_refused_message_that_could_not_be_given_back_goes_out_later(queue: Queue) -> None:
    """The same, when the database goes away while a message that no machine took is put back."""
    queue.machine.refuse = 1
    queue.store.lose_returns = 1
    first = await queue.accept("first")
    await settle(queue)

    queue.sender.wake(INSTANCE)

    assert (await queue.machine.next())[0] == first.message_id


async def test_a_message_without_an_outcome_is_not_sent_again_by_guess(queue: Queue) -> None:
    """Regression: it was sent twice, although its outcome waited in a machine that was not read.

    Only the session's next opening, before which everything told is committed, may say that the outcome is unknown.
    """
    first = await queue.accept("first")
    second = await queue.accept("second")
    await queue.machine.next()

    await queue.machine.restarted(2)
    queue.sender.wake(INSTANCE)
    await queue.tell_sent(first.message_id)

    assert (await queue.machine.next())[0] == second.message_id
    head = await queue.store.head(INSTANCE)
    assert head is not None
    assert (head.zaap_id, head.attempts) == (second.zaap_id, 1)


async def test_a_restart_that_fails_is_asked_for_again(queue: Queue) -> None:
    """Regression: the database was away at that moment, the lane ended, and nobody was left who waited for the outcome.

    The queue stood until somebody opened the session anew by hand.
    """
    queue.machine.fail_restarts = 1
    first = await queue.accept("first")
    second = await queue.accept("second")
    await queue.machine.next()

    await queue.machine.restarted(2)
    await queue.tell_sent(first.message_id)

    assert (await queue.machine.next())[0] == second.message_id


async def test_a_lane_does_not_wait_for_a_session_that_is_gone(queue: Queue) -> None:
    """Nobody can be asked for the outcome; the message stays as it is until the session is opened anew."""
    first = await queue.accept("first")
    await queue.machine.next()
    queue.machine.up = False

    await settle(queue)

    assert queue.machine.restarts == 0
    head = await queue.store.head(INSTANCE)
    assert head is not None
    assert (head.zaap_id, head.state) == (first.zaap_id, "sending")


async def test_a_message_that_no_machine_can_take_fails_and_blocks_nobody(queue: Queue) -> None:
    """Regression: it was put back for ever, and what was queued behind it never left."""
    first = await queue.accept("x" * (queue.machine.bytes_max + 1))
    second = await queue.accept("second")

    assert (await queue.machine.next())[0] == second.message_id
    assert queue.failed == [first.message_id]


async def settle(queue: Queue) -> None:
    """Wait until the lane has ended."""
    async with asyncio.timeout(5):
        while queue.sender.busy(INSTANCE):
            await asyncio.sleep(0.01)


async def test_a_full_queue_refuses_and_keeps_what_it_has(queue: Queue) -> None:
    """The limit counts waiting messages only; the refused one leaves no trace."""
    queue.machine.up = False
    await queue.accept("one", queue_max=2)
    await queue.accept("two", queue_max=2)

    with pytest.raises(QueueFull):
        await queue.accept("three", queue_max=2)

    assert await queue.store.count(ACCOUNT, INSTANCE) == 2


async def test_an_instance_that_has_just_ended_accepts_nothing(queue: Queue, pool: Pool) -> None:
    """The caller was authorized a moment before; a message behind the end would be neither sent nor reported."""
    await pool.execute("update instance set state = 'expired' where id = $1", INSTANCE)

    with pytest.raises(SubscriptionNeeded):
        await queue.accept("too late")

    assert await queue.store.count(ACCOUNT, INSTANCE) == 0


async def test_an_instance_that_ends_meanwhile_accepts_nothing(queue: Queue, pool: Pool) -> None:
    """Regression: the statement saw it live and wrote the message after the end was committed."""
    async with pool.acquire() as ending:
        transaction = ending.transaction()
        await transaction.start()
        await ending.execute("select from instance where id = $1 for update", INSTANCE)
        await ending.execute("update instance set state = 'expired' where id = $1", INSTANCE)
        accepting = asyncio.create_task(queue.accept("too late"))
        async with asyncio.timeout(5):
            while not await pool.fetchval("select count(*) from pg_locks where not granted"):
                await asyncio.sleep(0.01)
        await transaction.commit()

    with pytest.raises(SubscriptionNeeded):
        await accepting
    assert await queue.store.count(ACCOUNT, INSTANCE) == 0


async def test_a_removed_message_is_not_sent(queue: Queue) -> None:
    """Removing works until the message is under way, and only for the account that owns the instance."""
    queue.machine.up = False
    first = await queue.accept("one")
    second = await queue.accept("two")

    assert await queue.store.cancel("B" * 32, INSTANCE, first.zaap_id) == []
    assert await queue.store.cancel(ACCOUNT, INSTANCE, first.zaap_id) == [first.zaap_id]
    queue.machine.up = True
    queue.sender.wake(INSTANCE)

    assert (await queue.machine.next())[0] == second.message_id
    assert await queue.store.cancel(ACCOUNT, INSTANCE, None) == []


async def test_an_outcome_told_twice_settles_once(queue: Queue) -> None:
    """The second telling reports the same row, whose callbacks are recorded under the same keys; no other does."""
    accepted = await queue.accept("one")
    await queue.machine.next()
    told = []

    async def report(_connection: object, message: Outgoing) -> None:
        told.append(message.message_id)

    for state in ("sent", "sent", "failed"):
        await queue.store.settle(INSTANCE, accepted.message_id, state, None, report)

    assert told == [accepted.message_id] * 2


async def test_what_was_removed_behind_a_message_under_way_is_not_sent(queue: Queue) -> None:
    """The lane knew it as the next head already; it asks for the head again."""
    first = await queue.accept("one")
    second = await queue.accept("two")
    third = await queue.accept("three")
    assert (await queue.machine.next())[0] == first.message_id

    assert await queue.store.cancel(ACCOUNT, INSTANCE, second.message_id) == [second.zaap_id]
    await queue.tell_sent(first.message_id)

    assert (await queue.machine.next())[0] == third.message_id


async def test_what_is_queued_behind_the_last_message_goes_out_at_once(queue: Queue) -> None:
    """Queued after the claim of the last head, it is no part of what the claim brought: the lane asks once more."""
    first = await queue.accept("one")
    assert (await queue.machine.next())[0] == first.message_id
    second = await queue.accept("two")

    await queue.tell_sent(first.message_id)

    async with asyncio.timeout(SWEEP_S / 2):
        assert (await queue.machine.next())[0] == second.message_id


async def test_a_new_machine_s_messages_do_not_leave_through_the_old_one(queue: Queue, pool: Pool) -> None:
    """Subscribed again while the former machine is still connected: they wait, and the lane rests meanwhile."""
    await pool.execute("update instance set state = 'active', epoch = 3 where id = $1", INSTANCE)
    waits = await queue.accept("for the new one")
    while queue.sender.busy(INSTANCE):
        await asyncio.sleep(0.01)
    assert queue.machine.taken.empty()

    queue.machine.epoch = 3
    queue.sender.wake(INSTANCE)

    assert await queue.machine.next() == (waits.message_id, "for the new one")
    await queue.tell_sent(waits.message_id)


async def test_a_page_of_the_queue_is_bounded_in_bytes(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text that goes beyond the bound is the last one shown; the rest are listed without theirs."""
    queue.machine.up = False
    for letter in "a\u00e9\u6f22z":
        await queue.accept(letter * 10)

    async def texts(size: int, **place: int) -> list[str | None]:
        return [listed.message for listed in await queue.store.page(ACCOUNT, INSTANCE, size, **place)]

    assert await texts(10) == ["a" * 10, "\u00e9" * 10, "\u6f22" * 10, "z" * 10]
    monkeypatch.setattr(store, "PAGE_BYTES", 30)
    assert await texts(10) == ["a" * 10, "\u00e9" * 10, None, None]
    assert await texts(2, skip=1) == ["\u00e9" * 10, "\u6f22" * 10]
    second = (await queue.store.page(ACCOUNT, INSTANCE, 2))[1]
    assert await texts(2, after_number=second.number) == ["\u6f22" * 10, None]
    monkeypatch.setattr(store, "PAGE_BYTES", 1)
    assert await texts(1, skip=3) == ["z" * 10]
    assert await queue.store.page("another", INSTANCE, 10) == []


async def test_what_is_told_of_a_queue_that_ends_is_no_text(queue: Queue, pool: Pool) -> None:
    """All that waits fails, the one under way too; it comes in order, without the texts, which may be a gigabyte."""
    accepted = [await queue.accept(text) for text in ("under way", "second", "third")]
    await queue.machine.next()
    async with pool.acquire() as connection, connection.transaction():
        dropped = await store.fail_all(connection, INSTANCE, "over")
        assert await store.fail_all(connection, INSTANCE, "over") == []
    assert dropped == [
        store.Dropped(a.zaap_id, a.message_id, "5511999999999", told.settled_ms)
        for a, told in zip(accepted, dropped, strict=True)
    ]
    assert await queue.store.count(ACCOUNT, INSTANCE) == 0
