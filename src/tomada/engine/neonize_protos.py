"""The generated message classes that neonize ships, without neonize's own Python client.

`import neonize` would load that client, which wants libmagic and ffmpeg, prints, installs log handlers, and tries to
download the library when it is missing. Only the generated classes are wanted here, so an empty package of the same
name that points at the same folder stands in for it. Where the real package is loaded already, that one is used.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def neonize_folder() -> Path:
    """Where neonize is installed; raises ModuleNotFoundError if it is not."""
    loaded = sys.modules.get("neonize")
    if loaded is not None:
        return Path(loaded.__path__[0])
    spec = importlib.util.find_spec("neonize")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("neonize is not installed")
    return Path(spec.submodule_search_locations[0])


def _stand_in() -> None:
    if "neonize" not in sys.modules:
        package = ModuleType("neonize")
        package.__path__ = [str(neonize_folder())]
        package.__spec__ = importlib.util.find_spec("neonize")  # for whoever asks where the package is
        sys.modules["neonize"] = package


_stand_in()

from neonize.proto import Neonize_pb2 as glue  # noqa: E402
from neonize.proto.waCommon import WACommon_pb2 as common  # noqa: E402
from neonize.proto.waCompanionReg import WAWebProtobufsCompanionReg_pb2 as companion  # noqa: E402
from neonize.proto.waE2E import WAWebProtobufsE2E_pb2 as e2e  # noqa: E402

__all__ = ["common", "companion", "e2e", "glue", "neonize_folder"]
