"""Start a machine process against the sandbox.

    python -m tomada.sandbox.machine --noise-root HEX -- ARGUMENTS OF THE MACHINE PROCESS

Loads the engine's library, makes it trust the sandbox (`trust`), then runs the very entry point that production runs,
with the remaining arguments. The environment that leads the engine here comes from `launch.machine_environment`.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from tomada.sandbox.trust import trust_root

ENGINE_LIBRARY = "neonize"


def load_trusting_engine(noise_root: bytes) -> None:
    """Load the engine into this process and make it trust the sandbox with this root key."""
    importlib.import_module("pylibmagic")  # provides the libmagic that the engine's wheel looks for
    importlib.import_module("neonize")
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
