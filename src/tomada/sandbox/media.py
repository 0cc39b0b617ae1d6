"""The media server: ciphertexts in, ciphertexts out; it can read none of them.

An upload is named by the base64url SHA-256 of its bytes, which is checked, and lands in a file of its own, written
aside and renamed, so that a half upload never exists. A download path must carry a query (clients append to it).
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from tomada.sandbox.network_ports import MediaLocation

BODY_BYTES_MAX = 128 << 20
_CHUNK_BYTES = 1 << 18
_TOKEN = re.compile(r"[A-Za-z0-9_=-]{20,100}")
_QUERY = "ccb=11-4&oh=sandbox&oe=sandbox"


class MediaStore:
    """Media in a directory, by token."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        for leftover in directory.glob("*.part"):
            leftover.unlink()

    def save(self, kind: str, body: bytes) -> MediaLocation:
        """Store bytes under the token that an upload of them would have."""
        token = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode()
        part = self.part()
        part.write_bytes(body)
        return self.commit(part, token)

    def path(self, direct_path: str) -> Path | None:
        """The file behind a direct path, URL or token; None if there is none."""
        token = urlsplit(direct_path).path.rsplit("/", 1)[-1]
        if not _TOKEN.fullmatch(token):
            return None
        path = self._directory / token
        return path if path.is_file() else None

    def part(self) -> Path:
        """A fresh name to write to before `commit`."""
        return self._directory / f"{secrets.token_hex(8)}.part"

    def commit(self, part: Path, token: str) -> MediaLocation:
        """Make a written part available."""
        part.replace(self._directory / token)
        direct_path = f"/v/t62.7118-24/{token}?{_QUERY}"
        return MediaLocation(f"https://mmg.whatsapp.net{direct_path}", direct_path)


def add_routes(router: web.UrlDispatcher, store: MediaStore) -> None:
    """Upload at `POST …/mms/KIND/TOKEN`, download at `GET /v/ANY/TOKEN`."""

    async def upload(request: web.Request) -> web.Response:
        return await _upload(request, store)

    async def download(request: web.Request) -> web.StreamResponse:
        path = store.path(request.path)
        return web.Response(status=404) if path is None else web.FileResponse(path)

    router.add_post(r"/{prefix:.*}mms/{kind}/{token}", upload)
    router.add_get("/v/{bucket}/{token}", download)


async def _upload(request: web.Request, store: MediaStore) -> web.Response:
    token = request.match_info["token"]
    if not _TOKEN.fullmatch(token):
        return web.json_response({"error": "bad token"}, status=400)
    part = store.part()
    digest = hashlib.sha256()
    size = 0
    try:
        with part.open("wb") as file:
            async for chunk in request.content.iter_chunked(_CHUNK_BYTES):
                size += len(chunk)
                if size > BODY_BYTES_MAX:
                    return web.json_response({"error": "too large"}, status=413)
                digest.update(chunk)
                file.write(chunk)
        if base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode() != token.rstrip("="):
            return web.json_response({"error": "the token is not the hash of the body"}, status=400)
        location = store.commit(part, token)
    finally:
        part.unlink(missing_ok=True)
    return web.json_response({"url": location.url, "direct_path": location.direct_path, "handle": secrets.token_hex(8)})
