"""The wheel of Tomada holds the machine programs and lands them where the product looks for them."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tomada.kit import machine_program

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel made of this tree; the programs were built by `make` and are taken as they are."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    environ = {name: value for name, value in os.environ.items() if name != machine_program.SETTING}
    subprocess.run(command, cwd=REPOSITORY, env=environ, check=True, capture_output=True, timeout=240)
    (made,) = folder.iterdir()
    return made


def test_its_name_says_the_platform(wheel: Path) -> None:
    """Any Python 3, this platform: pip and uv elsewhere do not take it."""
    python, abi, platform = wheel.stem.split("-")[-3:]

    assert (python, abi) == ("py3", "none")
    assert platform.startswith(("linux_", "macosx_"))
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"{'-'.join(wheel.stem.split('-')[:2])}.dist-info/WHEEL").decode()
    assert "Root-Is-Purelib: false" in metadata


def test_installed_it_says_hello_beside_its_python(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own, found there without a setting, and run."""
    venv.create(tmp_path, symlinks=True)
    python = tmp_path / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True, timeout=120)
    ask = "import sys; from pathlib import Path; print(Path(sys.prefix) / 'bin' / 'tomada-machine')"

    found = subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout.strip()

    assert Path(found).parent == tmp_path / "bin"
    assert machine_program.greet(Path(found)).version == machine_program.PROTOCOL_VERSION
    assert machine_program.greet(Path(found).with_name(machine_program.SANDBOX_NAME)).version == 2
