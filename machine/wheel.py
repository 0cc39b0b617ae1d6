"""The wheel of Tomada holds the machine programs, built for the computer that builds it (hatchling calls this).

An editable installation, which `make` makes, holds none: there `make` builds them and links to them itself. Nor does a
wheel that is made with TOMADA_MACHINE set, which names a program that was built elsewhere.
"""

import importlib.util
import os
import sys
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def _build_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tomada_machine_build", Path(__file__).with_name("build.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class MachineInWheel(BuildHookInterface[Any]):
    """Adds the programs to the wheel's scripts, and names the platform in its tag."""

    _temporary: tempfile.TemporaryDirectory[str] | None = None

    def dependencies(self) -> list[str]:
        """The Go toolchain, for whoever prepares the environment of the build, unless the computer has Go itself."""
        build = _build_module()
        return (
            []
            if build.own_go_will_do() or os.environ.get(build.SETTING)
            else [build.LOCK.read_text("utf-8").split()[0]]
        )

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build before the wheel is put together; what was built in .venv/go is used again."""
        build = _build_module()
        if version == "editable" or os.environ.get(build.SETTING):
            return
        home = build.HOME
        if not home.exists():
            self._temporary = tempfile.TemporaryDirectory(prefix="tomada-build-")
            home = Path(self._temporary.name)
        folder = build.build(build.find_go(home), home)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
        build_data["shared_scripts"] = {str(folder / name): name for name in build.PROGRAMS}

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was built for this wheel alone."""
        if self._temporary:
            self._temporary.cleanup()
