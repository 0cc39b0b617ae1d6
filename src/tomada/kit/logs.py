"""Structured logs: one JSON object a line on standard error, without secrets.

Tokens travel in URL paths on this wire (docs/wire.md), in headers, and in whatever text a library logs, so redaction
works on the finished event: on every value, nested ones and tracebacks included, whoever wrote it. The standard
library's `logging` (uvicorn, asyncio, alembic) goes through the same pipe.

    log = structlog.get_logger(__name__)
    log.info("instance.created", instance=instance_id)     # event names: part.what_happened, no words with values in
"""

import contextlib
import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO, cast

import msgspec
import structlog

HIDDEN = "***"

# What a secret looks like wherever it stands. Formats: tomada.kit.ids; long unknown tokens are found by their place.
_SECRETS = re.compile(
    r"(?P<path>/token/)[^/\s?#\"']+"
    r"|(?P<scheme>\b(?:Bearer|Basic)\s+)[^\s\"',]+"
    r"|(?P<userinfo>://[^/\s:@\"']*:)[^/\s@\"']+(?=@)"
    r"|(?P<named>(?:authorization|client-token|z-api-token|partner[_-]?token|password|secret)[\"']?\s*[:=]\s*[\"']?)"
    r"(?:(?:Bearer|Basic)\s+)?[^\s\"',;&]+"
    r"|\btmd_[\w-]{20,}"
    r"|\bwhsec_[\w+/=-]{20,}"
    r"|\bF[0-9a-f]{32}S\b"
    r"|\b[0-9A-F]{24}\b",
    re.IGNORECASE,
)
_SECRET_KEYS = re.compile(r"token$|authorization|password|secret|sealed|api_?key", re.IGNORECASE)
_SECRET_LENGTH_MIN = 12  # of a text with a secret and what tells that it is one
_DEPTH_MAX = 6


class Clean(str):
    """A text without secrets, so that it is not searched again."""

    __slots__ = ()


def redact(text: str) -> Clean:
    """The text with every secret in it replaced by `***`."""
    return Clean(_SECRETS.sub(_hide, text))


def _hide(match: re.Match[str]) -> str:
    return (match["path"] or match["scheme"] or match["userinfo"] or match["named"] or "") + HIDDEN


def redact_event(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """structlog processor: the last one before the line is written."""
    return {key: HIDDEN if _SECRET_KEYS.search(key) and value else _redacted(value) for key, value in event.items()}


def _redacted(value: Any, depth: int = 0) -> Any:
    if isinstance(value, str):
        return value if isinstance(value, Clean) or len(value) < _SECRET_LENGTH_MIN else redact(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth >= _DEPTH_MAX:
        return HIDDEN
    if isinstance(value, dict):
        return {
            str(key): HIDDEN if _SECRET_KEYS.search(str(key)) and item else _redacted(item, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_redacted(item, depth + 1) for item in value]
    return redact(str(value))


class _Forgiving:
    """A stream whose failures are ignored: a full disk under the log must not fail a request, or end a loop."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """As the stream does; what cannot be written is lost."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """As the stream does."""
        with contextlib.suppress(OSError):
            self._stream.flush()


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """Log from `level` up to `stream` (standard error). Call once, first thing in a process."""
    output = cast(TextIO, _Forgiving(stream or sys.stderr))
    least = logging.getLevelNamesMapping()[level.upper()]
    common: list[Any] = [
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        redact_event,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *common, _render],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.WriteLoggerFactory(file=output),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder(), *common],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, redact_event, _render],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(least, logging.WARNING))  # of libraries only what they warn of


def _render(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()
