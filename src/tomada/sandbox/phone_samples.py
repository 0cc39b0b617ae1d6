"""Tiny media for testers who do not care what they send: made here, so that no binary file lies in the tree."""

import base64
import struct
import zlib
from functools import cache

_WEBP = "UklGRhoAAABXRUJQVlA4TA0AAAAvAAAAEAcQERGIiP4HAA=="

MIMETYPES = {
    "image": "image/png",
    "audio": "audio/ogg; codecs=opus",
    "video": "video/mp4",
    "document": "application/pdf",
    "sticker": "image/webp",
}


@cache
def sample(kind: str) -> bytes:
    """A sample of this media kind; pictures can be shown, sound and film consist of a header only."""
    match kind:
        case "image":
            return _png()
        case "sticker":
            return base64.b64decode(_WEBP)
        case "audio":
            return b"OggS\x00\x02" + bytes(20) + b"\x01\x13OpusHead\x01\x01" + struct.pack("<HIHB", 312, 48000, 0, 0)
        case "video":
            return struct.pack(">I", 24) + b"ftypisom\x00\x00\x02\x00isommp42" + struct.pack(">I", 8) + b"mdat"
        case _:
            return b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"


def _png() -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\x00\x25\xd3\x66")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
