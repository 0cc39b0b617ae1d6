"""No secret reaches a log line, wherever it stood."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from tomada.kit import ids, logs

TOKEN = "0F1E2D3C4B5A69788796A5B4"
PARTNER = "tmd_" + "x7Yz" * 10
CLIENT = "F0123456789abcdef0123456789abcdefS"
SECRET = "whsec_" + "q83vAbCd" * 5


@pytest.mark.parametrize(
    "text",
    [
        f"GET /instances/3D0F6A1B2C3D4E5F60718293A4B5C6D7/token/{TOKEN}/send-text",
        "/instances/x/token/some-other_format.of.token/status",
        f"Authorization: Bearer {PARTNER}",
        "{'authorization': 'Bearer ey.header.payload'}",
        "Client-Token: own-format-of-someone",
        f"headers [(b'client-token', b'{CLIENT}')]",
        f"z-api-token: {TOKEN}",
        f"bare {PARTNER} and {CLIENT} and {SECRET} and {TOKEN}.",
        "postgresql://tomada:own-format-of-someone@db.example/x",
        "TOMADA_PARTNER_TOKEN=own-format-of-someone",
        "password=own-format-of-someone;",
    ],
)
def test_redact(text: str) -> None:
    """Each place and each format of a secret is blanked; what is around it stays."""
    shown = logs.redact(text)
    for secret in (TOKEN, PARTNER, CLIENT, SECRET, "some-other_format", "ey.header", "own-format-of-someone"):
        assert secret not in shown
    assert logs.HIDDEN in shown


@pytest.mark.parametrize(
    "text",
    [
        "3D0F6A1B2C3D4E5F60718293A4B5C6D7",  # an instance id
        "3EB0A1B2C3D4E5F60718A1",  # a message id
        "/instances/3D0F6A1B2C3D4E5F60718293A4B5C6D7/status",
        "the token was wrong",
        "https://hooks.example.com.br/in?a=1",
    ],
)
def test_redact_leaves_what_is_no_secret(text: str) -> None:
    """Ids, URLs and plain words stay readable."""
    assert logs.redact(text) == text


def test_every_fresh_token_is_known() -> None:
    """Whatever format kit.ids gives its tokens, a bare one in a text is blanked."""
    for _ in range(200):
        for token in (ids.instance_token(), ids.client_token(), ids.partner_token(), ids.signing_secret()):
            assert token not in logs.redact(f"x {token} y")


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    """Where configured logs go; put back as it was afterwards."""
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    stream = io.StringIO()
    logs.configure("debug", stream)
    structlog.configure(cache_logger_on_first_use=False)
    yield stream
    root.handlers, root.level = before
    structlog.reset_defaults()


def test_lines_are_json(output: io.StringIO) -> None:
    """Each event is one line of JSON with time, level and values, nested secrets blanked."""
    structlog.get_logger().info(
        "part.happened",
        instance="3D0F6A1B2C3D4E5F60718293A4B5C6D7",
        token="anything at all",
        nested={"client_token": "x", "deep": [{"url": f"/token/{TOKEN}/x"}], "raw": f"Bearer {PARTNER}".encode()},
        count=3,
    )
    line = json.loads(output.getvalue())
    assert (line["event"], line["level"], line["count"]) == ("part.happened", "info", 3)
    assert line["timestamp"].endswith("Z")
    assert line["instance"] == "3D0F6A1B2C3D4E5F60718293A4B5C6D7"
    assert line["token"] == line["nested"]["client_token"] == logs.HIDDEN
    assert line["nested"]["deep"] == [{"url": "/token/***/x"}]
    assert PARTNER not in output.getvalue()


def test_tracebacks_are_redacted(output: io.StringIO) -> None:
    """An exception's text and the lines of its traceback hold no secret."""
    try:
        raise ValueError(f"bad {PARTNER} at /token/{TOKEN}/x")
    except ValueError:
        structlog.get_logger().exception("part.failed")
    assert "ValueError" in output.getvalue()
    assert PARTNER not in output.getvalue()
    assert TOKEN not in output.getvalue()


def test_library_logs_go_the_same_way(output: io.StringIO) -> None:
    """The standard library's logging is JSON too, redacted, with arguments, extras and tracebacks."""
    try:
        raise OSError(f"postgresql://u:{PARTNER}@h")
    except OSError:
        logging.getLogger("asyncpg.pool").exception("at %s", f"/token/{TOKEN}", extra={"secret": "s3cr3t"})
    line = json.loads(output.getvalue())
    assert (line["logger"], line["level"], line["event"]) == ("asyncpg.pool", "error", "at /token/***")
    for secret in (PARTNER, TOKEN, "s3cr3t"):
        assert secret not in output.getvalue()


def test_libraries_do_not_chatter(output: io.StringIO) -> None:
    """Information from libraries is left out, ours is not."""
    logging.getLogger("uvicorn.error").info("started")
    structlog.get_logger().debug("part.detail")
    assert [json.loads(line)["event"] for line in output.getvalue().splitlines()] == ["part.detail"]
