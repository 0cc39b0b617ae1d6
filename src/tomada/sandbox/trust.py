"""Making an engine that is already loaded trust the sandbox: its pinned root key is overwritten in memory.

WhatsApp's clients pin one 32-byte public key, the root of the certificate chain in the transport handshake. The
engine keeps it in the writable data of its library. Overwriting it there leaves the file on disk untouched and needs
no switch in the product; it lives as long as the process. Linux only: it reads `/proc/self/maps`.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

WHATSAPP_ROOT = bytes.fromhex("142375574d0a587166aae71ebe516437c4a28b73e3695c6ce1f7f9545da8ee6b")
"""The pinned public key, as in whatsmeow (socket/constants.go)."""

_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \d+\s+(.*)")


class TrustError(RuntimeError):
    """The pinned key was not found where it can be overwritten."""


def trust_root(library: str, root_public: bytes) -> int:
    """Replace the pinned key in the loaded library whose path contains `library`; returns how many places.

    Raises `TrustError` if there is none: the library is not loaded, or another version keeps its key elsewhere.
    """
    if len(root_public) != len(WHATSAPP_ROOT):
        raise TrustError("a root key has 32 bytes")
    replaced = 0
    for start, end in _writable_mappings(library):
        data = ctypes.string_at(start, end - start)
        offset = data.find(WHATSAPP_ROOT)
        while offset >= 0:
            ctypes.memmove(start + offset, root_public, len(root_public))
            replaced += 1
            offset = data.find(WHATSAPP_ROOT, offset + 1)
    if not replaced:
        raise TrustError(f"no pinned root key in the writable memory of {library}")
    return replaced


def _writable_mappings(library: str) -> list[tuple[int, int]]:
    found = []
    for line in Path("/proc/self/maps").read_text("utf-8").splitlines():
        match = _MAPPING.match(line)
        if match and library in match[4] and match[3].startswith("rw"):
            found.append((int(match[1], 16), int(match[2], 16)))
    return found
