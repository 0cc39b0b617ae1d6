"""Machines, their keys on the disk, and the phones that they are linked with: what the real host makes of them.

An instance has one live session at most, keys lie under the epoch of their machine, and a removal has two halves, each
of which can be the last thing a process does: the log-out, after which the phone lists no device, and the erasing. A
device whose keys were erased before its log-out stays linked for ever: a ghost. The note of the removal says so.
"""

from collections.abc import Awaitable, Callable

Key = tuple[str, int]  # an instance and the epoch at which it was given that machine

NOT_TOLD = "WhatsApp could not be told; a linked device may remain on the phone"
KEYS_ERASED = "unlinked from the phone, and the keys of its session erased"
FILES = 3  # of a machine, besides its keys


async def _at_once() -> None:
    """No time passes."""


class Machines:
    """`deletion.Machines`. `reaches` tells whether WhatsApp can be told now, `between` is a moment to be cut off at."""

    def __init__(self, reaches: Callable[[], bool], between: Callable[[], Awaitable[None]] = _at_once) -> None:
        self._reaches = reaches
        self._between = between
        self.linked: set[Key] = set()
        self.keys: set[Key] = set()
        self.files: set[Key] = set()
        self.hosted: dict[str, int] = {}
        self.removals: list[Key] = []
        self.untold: list[Key] = []

    def pair(self, instance_id: str, epoch: int) -> bool:
        """A phone scans the code of the instance's machine; False if there is no code to be had now."""
        if self.hosted.get(instance_id, epoch) != epoch:
            return False
        self.hosted[instance_id] = epoch
        for things in (self.linked, self.keys, self.files):
            things.add((instance_id, epoch))
        return True

    def restart(self) -> None:
        """The server was killed and is started: it hosts nobody until it is asked."""
        self.hosted.clear()

    async def remove(self, instance_id: str, epoch: int, *, force: bool) -> str:
        """See deletion.Machines."""
        note = ""
        for key in self._former(instance_id, epoch):
            note = max(note, await self._remove(key, force=force), key=("", KEYS_ERASED, NOT_TOLD).index)
        return note

    async def erase_files(self, instance_id: str, epoch: int) -> int:
        """See deletion.Machines."""
        old = {key for key in self.files if key[0] == instance_id and key[1] < epoch}
        if old & self.keys:
            raise RuntimeError("to be removed first")
        for key in old:
            self.touch(key)
        self.files -= old
        return FILES * len(old)

    def state(self) -> tuple[list[Key], list[Key], list[Key]]:
        """What is linked, what has keys, what has files."""
        return sorted(self.linked), sorted(self.keys), sorted(self.files)

    def touch(self, key: Key) -> None:
        """A machine is about to be removed, or its files."""

    def _former(self, instance_id: str, epoch: int) -> list[Key]:
        return sorted(key for key in self.keys if key[0] == instance_id and key[1] < epoch)

    async def _remove(self, key: Key, *, force: bool) -> str:
        instance_id, epoch = key
        if key not in self.keys:  # another deletion of this instance was quicker
            return ""
        if self.hosted.setdefault(instance_id, epoch) != epoch:
            raise RuntimeError("another machine of this instance runs")
        self.touch(key)
        told = self._reaches()
        if not told and not force:
            raise TimeoutError
        linked = key in self.linked
        if told:
            self.linked.discard(key)
        else:
            self.untold.append(key)
        await self._between()
        if self.hosted.get(instance_id) == epoch:
            del self.hosted[instance_id]
        if key in self.keys:
            self.keys.remove(key)
            self.removals.append(key)
        await self._between()
        return NOT_TOLD if not told else KEYS_ERASED if linked else ""
