"""What every child process of ours inherits of the environment: what programs need to run, and nothing that we hold.

A list of what passes, since secrets have many names: our own settings hold tokens, a key and the database's password,
and the operator's environment may hold others of theirs. `ps e` and /proc show a process's environment to its user.
"""

from collections.abc import Mapping

_NAMES = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV"),
        "TOMADA_MACHINE",  # where the program is: the sandbox reads WhatsApp's messages from it, too
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
        *("http_proxy", "https_proxy", "no_proxy", "all_proxy"),
    }
)
_BEGINNINGS = ("LC_", "PYTHON", "GO", "COVERAGE_", "COV_")  # GODEBUG, GOMEMLIMIT...; coverage measures children, too


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of an environment that a child gets."""
    return {name: value for name, value in environ.items() if name in _NAMES or name.startswith(_BEGINNINGS)}
