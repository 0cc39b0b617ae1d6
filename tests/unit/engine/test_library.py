"""What the engine does when its library is not there or not the one it knows: refuse, and never fetch another."""

from pathlib import Path

import pytest

from tomada.engine import neonize_library
from tomada.engine.gate import Gate
from tomada.engine.neonize_library import Library, library_path
from tomada.engine.port import EngineRefused


def _nothing(*_: object) -> None:
    """Never called."""


def test_the_wheel_ships_the_library() -> None:
    """The library lies in the installed wheel, under the name of this computer."""
    assert library_path().is_file()


def test_a_missing_library_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 13: without the file the engine refuses with words for the operator; nothing is downloaded."""
    monkeypatch.setattr(neonize_library, "neonize_folder", lambda: tmp_path)
    with pytest.raises(EngineRefused, match="install the neonize wheel"):
        Library(Gate(), _nothing, _nothing, _nothing, _nothing)
    assert list(tmp_path.iterdir()) == []
