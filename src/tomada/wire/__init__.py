"""The wire: the PlugzAPI/Z-API surface over HTTP. docs/wire.md is its contract. No SQL and no decisions live here.

api.py          build_app: every route in one Litestar application
ports.py        what the wire needs of the rest, as protocols
credentials.py  guards: no route of a partner or an instance runs without them
reading.py      from a request's body to a struct, with the wire's errors
failing.py      from an exception to `{"error": ...}`
bodies.py, replies.py, phones.py, qr_image.py   the data
partner.py, creating.py, lifecycle_calls.py   the partner's routes
callback_calls.py, account_calls.py, operator.py, operator_parts.py, openapi.py   /v1
failed_logins.py   who guesses tokens waits
instance_calls.py, settings_calls.py, sending.py, queue_calls.py, health.py   the others
server.py, protocol.py   the HTTP server with its deadlines and limits
access_log.py   one line a request, without tokens
"""
