"""From an exception to the wire's error: one flat object with a string `error` (docs/wire.md, errors).

Whatever is not ours or the router's becomes a 500 without details; what happened goes to the log, never to the caller.
"""

import math
from typing import Any

import structlog
from litestar import Response
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException

from tomada.errors import (
    BadInput,
    DatabaseUnavailable,
    NotFound,
    OutcomeUnknown,
    TomadaError,
    TooManyRequests,
    Unavailable,
)
from tomada.postgres.verdict import Verdict, judge, words
from tomada.wire.reading import AnyRequest

log = structlog.get_logger(__name__)

UNKNOWN_ROUTE = {"error": "NOT_FOUND", "message": "Unable to find matching target resource method"}
_HINT_PATH = "Compare the path with GET /v1/openapi.json."
_HINT_METHOD = "Use a method that the header Allow names."

_READING = ("GET", "HEAD")

Failure = Response[dict[str, Any]]


def answer_ours(request: AnyRequest, error: TomadaError) -> Failure:
    """An error of our own tree: its status and words; /v1 also names it and says what to do."""
    headers = {"Retry-After": "1"} if isinstance(error, Unavailable) else None
    if isinstance(error, TooManyRequests):
        headers = {"Retry-After": str(max(1, math.ceil(error.retry_after_s)))}
    if error.status == 401:  # RFC 9110 wants it beside a 401
        headers = {"WWW-Authenticate": "Bearer"}
    if not _is_v1(request):
        return _failure(error.status, {"error": error.message}, headers)
    status = 404 if isinstance(error, NotFound) else error.status  # the wire's clients know 400, ours what HTTP means
    return _failure(status, {"error": error.code, "message": error.message, "hint": error.hint}, headers)


def answer_http(request: AnyRequest, error: HTTPException) -> Failure:
    """What the router says: unknown route, wrong method, or a request it cannot read."""
    if isinstance(error, NotFoundException):
        if _is_v1(request):
            return answer_ours(request, NotFound(UNKNOWN_ROUTE["message"], hint=_HINT_PATH))
        return _failure(404, UNKNOWN_ROUTE)
    if isinstance(error, MethodNotAllowedException):
        words = {"error": "Method Not Allowed"}
        if _is_v1(request):
            words = {"error": "method_not_allowed", "message": words["error"], "hint": _HINT_METHOD}
        allowed = (error.headers or {}).get("allow", "")
        return _failure(405, words, {"Allow": ", ".join(sorted(allowed.split(", ")))})
    if error.status_code >= 500:
        log.error("wire.router_failed", status=error.status_code, exc_info=error)
        return answer_ours(request, TomadaError())
    if _is_v1(request):
        words = {"error": BadInput.code, "message": error.detail, "hint": BadInput.hint}
        return _failure(error.status_code, words)
    return _failure(error.status_code, {"error": error.detail})


def answer_unknown(request: AnyRequest, error: Exception) -> Failure:
    """Anything else: what the database says about itself (postgres/verdict.py) is 503, the rest a defect of ours.

    A connection that is lost during COMMIT may have committed. Where it was lost is not known here, so whoever did not
    merely read is told to look first.
    """
    verdict = judge(error)
    if not verdict.passes:
        log.error("wire.failed", exc_info=error)
        return answer_ours(request, TomadaError())
    say = log.error if verdict is Verdict.UNCLEAR else log.warning
    say("wire.database_refused", verdict=verdict.value, error=type(error).__name__, why=words(error))
    if verdict is Verdict.LOST:
        return answer_ours(request, Unavailable() if request.method in _READING else OutcomeUnknown())
    return answer_ours(request, Unavailable() if verdict is Verdict.UNDONE else DatabaseUnavailable())


EXCEPTION_HANDLERS: dict[int | type[Exception], Any] = {
    TomadaError: answer_ours,
    HTTPException: answer_http,
    Exception: answer_unknown,
}


def _is_v1(request: AnyRequest) -> bool:
    """By the path alone: request.url would read the header Host, which may be nonsense."""
    return bool(request.scope["path"].startswith("/v1/"))


def _failure(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> Failure:
    return Response(body, status_code=status, media_type="application/json", headers=headers)
