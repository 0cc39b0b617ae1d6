"""The engine uses neonize as its wheel ships it: nothing of it is patched, replaced or fetched, whatever it does."""

import base64
import hashlib
from importlib.metadata import files
from pathlib import Path

import psutil

from tests.integration.machines.bench import Bench
from tests.integration.machines.driven import Driven
from tomada.engine import port
from tomada.engine.neonize_library import library_path


def _promised() -> dict[Path, str]:
    """The SHA-256 of each file of the package, as the wheel's RECORD says it."""
    own = [file for file in files("neonize") or () if file.parts[0] == "neonize"]
    return {Path(str(file.locate())).resolve(): file.hash.value for file in own if file.hash}


def _on_disk(paths: set[Path]) -> dict[Path, str]:
    """The same of what lies there now, spelled as in a RECORD."""
    digests = {path: hashlib.sha256(path.read_bytes()).digest() for path in paths}
    return {path: base64.urlsafe_b64encode(digest).decode().rstrip("=") for path, digest in digests.items()}


async def test_a_session_leaves_neonize_untouched(bench: Bench, well: Driven) -> None:
    """Paired, a message sent: the library that is loaded and every file beside it are still those of the wheel."""
    library, promised = library_path().resolve(), _promised()
    paths = {library, *promised}
    before = _on_disk(paths)

    await bench.paired(well, "untouched")
    await well.send("untouched", "z", await bench.phone(), "hello")
    await well.event("untouched", port.MessageSent)

    assert str(library) in {one.path for one in psutil.Process(well.process.pid).memory_maps()}
    assert _on_disk(paths) == before
    assert before == {library: before[library], **promised}
