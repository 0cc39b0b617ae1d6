"""The sandbox's control routes on the product's own port: `/sandbox/...` is passed on to the sandbox process.

The product answers the clock itself, since it is about its own database: the movable clock of the lifecycle. The rest
goes through unchanged, both ways. Only app.py mounts this, and only with the sandbox on.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import msgspec
from litestar import HttpMethod, Request, Response, route
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

BODY_BYTES_MAX = 32 << 20  # a video that a simulated phone sends, in base64
TIMEOUT_S = 90.0
_METHODS = (HttpMethod.GET, HttpMethod.POST, HttpMethod.PUT, HttpMethod.DELETE)

AnyRequest = Request[Any, Any, Any]
ReadClock = Callable[[], Awaitable[object]]
AdvanceClock = Callable[[int], Awaitable[object]]


class Advance(msgspec.Struct):
    """Body of POST /sandbox/clock."""

    advanceSeconds: int  # noqa: N815 - the wire's name


class Front:
    """Passes requests on to the control API at `control_url`; `close` ends its connections."""

    def __init__(self, control_url: str, read_clock: ReadClock, advance_clock: AdvanceClock) -> None:
        self._control_url = control_url
        self._read_clock = read_clock
        self._advance_clock = advance_clock
        self._client = aiohttp.ClientSession(  # noqa: TID251 - to our own child on loopback, never outside
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S), auto_decompress=False
        )

    async def close(self) -> None:
        """End the connections to the sandbox."""
        await self._client.close()

    def handlers(self) -> list[HTTPRouteHandler]:
        """The routes, for the application."""

        @route(
            ["/sandbox/{rest:path}"],
            http_method=_METHODS,
            include_in_schema=False,
            request_max_body_size=BODY_BYTES_MAX,
        )
        async def sandbox(request: AnyRequest, rest: FromPath[str]) -> Response[bytes]:
            return await self.answer(request, str(rest))

        return [sandbox]

    async def answer(self, request: AnyRequest, rest: str) -> Response[bytes]:
        """One request, answered here or by the sandbox."""
        body = await request.body()
        if rest.strip("/") == "clock":
            return await self._clock(request.method, body)
        # The path as it came: a group's id or a plus sign must not change on the way.
        query = request.scope["query_string"].decode()
        target = request.scope["raw_path"].decode() + (f"?{query}" if query else "")
        try:
            async with self._client.request(
                request.method, self._control_url + target, data=body, headers={"Content-Type": "application/json"}
            ) as reply:
                # As it came: beside JSON there are media, each of its own type.
                kind = reply.headers.get("Content-Type", "application/json")
                return Response(await reply.read(), status_code=reply.status, headers={"Content-Type": kind})
        except (aiohttp.ClientError, TimeoutError):
            return _json(503, b'{"error": "the sandbox does not answer just now"}')

    async def _clock(self, method: str, body: bytes) -> Response[bytes]:
        if method == "GET":
            return _json(200, msgspec.json.encode(await self._read_clock()))
        if method != "POST":
            return _json(405, b'{"error": "Method Not Allowed"}')
        try:
            wanted = msgspec.json.decode(body, type=Advance)
        except msgspec.DecodeError as error:
            return _json(400, msgspec.json.encode({"error": re.sub(r" - at `\$.?(\w*)`", r": \1", str(error))}))
        except RecursionError:
            return _json(400, b'{"error": "The body is nested too deeply"}')
        return _json(200, msgspec.json.encode(await self._advance_clock(wanted.advanceSeconds)))


def _json(status: int, body: bytes) -> Response[bytes]:
    return Response(body, status_code=status, media_type="application/json")
