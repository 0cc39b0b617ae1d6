"""Delivers callbacks: takes due lanes under a lease, sends their events in order, and settles what came of it.

Any number of dispatchers may run, in one process or on many nodes; each lane is held by one at a time. Four loops:

- *take*: asks the database for due lanes when woken (a recorder of this process, a NOTIFY from others, a lane settled)
  and once a second anyway, as many as there are places (limits.py), and starts one task per lane.
- *settle*: writes the results of as many lanes as have ended in one transaction. A lane's place is free when that is
  committed. If the database is away, results wait here until their lease has run out.
- *renew*: lengthens all leases in one statement, three times per lease.
- *listen*: turns NOTIFY into wake-ups; only a hint.

A dispatcher that is frozen or cut off from the database stops sending when its lease nears its end by its own monotonic
clock; what it writes afterwards is fenced off by the lane's epoch.
"""

import asyncio
import contextlib
from collections.abc import Sequence

import structlog

from tomada.callbacks.limits import Limits, Places
from tomada.callbacks.listening import listen
from tomada.callbacks.metrics import Metrics, outcome
from tomada.callbacks.sending import Sender, send_batch
from tomada.callbacks.signing import open_credentials
from tomada.callbacks.store import taking
from tomada.callbacks.store.settling import Settled
from tomada.callbacks.types import Attempt, Failed, Lane, Settlement, Waiting
from tomada.callbacks.writing import write
from tomada.kit.sealing import Sealer
from tomada.postgres.batches import write_in_halves
from tomada.postgres.pool import Pool
from tomada.postgres.verdict import judge, words

_log = structlog.get_logger(__name__)

LEASE_S = 15.0
LEASE_MARGIN_S = 1.0
POLL_S = 1.0
BATCH = 32
BATCH_BYTES = 1 << 20  # of payloads
BATCH_S = 0.25  # after so long a batch is settled, so that a crash repeats little even of a slow receiver's answers
TAKE_MAX = 64
SETTLE_MAX = 64
STOP_GRACE_S = 5.0
GATHER_S = 0.004  # while many are under way, wait this long for company before going to the database
MANY = 8


class _Held:
    """A lane in our hands: until when by our own clock, and whether another dispatcher has taken it."""

    __slots__ = ("lane", "lost", "until_s")

    def __init__(self, lane: Lane, until_s: float) -> None:
        self.lane = lane
        self.until_s = until_s
        self.lost = False


class Dispatcher:
    """One dispatcher; `run` until `stop`. `wake` may be called from the event loop at any time."""

    def __init__(
        self,
        pool: Pool,
        sender: Sender,
        sealer: Sealer,
        metrics: Metrics,
        *,
        limits: Limits | None = None,
        lease_s: float = LEASE_S,
    ) -> None:
        self._pool = pool
        self._sender = sender
        self._sealer = sealer
        self._metrics = metrics
        self._limits = limits or Limits()
        self._lease_s = lease_s
        self._places = Places(self._limits)
        self._held: dict[int, _Held] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._settled: asyncio.Queue[Settlement] = asyncio.Queue()
        self._wake = asyncio.Event()
        self._stopping = False
        self.transactions = 0

    def wake(self) -> None:
        """Look for due lanes now."""
        self._wake.set()

    async def run(self) -> None:
        """Deliver until `stop`; returns when everything under way is settled or given back.

        If a loop fails, which only a fault of ours can cause, all is begun anew; leases bring back what was held.
        """
        while not self._stopping:
            try:
                await self._run_loops()
            except Exception:  # noqa: BLE001 - callbacks must not stop for good
                _log.exception("callbacks_dispatcher_failed")
                self._forget()
                await asyncio.sleep(POLL_S)

    async def _run_loops(self) -> None:
        loops = [
            asyncio.create_task(body, name=f"callbacks {name}")
            for name, body in (
                ("take", self._take_loop()),
                ("settle", self._settle_loop()),
                ("renew", self._renew_loop()),
                ("listen", listen(self._pool, self.wake, self._database_trouble)),
            )
        ]
        try:
            done, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            await self._drain()
        finally:
            for task in (*loops, *self._tasks):
                task.cancel()
            await asyncio.gather(*loops, *self._tasks, return_exceptions=True)

    def _forget(self) -> None:
        self._held.clear()
        self._places = Places(self._limits)
        self._settled = asyncio.Queue()

    def stop(self) -> None:
        """Take no more lanes, send no more events; `run` returns soon."""
        self._stopping = True
        self._wake.set()

    async def _drain(self) -> None:
        """Let requests under way end, then cancel them; and write down what was done."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_GRACE_S)
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_GRACE_S):
                while self._held:  # noqa: ASYNC110 - some seconds at most, at the very end
                    await asyncio.sleep(0.005)

    # --- take -----------------------------------------------------------------------------------------------------

    async def _take_loop(self) -> None:
        while not self._stopping:
            self._wake.clear()
            wanted = min(self._places.free, TAKE_MAX)
            taken = await self._take(wanted) if wanted > 0 else 0
            if 0 < wanted == taken:
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), POLL_S)
            if len(self._held) > MANY and not self._stopping:
                await asyncio.sleep(GATHER_S)

    async def _take(self, lanes_max: int) -> int:
        until_s = self._sender.clock.monotonic_s() + self._lease_s - LEASE_MARGIN_S
        try:
            async with self._pool.acquire() as connection:
                taken = await taking.take(
                    connection,
                    lanes_max=lanes_max,
                    batch=BATCH,
                    batch_bytes=BATCH_BYTES,
                    lease_ms=round(self._lease_s * 1000),
                    destination_room=self._places.destination_room(),
                    account_room=self._places.account_room(),
                    destination_room_default=self._limits.destination_max,
                    account_room_default=self._limits.account_max,
                )
        except Exception as error:  # noqa: BLE001 - whatever the database says, the loop goes on
            await self._database_trouble("take", error)
            return 0
        self.transactions += 1
        for lane in taken:
            self._start(lane, until_s)
        return len(taken)

    def _start(self, lane: Lane, until_s: float) -> None:
        before = self._held.get(lane.id)
        if before is not None:  # we lost it and took it again, while its task has not ended
            before.lost = True
        held = self._held[lane.id] = _Held(lane, until_s)
        self._places.enter(lane.destination, lane.account_id)
        self._metrics.lanes_held.set(self._places.held)
        task = asyncio.create_task(self._work(held), name=f"lane {lane.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- one lane -------------------------------------------------------------------------------------------------

    async def _work(self, held: _Held) -> None:
        lane = held.lane
        clock = self._sender.clock
        enough_s = clock.monotonic_s() + BATCH_S

        def may_send(sent: int) -> bool:
            now_s = clock.monotonic_s()
            return not (held.lost or self._stopping or now_s >= held.until_s or (sent and now_s >= enough_s))

        def heard(callback: Waiting, attempt: Attempt) -> None:
            self._heard(lane, callback, attempt)

        try:
            credentials = open_credentials(self._sealer, lane)
            settlement = await send_batch(self._sender, lane, credentials, may_send, heard)
        except Exception:  # noqa: BLE001 - one lane's trouble is not the others'
            _log.exception("lane_failed", lane=lane.id, instance=lane.instance_id)
            self._let_go(held)  # its lease runs out, and it is tried again
            return
        if held.lost:
            self._metrics.lost.inc()
            self._let_go(held)
        else:
            self._settled.put_nowait(settlement)

    def _heard(self, lane: Lane, callback: Waiting, attempt: Attempt) -> None:
        duration_s = attempt.duration_ms / 1000
        self._places.heard(lane.destination, attempt.status, duration_s)
        self._metrics.attempts[outcome(attempt.status, attempt.error)].inc()
        self._metrics.duration.observe(duration_s)
        if attempt.error is None:
            self._metrics.wait.observe(max(0, attempt.at_ms - callback.created_ms) / 1000)

    def _let_go(self, held: _Held) -> None:
        if self._held.get(held.lane.id) is held:
            del self._held[held.lane.id]
        self._places.leave(held.lane.destination, held.lane.account_id)
        self._metrics.lanes_held.set(self._places.held)

    # --- settle ---------------------------------------------------------------------------------------------------

    async def _settle_loop(self) -> None:
        while True:
            batch = [await self._settled.get()]
            if len(self._held) > MANY and not self._stopping:
                await asyncio.sleep(GATHER_S)
            while len(batch) < SETTLE_MAX and not self._settled.empty():
                batch.append(self._settled.get_nowait())
            were_full = self._places.free == 0 or any(
                self._places.is_full(settlement.lane.destination, settlement.lane.account_id) for settlement in batch
            )
            if await self._settle(batch) or were_full:
                self._wake.set()

    async def _settle(self, batch: list[Settlement]) -> bool:
        """Write the batch, again while the database is away; a result whose lease has run out is left to others.

        What may be one result's fault is written in halves until the bad one is alone; that lane is let go, so that its
        lease runs out. Whether some lane is due again at once.
        """
        due = False
        while batch:
            waiting: list[Settlement] = []
            trouble: Exception | None = None
            async for part, settled in write_in_halves(batch, self._write):
                if not isinstance(settled, Exception):
                    due = due or settled.due
                    for settlement in part:
                        self._finish(settlement, settlement.lane.id in settled.ours)
                elif judge(settled).is_of_the_server:
                    trouble = settled
                    waiting += part
                else:
                    _log.error("settlement_refused", lane=part[0].lane.id, exc_info=settled)
                    self._finish(part[0], ours=False)
                    due = True
            if trouble is not None:
                await self._database_trouble("settle", trouble)
            batch = self._still_ours(waiting)
            due = due or len(batch) < len(waiting)
        return due

    async def _write(self, batch: Sequence[Settlement]) -> Settled:
        async with self._pool.acquire() as connection:
            settled = await write(connection, batch)
        self.transactions += 1
        return settled

    def _still_ours(self, batch: list[Settlement]) -> list[Settlement]:
        now_s = self._sender.clock.monotonic_s()
        kept = []
        for settlement in batch:
            held = self._held.get(settlement.lane.id)
            if held is not None and held.lane.epoch == settlement.lane.epoch and now_s < held.until_s:
                kept.append(settlement)
            else:
                self._finish(settlement, ours=False)
        return kept

    def _finish(self, settlement: Settlement, ours: bool) -> None:
        lane = settlement.lane
        held = self._held.get(lane.id)
        if held is not None and held.lane.epoch == lane.epoch:
            self._let_go(held)
        else:
            self._places.leave(lane.destination, lane.account_id)
        if not ours:
            self._metrics.lost.inc()
            return
        dead = sum(1 for o in settlement.outcomes if isinstance(o, Failed) and o.dead)
        if dead:
            self._metrics.given_up.inc(dead)
        if settlement.disable:
            self._metrics.disabled.inc()
            _log.warning("callback_url_disabled", instance=lane.instance_id, lane=lane.id, reason=settlement.disable)

    # --- renew ----------------------------------------------------------------------------------------------------

    async def _renew_loop(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            held = [h for h in self._held.values() if not h.lost]
            if not held:
                continue
            until_s = self._sender.clock.monotonic_s() + self._lease_s - LEASE_MARGIN_S
            try:
                async with self._pool.acquire() as connection:
                    pairs = [(h.lane.id, h.lane.epoch) for h in held]
                    ours = await taking.renew(connection, pairs, round(self._lease_s * 1000))
            except Exception as error:  # noqa: BLE001 - whatever the database says, the loop goes on
                await self._database_trouble("renew", error)
                continue
            for h in held:
                if h.lane.id in ours:
                    h.until_s = until_s
                elif self._held.get(h.lane.id) is h:
                    h.lost = True

    async def _database_trouble(self, what: str, error: Exception) -> None:
        if judge(error).is_of_the_server:
            _log.warning("callbacks_database_away", doing=what, why=words(error))
        else:
            _log.error("callbacks_database_error", doing=what, exc_info=error)
        await asyncio.sleep(0.2)
