"""What can keep the embedded server from starting, in words that tell the operator what to do.

These stop the program at start (`tomada serve` prints them); they never reach the wire.
"""


class EmbeddedServerError(Exception):
    """The embedded PostgreSQL cannot be run; the message says why and what to do."""


class ProgramsMissing(EmbeddedServerError):
    """No usable PostgreSQL programs on this computer."""


class DataDirectoryInUse(EmbeddedServerError):
    """Another Tomada, or a PostgreSQL that will not stop, holds the data directory."""


class DataDirectoryUnusable(EmbeddedServerError):
    """The data directory cannot be used: wrong version, wrong owner, or no account to run as."""


class StartFailed(EmbeddedServerError):
    """PostgreSQL ended, or did not become ready in time; the end of its log is in the message."""
