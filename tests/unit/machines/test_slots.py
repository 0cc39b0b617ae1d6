"""Which process holds a slot, and is killed for it."""

import asyncio
import fcntl
import os
from pathlib import Path

import pytest

from tomada.machines import slots


async def test_a_stranger_whose_file_has_the_same_number_is_not_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files on different filesystems share numbers: what the kernel lists as locked may be another one."""
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    stranger = await asyncio.create_subprocess_exec("sleep", "300")
    listed = tmp_path / "locks"
    listed.write_text(f"1: FLOCK  ADVISORY  WRITE {stranger.pid} 00:2a:{os.fstat(lock).st_ino} 0 EOF\n")
    monkeypatch.setattr(slots, "LOCKS", listed)
    try:
        assert not await slots.until_unlocked(tmp_path, 0.05)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stranger.wait(), 0.2)
    finally:
        os.close(lock)
        stranger.kill()
        await stranger.wait()
