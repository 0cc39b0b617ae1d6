"""Where the machine program is looked for, and the words for each way in which it is unusable."""

import sys
from pathlib import Path

import pytest

from tomada.kit import machine_program
from tomada.kit.machine_program import MachineUnusable


def program(folder: Path, script: str) -> Path:
    """An executable that does what the script says."""
    path = folder / "tomada-machine"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_it_lies_beside_python_unless_a_setting_names_another() -> None:
    """TOMADA_MACHINE wins; the sandbox's program lies beside whichever it is."""
    beside = Path(sys.prefix) / "bin"

    assert machine_program.locate({}) == beside / "tomada-machine"
    assert machine_program.locate({"TOMADA_MACHINE": ""}) == beside / "tomada-machine"
    assert machine_program.locate_sandbox({}) == beside / "tomada-machine-sandbox"
    assert machine_program.locate_sandbox({"TOMADA_MACHINE": "/opt/m"}) == Path("/opt/tomada-machine-sandbox")


def test_a_hello_of_our_version_is_understood_with_fields_we_do_not_know(tmp_path: Path) -> None:
    """Fields may be added to a hello without a new version."""
    said = '{"type":"hello","version":2,"pid":7,"engine":"whatsmeow v1","traits":["gated"],"more":1}'

    hello = machine_program.greet(program(tmp_path, f"echo '{said}'"))

    assert (hello.version, hello.pid, hello.engine, hello.traits) == (2, 7, "whatsmeow v1", ["gated"])


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            """echo '{"type":"hello","version":1,"pid":7,"engine":"old"}'""",
            "is older than this Tomada: it speaks version 1",
        ),
        ("""echo '{"type":"hello","version":3}'""", "is newer than this Tomada: it speaks version 3"),
        ("echo hello world", "is not a machine program: its hello is b'hello world"),
        ("true", "is not a machine program"),
        ("echo usage: something else >&2; exit 64", "ended with status 64: usage: something else"),
        ("kill -9 $$", "ended with status -9: no words"),
    ],
)
def test_what_says_hello_otherwise_is_refused_in_words(tmp_path: Path, script: str, words: str) -> None:
    """Another version, another program, one that fails: each is named, and each says what to do."""
    with pytest.raises(MachineUnusable) as refused:
        machine_program.greet(program(tmp_path, script))

    assert words in str(refused.value)
    assert "`make machine`" in str(refused.value)


def test_a_program_that_is_not_there_or_of_another_platform_is_refused_in_words(tmp_path: Path) -> None:
    """No file, no permission, a binary that this computer cannot run."""
    foreign = program(tmp_path, "")
    foreign.write_bytes(b"\x7fELF" + b"\x00" * 60)

    with pytest.raises(MachineUnusable, match=r"there is no machine program at .*/none; build it with `make machine`"):
        machine_program.greet(tmp_path / "none")
    with pytest.raises(MachineUnusable, match=r"does not run on this computer \(Exec format error\)"):
        machine_program.greet(foreign)
    foreign.chmod(0o644)
    with pytest.raises(MachineUnusable, match=r"does not run on this computer \(Permission denied\)"):
        machine_program.greet(foreign)


def test_a_program_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start does not hang on a program that waits for something."""
    monkeypatch.setattr(machine_program, "_TIMEOUT_S", 0.1)

    with pytest.raises(MachineUnusable, match="said nothing"):
        machine_program.greet(program(tmp_path, "exec sleep 60"))
