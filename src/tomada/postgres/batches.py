"""Many writes in one transaction, and each its own answer: a batch that is refused is written again in halves.

Used by whoever writes for many callers at a time (group commit, recorder, dispatcher). What is halved is what one row
may be to blame for; what the server surely says about itself (`Verdict.is_of_the_server`) is the answer for all of the
part, since halves would hear the same. A batch of n with one bad row costs about 2·log2(n) transactions.

Order is kept: the halves are written one after the other.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from tomada.postgres.verdict import judge

Item = TypeVar("Item")
Result = TypeVar("Result")


async def write_in_halves(
    items: Sequence[Item], write: Callable[[Sequence[Item]], Awaitable[Result]]
) -> AsyncIterator[tuple[Sequence[Item], Result | Exception]]:
    """Parts of `items`, in order, each with what `write` returned or raised for it; `write` does all or nothing."""
    parts = [items] if items else []
    while parts:
        part = parts.pop()
        try:
            result = await write(part)
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to these callers
            if len(part) == 1 or judge(error).is_of_the_server:
                yield part, error
            else:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
        else:
            yield part, result
