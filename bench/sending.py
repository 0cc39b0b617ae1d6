"""How fast one instance's queue could go if its engine took no time: `python -m bench.sending [messages]`.

Real: PostgreSQL with fsync, accept, sender, pipeline, recorder. Doubled: the machine, which has an outcome at once. So
this is our own part of a send, from one message to the next; what the whole product shows above it is the engine, the
network, and others on the same cores.
"""

import asyncio
import random  # noqa: TID251 - seeded, and passed in
import sys
import tempfile
import time
from pathlib import Path

import psutil
import uvloop
from tests.integration.callbacks.harness import make_account, make_instance

from bench.measuring import machine
from tomada.callbacks.recorder import Recorder
from tomada.engine.port import Content, MessageSent, Text
from tomada.kit.clock import SystemClock
from tomada.messages.accept import accept
from tomada.messages.sender import Sender
from tomada.messages.store import MessageStore
from tomada.pipeline import Pipeline
from tomada.postgres.group_commit import GroupCommit
from tomada.postgres.launcher import embedded_server
from tomada.postgres.migrate import migrate
from tomada.postgres.pool import Pool, connect


class Instant:
    """A machine that has sent a message as soon as it has it; events are handled one after the other."""

    def __init__(self) -> None:
        self.pipeline: Pipeline | None = None
        self._sent: asyncio.Queue[tuple[str, MessageSent]] = asyncio.Queue()

    def connected(self, _instance_id: str) -> bool:
        """Always."""
        return True

    async def transmit(self, instance_id: str, message_id: str, _chat: str, _content: Content) -> None:
        """Take it, and have it sent."""
        self._sent.put_nowait((instance_id, MessageSent(message_id, 1)))

    async def restart(self, instance_id: str) -> None:
        """Its outcomes come at once."""
        raise AssertionError(instance_id)

    async def tell(self, messages: int) -> None:
        """What the host does with outcomes."""
        assert self.pipeline is not None
        for number in range(messages):
            instance_id, event = await self._sent.get()
            await self.pipeline.handle(instance_id, event, number)


async def measure(pool: Pool, messages: int) -> None:
    """Queue so many messages, then let the lane run."""
    instance = (await make_instance(pool, await make_account(pool), "http://receiver.example/")).id
    store, committer, instant = MessageStore(pool), GroupCommit(pool), Instant()

    async def account(_instance_id: str) -> tuple[str, str]:
        return "5511999999999", "Shop"

    async def nothing(*_: str) -> None:
        return None

    sender: Sender | None = None
    instant.pipeline = pipeline = Pipeline(
        store,
        Recorder(pool),
        account,
        nothing,
        SystemClock(),
        wake=lambda _instance_id: None,
        settled=lambda zaap_id, known: sender.settled(zaap_id, known=known) if sender else None,
    )
    sender = Sender(store, instant, pipeline.resolve, pipeline.gave_up, (0.0, 0.0), random.Random(1))
    await asyncio.gather(
        *(accept(committer, instance, "5511888888888", Text(f"{n}"), None, messages) for n in range(messages))
    )
    began_s = time.perf_counter()
    sender.wake(instance)
    await instant.tell(messages)
    took_s = time.perf_counter() - began_s
    print(f"{messages / took_s:.0f} sends/s of one instance, {took_s / messages * 1e3:.2f} ms each")


async def main(messages: int) -> None:
    """Three times, because computers are shared."""
    print(machine())
    with tempfile.TemporaryDirectory(prefix="tomada-bench-") as name:
        async with embedded_server(Path(name) / "postgres") as server:
            await migrate(server.dsn)
            pool = await connect(server.dsn)
            for _ in range(3):
                await measure(pool, messages)
            print(f"load average {psutil.getloadavg()[0]:.1f}")
            pool.terminate()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
