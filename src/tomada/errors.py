"""Every error that reaches a caller, in one tree; the docstring is the default message, so each one is documented.

    TomadaError                      has `status` (HTTP) and `code` (for /v1, stable)
    ├── BadInput                400
    │   ├── BadAddress          400  a callback URL that may not be called
    │   ├── QueueFull           400
    │   └── NotConnected        400
    ├── Unauthorized            401  partner credential
    ├── ClientTokenMissing      400
    ├── ClientTokenWrong        403
    ├── NotFound                400  instance (the wire's status, see docs/wire.md; /v1 answers 404)
    │   └── AccountNotFound     400
    ├── SubscriptionNeeded      400
    ├── Refused                 400  a lifecycle call that the instance's state forbids
    ├── LimitReached            403  an account's limit
    ├── TooManyRequests         429  a limit per minute
    ├── Conflict                409  another request with the same Idempotency-Key is being answered
    ├── UnsupportedMediaType    415
    ├── BodyTooLarge            413
    └── Unavailable             503  the database or a machine does not answer just now; try again
        ├── DatabaseUnavailable 503  the database cannot be reached, and nothing was written
        ├── OutcomeUnknown      503  the database went away while it committed: written or not, nobody knows
        └── MachineTimeout      504

Rules: raise the narrowest class with words for a person; never put a token, a key or a foreign error's text into them.
The wire turns each into `{"error": message}` and /v1 into `{"error": code, "message", "hint"}`; whatever is not in this
tree becomes a 500 without details, and is logged. A hint is one sentence that says what to do next.
"""

from typing import ClassVar


class TomadaError(Exception):
    """Something went wrong"""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    hint: str = "Try again later; if it stays so, the server's log says what went wrong."

    def __init__(self, message: str | None = None, *, hint: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        self.hint = hint or type(self).hint
        super().__init__(self.message)


class BadInput(TomadaError):
    """The request is not understood"""

    status = 400
    code = "bad_input"
    hint = "Compare the body with the documentation of this call."


class BadAddress(BadInput):
    """This URL cannot be called: it must be https and lead to a public address"""

    code = "bad_address"
    hint = "Self-hosters who call their own network set TOMADA_CALLBACKS_ALLOW_HTTP and TOMADA_CALLBACKS_ALLOW_PRIVATE."


class QueueFull(BadInput):
    """The queue of this instance is full (1000 messages)"""

    code = "queue_full"
    hint = "Connect the instance, or clear its queue."


class NotConnected(BadInput):
    """You need to be connected"""

    code = "not_connected"
    hint = "Pair a phone with this instance first."


class Unauthorized(TomadaError):
    """Unauthorized"""

    status = 401
    code = "unauthorized"
    hint = "Send Authorization: Bearer <partner token>."


class ClientTokenMissing(TomadaError):
    """your client-token is not configured"""

    status = 400
    code = "client_token_missing"
    hint = "This account demands the header Client-Token."


class ClientTokenWrong(TomadaError):
    """Client-Token not allowed"""

    status = 403
    code = "client_token_wrong"
    hint = "Send the Client-Token that the account has now, or Authorization: Bearer <partner token>."


class NotFound(TomadaError):
    """Instance not found"""

    status = 400
    code = "not_found"
    hint = "Check the id, and that the credential is of the account that it belongs to."


class AccountNotFound(NotFound):
    """Account not found"""

    hint = "GET /v1/accounts lists the accounts with their ids."


class SubscriptionNeeded(TomadaError):
    """To continue sending a message, you must subscribe to this instance again"""

    status = 400
    code = "subscription_needed"
    hint = "Subscribe to the instance: POST .../integrator/on-demand/subscription."


class Refused(TomadaError):
    """The instance's state does not allow this"""

    status = 400
    code = "refused"
    hint = "Change first what the message says stands in the way."


class LimitReached(TomadaError):
    """The account's limit is reached"""

    status = 403
    code = "limit_reached"
    hint = "Delete instances that are no longer needed, or ask the operator for a higher limit."


class TooManyRequests(TomadaError):
    """Too many requests; please wait"""

    status = 429
    code = "too_many_requests"
    hint = "Wait as many seconds as the header Retry-After says."

    def __init__(self, message: str | None = None, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Conflict(TomadaError):
    """A request with this Idempotency-Key is being answered just now"""

    status = 409
    code = "conflict"
    hint = "Wait for the first answer, or send the request again in a minute."


class UnsupportedMediaType(TomadaError):
    """Unsupported Media Type: send Content-Type: application/json"""

    status = 415
    code = "unsupported_media_type"
    hint = "Send the body as JSON, with the header Content-Type: application/json."


class BodyTooLarge(TomadaError):
    """The body is too large"""

    status = 413
    code = "body_too_large"
    hint = "Send less at a time; the message says how much is taken."


class Unavailable(TomadaError):
    """Not available just now, please try again"""

    status = 503
    code = "unavailable"
    hint = "Nothing was done; send the request again."


class DatabaseUnavailable(Unavailable):
    """The database does not answer just now, please try again"""

    code = "database_unavailable"


class OutcomeUnknown(Unavailable):
    """The database went away before it confirmed; please check whether this was done before you try again"""

    code = "outcome_unknown"
    hint = "It may or may not have been done; read the state before you repeat the request."


class MachineTimeout(Unavailable):
    """The instance's machine did not answer in time"""

    status = 504
    code = "machine_timeout"
    hint = "It may have been done all the same; read the state before you repeat the request."
