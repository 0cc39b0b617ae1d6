"""Names of which no server tells anything must not keep other names waiting."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tomada.callbacks.limits import Limits
from tomada.kit import egress
from tomada.kit.egress import RESOLVER_THREADS, ThreadResolver

TIMEOUT_S = 0.5


class Names:
    """What the system's resolver would say: nothing of `silent-...`, until the test is over."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.over = threading.Event()

    def look_up(self, host: str, *_: Any) -> list[Any]:
        self.asked[host] += 1
        if host.startswith("silent"):
            self.over.wait(30)
        return []


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """Stand in for the system's resolver."""
    names = Names()
    monkeypatch.setattr(egress, "_look_up", names.look_up)
    yield names
    names.over.set()


async def test_many_silent_names_keep_no_other_waiting(names: Names) -> None:
    """All but one of the threads hang; a name that answers is known at once."""
    resolver = ThreadResolver(TIMEOUT_S)
    silent = [asyncio.ensure_future(resolver.resolve(f"silent-{n}.test")) for n in range(RESOLVER_THREADS - 1)]
    async with asyncio.timeout(10):
        while len(names.asked) < len(silent):
            await asyncio.sleep(0.01)
    began_s = time.monotonic()

    assert await resolver.resolve("well.test") == []

    assert time.monotonic() - began_s < TIMEOUT_S
    assert all(isinstance(error, OSError) for error in await asyncio.gather(*silent, return_exceptions=True))
    await resolver.close()


async def test_one_account_leaves_look_ups_to_the_others(names: Names) -> None:
    """All that one account may try at a time hangs, and what it tried before does too; another's name is known at once.

    A silent look-up is waited for 5 s and keeps its thread for 10 s, the C library's two tries: so twice its places.
    """
    resolver = ThreadResolver(TIMEOUT_S)
    places = Limits().account_max + 2  # lanes, test events
    silent = [asyncio.ensure_future(resolver.resolve(f"silent-{n}.test")) for n in range(2 * places)]
    await asyncio.sleep(0)
    began_s = time.monotonic()

    assert await resolver.resolve("well.test") == []

    assert time.monotonic() - began_s < TIMEOUT_S
    await asyncio.gather(*silent, return_exceptions=True)
    await resolver.close()


async def test_a_name_that_only_waited_is_not_called_silent(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: whoever found all threads taken was refused for another half minute, though nobody had been asked."""
    monkeypatch.setattr(egress, "RESOLVER_THREADS", 1)
    resolver = ThreadResolver(TIMEOUT_S)
    for name in ("silent.test", "well.test"):
        with pytest.raises(OSError, match="timed out"):
            await resolver.resolve(name)
    assert "well.test" not in names.asked
    names.over.set()

    assert await resolver.resolve("well.test") == []

    await resolver.close()


async def test_a_silent_name_is_not_asked_again_at_once(names: Names) -> None:
    """Else its retries, and every other URL there, would take the threads one by one."""
    resolver = ThreadResolver(TIMEOUT_S)
    for _ in range(3):
        with pytest.raises(OSError, match="timed out"):
            await resolver.resolve("silent.test")
    await resolver.close()

    assert names.asked["silent.test"] == 1
