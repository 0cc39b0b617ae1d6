"""What a child process inherits."""

from tomada.kit.environment import inherited


def test_no_secret_passes_under_whatever_name() -> None:
    """Neither ours, nor PostgreSQL's, nor others of the operator's."""
    secret = (
        "TOMADA_SECRET_KEY",
        "TOMADA_DATABASE_URL",
        "TOMADA_OPERATOR_TOKEN",
        "PGPASSWORD",
        "DATABASE_URL",
        "MY_TOKEN",
    )

    assert inherited(dict.fromkeys(secret, "x")) == {}


def test_what_programs_need_passes() -> None:
    """Paths, languages, authorities to trust, the proxy."""
    needed = dict.fromkeys(("PATH", "HOME", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "SSL_CERT_FILE", "HTTPS_PROXY"), "x")

    assert inherited(needed) == needed
