"""From a request's body to a struct. The rules are the wire's (docs/wire.md, bodies):

- a body that is too large is refused by its Content-Length, or as soon as it has grown too large: never read whole;
- 415 only when there is a body and its Content-Type is not JSON;
- broken JSON and wrong types are 400, with words that name the field;
- unknown fields and null for optional fields are ignored (the structs say `| None`), and so is an empty text;
- numbers and booleans may come as strings, because clients send them so; strings may not come as numbers unless the
  struct says so;
- half of a surrogate pair, which JavaScript writes for a text that was cut within an emoji, becomes U+FFFD.

Litestar's own reading is not used: it answers with its own words, and reads the body before it knows whether it may.
"""

import re
from typing import Any, TypeVar

import msgspec
from litestar import Request

from tomada.errors import BadInput, BodyTooLarge, UnsupportedMediaType
from tomada.wire.ports import Ports

Body = TypeVar("Body", bound=msgspec.Struct)
AnyRequest = Request[Any, Any, Any]

_JSON_TYPE = re.compile(r"application/(?:[\w.-]+\+)?json", re.IGNORECASE)
_AT_FIELD = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]+)`")
_AT_BYTE = re.compile(r"\(byte (\d+)\)$")
_EXPECTED_INT = re.compile(r"^Expected `int(?: \| null)?`")
_JSON_NAMES = {"int": "number", "float": "number", "bool": "boolean", "str": "string", "array": "list"}
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # which .NET likes to write first
# A whole pair or half of one, behind any number of escaped backslashes.
_SURROGATES = re.compile(
    rb"(?<!\\)((?:\\\\)*)(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
_PAIR_LENGTH = len(rb"\ud83d\ude00")
_DIGITS_MAX = 18  # of a number in a query: what has more fits into no column, and is nonsense
_EMPTY_BODIES = (b"", b"[]", b"{}", b"null", b'""')  # what clients send where they have no fields to send


def ports_of(request: AnyRequest) -> Ports:
    """The ports that build_app was given."""
    ports: Ports = request.app.state.ports
    return ports


async def read_body(request: AnyRequest, kind: type[Body]) -> Body:
    """The body as a `kind`. Raises BadInput, BodyTooLarge, UnsupportedMediaType."""
    return decode(await read_json(request), kind)


async def read_json(request: AnyRequest) -> bytes:
    """The bytes of a body that is announced as JSON, or none. Raises BadInput, BodyTooLarge, UnsupportedMediaType."""
    raw = await _read_bytes(request, ports_of(request).settings.body_bytes_max)
    if raw:
        _require_json(request.headers.get("content-type"))
    return raw


async def read_optional_body(request: AnyRequest, kind: type[Body]) -> Body:
    """As read_body, for calls whose fields are all optional: a body that says nothing is fine with any Content-Type."""
    raw = await _read_bytes(request, ports_of(request).settings.body_bytes_max)
    if raw.strip() in _EMPTY_BODIES:
        return kind()
    _require_json(request.headers.get("content-type"))
    return decode(raw, kind)


def decode(raw: bytes, kind: type[Body]) -> Body:
    """JSON bytes as a `kind`. Raises BadInput with words for a person."""
    raw = raw.removeprefix(_BYTE_ORDER_MARK) or b"{}"
    if b"\\ud" in raw or b"\\uD" in raw:
        raw = _SURROGATES.sub(_whole, raw)
    try:
        body = _decode(raw, kind)
    except msgspec.ValidationError as error:
        raise BadInput(_words(str(error))) from None
    except (msgspec.DecodeError, ValueError) as error:
        raise BadInput(_broken(raw, str(error))) from None
    except RecursionError:
        raise BadInput("The body is nested too deeply") from None
    if b"\\u0000" in raw and _has_nul(msgspec.to_builtins(body)):
        raise BadInput("The character U+0000 is not allowed")  # PostgreSQL's text cannot hold it
    return body


def text_of(request: AnyRequest, name: str) -> str:
    """A text of the query without blanks around it, empty if there is none. Raises BadInput if there are several."""
    values = request.query_params.getall(name, [])
    if len(values) > 1:
        raise BadInput(f"{name} is given {len(values)} times")
    return str(values[0]).strip() if values else ""


def number_of(request: AnyRequest, name: str, default: int, largest: int, *, smallest: int = 1) -> int:
    """A number of the query, brought into smallest..largest. Raises BadInput for what is none."""
    text = text_of(request, name)
    if not text:
        return default
    digits = text.removeprefix("-")
    if not digits.isdecimal() or len(digits) > _DIGITS_MAX:
        raise BadInput(f"{name} must be a number")
    return max(smallest, min(int(text), largest))


async def _read_bytes(request: AnyRequest, bytes_max: int) -> bytes:
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > bytes_max:
        raise BodyTooLarge(f"The body is too large: at most {bytes_max} bytes")
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await request.receive()
        if message["type"] != "http.request":
            raise BadInput("The body ended early")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > bytes_max:
            raise BodyTooLarge(f"The body is too large: at most {bytes_max} bytes")
        if not message.get("more_body"):
            return b"".join((*chunks, chunk)) if chunks else chunk
        chunks.append(chunk)


def _require_json(content_type: str | None) -> None:
    if not _JSON_TYPE.fullmatch((content_type or "").partition(";")[0].strip()):
        raise UnsupportedMediaType


def _decode(raw: bytes, kind: type[Body]) -> Body:
    """As it is, or, if that fails, without the blanks: few bodies have any, so that most are read once."""
    try:
        return msgspec.json.decode(raw, type=kind, strict=False)
    except msgspec.ValidationError as error:
        try:
            given = msgspec.json.decode(raw)
        except msgspec.ValidationError:  # a number out of range; this one does not know in which field
            raise error from None
        filled = _without_blanks(given, kind)
        if filled == given:
            raise
        return msgspec.convert(filled, kind, strict=False)


def _without_blanks(given: Any, kind: type[msgspec.Struct]) -> Any:
    """Without the optional fields that hold an empty text, which is how forms and templates say that there is none."""
    if not isinstance(given, dict):
        return given
    optional = {field.encode_name for field in msgspec.structs.fields(kind) if not field.required}
    return {name: value for name, value in given.items() if value != "" or name not in optional}


def _whole(found: re.Match[bytes]) -> bytes:
    return found[1] + (found[2] if len(found[2]) == _PAIR_LENGTH else rb"\ufffd")


def _broken(raw: bytes, message: str) -> str:
    """Our words for a body that is no JSON; of msgspec's own only the place is taken."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return "The body must be UTF-8"
    place = _AT_BYTE.search(message)
    return f"The body is not valid JSON: near byte {place[1]}" if place else "The body is not valid JSON: it is cut off"


def _words(message: str) -> str:
    """msgspec's message with the field first and JSON's names of types."""
    match = _AT_FIELD.match(message)
    what, path = (match["what"], match["path"] or "") if match else (message, "")
    field = path.removeprefix("$").removeprefix(".")
    missing = _MISSING.match(what)
    if missing:
        return f"{field}.{missing['name']} is required" if field else f"{missing['name']} is required"
    what = _EXPECTED_INT.sub("Expected whole number", what)
    plain = re.sub(r"`(\w+)`", lambda name: _JSON_NAMES.get(name[1], name[1]), what)
    plain = re.sub(r"`([^`]*)`", lambda types: _plain_types(types[1]), plain)
    return f"{field}: {plain[:1].lower()}{plain[1:]}" if field else plain


def _plain_types(types: str) -> str:
    names = dict.fromkeys(_JSON_NAMES.get(name, name) for name in types.split(" | ") if name != "null")
    return " or ".join(names)


def _has_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_has_nul(item) for item in value.values())
    return isinstance(value, list | tuple) and any(_has_nul(item) for item in value)
