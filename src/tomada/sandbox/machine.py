"""Start a machine process against the sandbox.

    python -m tomada.sandbox.machine --noise-root HEX -- ARGUMENTS OF THE MACHINE PROCESS

Loads the engine's library, makes it trust the sandbox (`trust`), then runs the very entry point that production runs,
with the remaining arguments. The environment that leads the engine here comes from `launch.machine_environment`.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from tomada.sandbox.trust import trust_root

ENGINE_LIBRARY = "neonize"


def load_trusting_engine(noise_root: bytes) -> None:
    """Load the engine's library into this process and make it trust the sandbox with this root key.

    Only the library, as the machine process itself does: importing the engine's Python package would cost 40 MB and a
    second, start shells, and need libmagic. What is loaded already is found again by whoever loads the same file.
    """
    package = importlib.util.find_spec(ENGINE_LIBRARY)
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("the engine's wheel is not installed")
    for library in Path(package.submodule_search_locations[0]).glob(f"{ENGINE_LIBRARY}-*.so"):
        ctypes.CDLL(str(library))
    trust_root(ENGINE_LIBRARY, noise_root)


def main(argv: Sequence[str] | None = None) -> None:
    """Trust, then become a machine process."""
    parser = argparse.ArgumentParser(prog="python -m tomada.sandbox.machine")
    parser.add_argument("--noise-root", type=bytes.fromhex, required=True, help="hex of the sandbox's root key")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="after --: the machine process's own arguments")
    arguments = parser.parse_args(argv)
    load_trusting_engine(arguments.noise_root)
    rest = arguments.rest[1:] if arguments.rest[:1] == ["--"] else arguments.rest
    process = importlib.import_module("tomada.machines.process")
    sys.argv = ["tomada-machine", *rest]
    sys.exit(process.main(rest))


if __name__ == "__main__":
    main()
