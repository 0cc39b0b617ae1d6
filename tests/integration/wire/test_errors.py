"""The wire's errors: flat JSON, the right status, never a stack trace."""

import asyncio
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litestar import Litestar
from litestar import route as answering
from litestar.params import FromPath

from tests.integration.wire.client import JSON, Answer, Client, read_answer
from tests.integration.wire.conftest import BODY_BYTES_MAX, Wire
from tomada.errors import OutcomeUnknown, TomadaError, Unavailable
from tomada.kit.clock import SystemClock
from tomada.wire import operator
from tomada.wire.api import build_app
from tomada.wire.failed_logins import FailedLogins
from tomada.wire.failing import EXCEPTION_HANDLERS
from tomada.wire.operator_parts import OperatorParts
from tomada.wire.ports import Ports, WireSettings
from tomada.wire.server import serving

CREATE = "/instances/integrator/on-demand"


def _is_flat(answer: Answer) -> None:
    assert answer.headers["content-type"] == "application/json"
    shown = answer.json()
    assert isinstance(shown["error"], str)
    assert shown["error"]
    assert set(shown) <= {"error", "message"}
    assert "Traceback" not in answer.body.decode()


async def test_unknown_route(wire: Wire) -> None:
    """404 with the router's words that clients know, with or without credentials."""
    account = await wire.account()
    path = await wire.instance(account)
    for route in ("/", "/nothing", f"{path}/no-such-call", "/instances/integrator", f"{path}/queue/a/b", path, "//x"):
        answer = await wire.partner(account).call("GET", route)
        assert answer.status == 404, route
        assert answer.json() == {"error": "NOT_FOUND", "message": "Unable to find matching target resource method"}
        _is_flat(answer)


async def test_wrong_method(wire: Wire) -> None:
    """405 with Allow, before any credential is asked for."""
    path = await wire.instance(await wire.account())
    for method, route in (
        ("GET", CREATE),
        ("PUT", CREATE),
        ("POST", "/instances"),
        ("GET", f"{path}/send-text"),
        ("POST", f"{path}/status"),
        ("DELETE", f"{path}/update-name"),
    ):
        answer = await wire.client().call(method, route)
        assert answer.status == 405, route
        assert answer.json() == {"error": "Method Not Allowed"}
        assert answer.headers["allow"]
        _is_flat(answer)


async def test_options_and_405_name_the_same_methods(wire: Wire) -> None:
    """All that a path has, in whatever order its routes were registered."""
    path = await wire.instance(await wire.account())
    for route, methods in (
        (f"{path}/queue", "DELETE, GET, OPTIONS, POST"),
        (f"{path}/status", "GET, OPTIONS"),
        (f"{path}/disconnect", "GET, OPTIONS, POST"),
    ):
        options = await wire.client().call("OPTIONS", route)
        refused = await wire.client().call("PATCH", route)
        assert (options.status, options.headers["allow"]) == (204, methods)
        assert (refused.status, refused.headers["allow"]) == (405, methods)


@pytest.mark.parametrize(
    "query", ["middleware=xx", "page=2&page=3", "query=a&query=b", "middleware=web&middleware=web"]
)
async def test_queries_that_mean_nothing(wire: Wire, query: str) -> None:
    """Not taken silently for something else; the words name what is wrong."""
    answer = await wire.partner(await wire.account()).call("GET", f"/instances?{query}")
    assert answer.status == 400
    assert query.split("=", maxsplit=1)[0] in answer.json()["error"]
    _is_flat(answer)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"phone": "5511", "message": "x", "delayMessage": 1e400}', "delayMessage"),
        (b'{"phone": "5511", "message": 1e400}', "message"),
        (b'{"phone": "5511", "message": "x", "mentioned": ["1", 1e999]}', "mentioned"),
    ],
)
async def test_a_number_out_of_range_names_its_field(wire: Wire, body: bytes, field: str) -> None:
    """JSON has such numbers, we do not."""
    path = await wire.instance(await wire.account())
    answer = await wire.client().call("POST", f"{path}/send-text", body=body, headers=JSON)
    assert (answer.status, answer.json()["error"].startswith(field)) == (400, True), answer.body


@pytest.mark.parametrize("host", ["x:99999", "x:port", "[::1", ""])
async def test_host_that_is_none(wire: Wire, host: str) -> None:
    """What the header Host says, be it nonsense, does not change an error."""
    for path, error in (("/instances", "Unauthorized"), ("/instances/x/token/y/status", "Instance not found")):
        answer = await wire.client().raw(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert (answer.status < 500, answer.json()) == (True, {"error": error})
        _is_flat(answer)


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
    ],
)
async def test_body_that_is_not_json(wire: Wire, content_type: str | None) -> None:
    """A body whose Content-Type is missing or not JSON is 415, on create and on sends."""
    account = await wire.account()
    path = await wire.instance(account)
    headers = {"Content-Type": content_type} if content_type is not None else {}
    for client, route in ((wire.partner(account), CREATE), (wire.client(), f"{path}/send-text")):
        answer = await client.call("POST", route, body=b'{"name": "x"}', headers=headers)
        assert answer.status == 415
        _is_flat(answer)


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"]
)
async def test_json_content_types(wire: Wire, content_type: str) -> None:
    """JSON in any spelling of its type is read."""
    partner = wire.partner(await wire.account())
    answer = await partner.call("POST", CREATE, body=b'{"name": "x"}', headers={"Content-Type": content_type})
    assert answer.status == 200


async def test_byte_order_mark(wire: Wire) -> None:
    """A body that begins with a byte order mark is read."""
    partner = wire.partner(await wire.account())
    answer = await partner.call("POST", CREATE, body=b'\xef\xbb\xbf{"name": "x"}', headers=JSON)
    assert answer.status == 200


async def test_get_with_json_content_type(wire: Wire) -> None:
    """A GET that announces JSON without having a body passes."""
    account = await wire.account()
    path = await wire.instance(account)
    assert (await wire.client().call("GET", f"{path}/status", headers=JSON)).status == 200
    assert (await wire.partner(account).call("GET", "/instances", headers=JSON)).status == 200


async def test_empty_body_names_what_is_missing(wire: Wire) -> None:
    """No body where one is needed is 400, not 415, whatever Content-Type is announced."""
    partner = wire.partner(await wire.account())
    for headers in ({}, JSON, {"Content-Type": "text/plain"}):
        answer = await partner.call("POST", CREATE, headers=headers)
        assert (answer.status, answer.json()) == (400, {"error": "name is required"})


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"nul",
        b'{"name": "x"} trailing',
        b'{"name": "\xff"}',
        b"name=x",
        b'{"name": "\\ud8"}',
        b'{"a":' + b"[" * 60_000,
    ],
)
async def test_broken_json(wire: Wire, body: bytes) -> None:
    """Bytes that are not JSON, or are nested without end, are 400."""
    partner = wire.partner(await wire.account())
    answer = await partner.call("POST", CREATE, body=body, headers=JSON)
    assert answer.status == 400
    _is_flat(answer)


async def test_large_body_by_length(wire: Wire) -> None:
    """A Content-Length over the limit is 413 at once: not one byte of the body is sent here."""
    account = await wire.account()
    head = f"POST {CREATE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {account.partner_token}\r\n"
    answer = await wire.client().raw(
        f"{head}Content-Type: application/json\r\nContent-Length: 9999999999\r\n\r\n".encode()
    )
    assert answer.status == 413
    _is_flat(answer)


async def test_large_body_in_chunks(wire: Wire) -> None:
    """A body without a length is refused as soon as it has grown too large, while the client still sends."""
    account = await wire.account()
    client = wire.client()
    reader, writer = await asyncio.open_connection(client.host, client.port)
    head = f"POST {CREATE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {account.partner_token}\r\n"
    writer.write(f"{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    chunk = b"%x\r\n" % 8192 + b" " * 8192 + b"\r\n"
    for _ in range(BODY_BYTES_MAX // 8192 + 2):
        writer.write(chunk)
    await writer.drain()
    async with asyncio.timeout(10):
        head_of_answer = await reader.readuntil(b"\r\n\r\n")
    assert b" 413 " in head_of_answer
    writer.close()


async def test_body_at_the_limit(wire: Wire) -> None:
    """A body of exactly the limit is read."""
    partner = wire.partner(await wire.account())
    body = b'{"name": "x"}'.ljust(BODY_BYTES_MAX)
    assert (await partner.call("POST", CREATE, body=body, headers=JSON)).status == 200
    assert (await partner.call("POST", CREATE, body=body + b" ", headers=JSON)).status == 413


_AT_COMMIT = """
create function at_commit() returns trigger language plpgsql as $$ begin
    if new.name = 'Cut off' then perform pg_terminate_backend(pg_backend_pid());
    else raise exception using errcode = '40P01'; end if;
    return null;
end $$;
create constraint trigger at_commit after insert on instance deferrable initially deferred
for each row when (new.name in ('Cut off', 'Tangled')) execute function at_commit()
"""


@pytest.mark.parametrize(("name", "told"), [("Cut off", OutcomeUnknown()), ("Tangled", Unavailable())])
async def test_commit_without_an_answer(wire: Wire, name: str, told: Unavailable) -> None:
    """A connection lost while it commits may have committed, and the caller hears so; a rollback did nothing."""
    partner = wire.partner(await wire.account())
    await wire.pool.execute(_AT_COMMIT)
    try:
        answer = await partner.call("POST", CREATE, json={"name": name}, headers={"Idempotency-Key": name})
    finally:
        await wire.pool.execute("drop function at_commit cascade")
    assert (answer.status, answer.json()) == (503, {"error": told.message})
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("method", "error", "code"),
    [
        ("GET", "lost", "unavailable"),
        ("POST", "lost", "outcome_unknown"),
        ("DELETE", "silent", "outcome_unknown"),
        ("GET", "silent", "unavailable"),
        ("PUT", "tangled", "unavailable"),
        ("PATCH", "moved", "unavailable"),
    ],
)
async def test_nothing_was_done_is_said_only_when_known(method: str, error: str, code: str) -> None:
    """To whoever reads, or was rolled back; any other caller whose connection was lost shall look."""
    errors = {
        "lost": ConnectionResetError(),
        "silent": TimeoutError(),
        "tangled": asyncpg.DeadlockDetectedError("x"),
        "moved": asyncpg.SerializationError("x"),
    }

    @answering("/v1/{name:str}", http_method=["GET", "POST", "PUT", "PATCH", "DELETE"], status_code=200)
    async def failing(name: FromPath[str]) -> None:
        raise errors[name]

    app = Litestar([failing], exception_handlers=EXCEPTION_HANDLERS, openapi_config=None, debug=False)
    async with serving(app, "127.0.0.1", 0) as url:
        answer = await Client(url).call(method, f"/v1/{error}")
    shown = answer.json()
    assert (answer.status, shown["error"]) == (503, code)
    assert shown["hint"].startswith("Nothing was done") == (code == "unavailable")


def _all_errors(base: type[TomadaError] = TomadaError) -> list[type[TomadaError]]:
    return [base, *(found for each in base.__subclasses__() for found in _all_errors(each))]


@pytest.mark.parametrize("kind", _all_errors(), ids=lambda kind: kind.__name__)
def test_every_error_has_a_hint(kind: type[TomadaError]) -> None:
    """One sentence; an error may be raised with a better one."""
    assert kind().hint.endswith(".")
    assert kind.__name__ == "TooManyRequests" or kind(hint="Do this.").hint == "Do this."


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "hint"),
    [
        ("GET", "/v1/no-such-call", 404, "not_found", "openapi.json"),
        ("POST", "/v1/openapi.json", 405, "method_not_allowed", "Allow"),
        ("GET", "/v1/accounts", 401, "unauthorized", "TOMADA_OPERATOR_TOKEN"),
    ],
)
async def test_errors_of_v1(method: str, path: str, status: int, code: str, hint: str) -> None:
    """Code, words and what to do, also where the router or the operator's guard refuses."""
    nothing: Any = None
    of_none = dict.fromkeys(Ports.__struct_fields__, nothing) | {"settings": WireSettings(trial_ms=1)}
    ports = Ports(**of_none | {"logins": FailedLogins(SystemClock(), 100)})
    parts = OperatorParts(*[nothing] * len(OperatorParts._fields))
    async with serving(build_app(ports, [operator.router], {"operator": parts}), "127.0.0.1", 0) as url:
        answer = await Client(url).call(method, path)
    shown = answer.json()
    assert (answer.status, shown["error"]) == (status, code)
    assert list(shown) == ["error", "message", "hint"]
    assert hint in shown["hint"]
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize("query", ["page=x", "page=1&pageSize=1e3", "page=" + "9" * 30, "pageSize=%00", "page=1.5"])
async def test_bad_paging(wire: Wire, query: str) -> None:
    """A page that is no number is 400."""
    answer = await wire.partner(await wire.account()).call("GET", f"/instances?{query}")
    assert answer.status == 400
    _is_flat(answer)


async def test_health_and_ready(wire: Wire) -> None:
    """Both probes answer without credentials."""
    assert (await wire.client().call("GET", "/health")).json() == {"status": "ok"}
    assert (await wire.client().call("GET", "/ready")).json() == {"status": "ready"}


@pytest.mark.parametrize("path", ["/health", "/ready"])
async def test_head_of_a_probe(wire: Wire, path: str) -> None:
    """A probe by HEAD hears the same status and headers and no body, so that the connection can be used again."""
    client = wire.client()
    shown = await client.call("GET", path)
    reader, writer = await asyncio.open_connection(client.host, client.port)
    async with asyncio.timeout(20):
        writer.write(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\nGET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        after = await read_answer(reader)
    writer.close()
    assert head.startswith("http/1.1 200 ")
    assert f"content-length: {len(shown.body)}\r\n" in head
    assert "content-type: application/json\r\n" in head
    assert (after.status, after.body) == (200, shown.body)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=8,
)
_FIELDS = (
    *("name", "sessionName", "receivedCallbackUrl", "callRejectAuto", "phone", "message", "delayMessage", "mentioned"),
    *("groupMentioned", "value", "notifySentByMe", "pageSize", "pagingState", "disableEnqueueWhenDisconnected"),
)
_bodies = st.dictionaries(st.sampled_from(_FIELDS), _json, max_size=6)
_CALLS = (
    *("POST send-text", "POST queue", "PUT update-name", "PUT update-every-webhooks", "PUT update-call-reject-message"),
    *("PUT update-call-reject-auto", "PUT update-webhook-received", "PUT update-queue-settings"),
)


async def _never_a_defect(client: Client, method: str, path: str, body: Any) -> None:
    answer = await client.call(method, path, json=body)
    assert answer.status in (200, 400), (path, body, answer.body)
    if answer.status == 400:
        _is_flat(answer)


async def test_any_json_body(wire: Wire) -> None:
    """No JSON body of any shape makes any call answer anything but 200 or a flat 400."""
    account = await wire.account(limit=100_000)
    path = await wire.instance(account)
    loop = asyncio.get_running_loop()

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(call=st.sampled_from(_CALLS), body=_bodies | _json)
    def fuzz(call: str, body: Any) -> None:
        method, _, name = call.partition(" ")
        work = [_never_a_defect(wire.client(), method, f"{path}/{name}", body)]
        work.append(_never_a_defect(wire.partner(account), "POST", CREATE, body))
        for one in work:
            asyncio.run_coroutine_threadsafe(one, loop).result(30)

    await asyncio.to_thread(fuzz)


async def test_any_bytes(wire: Wire) -> None:
    """No sequence of bytes as a body, and none as a path, makes a defect."""
    account = await wire.account(limit=100_000)
    path = await wire.instance(account)
    loop = asyncio.get_running_loop()
    target = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#"), max_size=40)

    async def one(body: bytes, tail: str) -> None:
        answer = await wire.client().call("POST", f"{path}/send-text", body=body, headers=JSON)
        assert answer.status == 400, body
        answer = await wire.client().call("GET", f"{path}/{tail}")
        assert answer.status in (200, 400, 404, 405), tail

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(body=st.binary(max_size=200), tail=target)
    def fuzz(body: bytes, tail: str) -> None:
        asyncio.run_coroutine_threadsafe(one(body, tail), loop).result(30)

    await asyncio.to_thread(fuzz)
