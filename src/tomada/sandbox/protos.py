"""WhatsApp's protobuf messages, taken from the engine's wheel without loading the engine.

Why: the engine ships the generated modules, but importing its package loads a Go runtime into the process, whose
aborts would kill the sandbox. The generated modules import each other by top-level names (`waE2E.…`), so the folder
that holds them is put on the import path just while they are loaded; the package around it is never imported.

The names below are those of WhatsApp. The older twins of some modules (without `WebProtobuf` in their name) are
broken in the wheel and must not be used. Untyped: the wheel's stubs are not part of a package of ours.
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

_MODULES = {
    "adv": "waAdv.WAAdv_pb2",
    "cert": "waCert.WACert_pb2",
    "companion": "waCompanionReg.WAWebProtobufsCompanionReg_pb2",
    "e2e": "waE2E.WAWebProtobufsE2E_pb2",
    "server_sync": "waServerSync.WAWebProtobufsServerSync_pb2",
    "sync_action": "waSyncAction.WAWebProtobufSyncAction_pb2",
    "wa6": "waWa6.WAWebProtobufsWa6_pb2",
}


def _load() -> dict[str, Any]:
    spec = importlib.util.find_spec("neonize")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("the engine's wheel (neonize) is not installed; its protobuf modules are needed")
    folder = str(Path(next(iter(spec.submodule_search_locations))) / "proto")
    sys.path.insert(0, folder)
    try:
        return {name: importlib.import_module(module) for name, module in _MODULES.items()}
    finally:
        sys.path.remove(folder)


_loaded = _load()

adv: Any = _loaded["adv"]
"""Device identities: `ADVDeviceIdentity`, `ADVSignedDeviceIdentity`, `ADVSignedDeviceIdentityHMAC`."""
cert: Any = _loaded["cert"]
"""The certificate chain of the transport handshake: `CertChain`."""
companion: Any = _loaded["companion"]
"""What a new companion says of itself: `DeviceProps`."""
e2e: Any = _loaded["e2e"]
"""The encrypted content: `Message`."""
server_sync: Any = _loaded["server_sync"]
"""App state as the server stores it: `SyncdPatch`."""
sync_action: Any = _loaded["sync_action"]
"""App state as devices read it: `SyncActionData`, `SyncActionValue`."""
wa6: Any = _loaded["wa6"]
"""Transport: `HandshakeMessage`, `ClientPayload`."""
