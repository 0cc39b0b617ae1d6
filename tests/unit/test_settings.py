"""Settings: parsed strictly, documented wholly."""

from pathlib import Path

import pytest

from tomada import settings
from tomada.instances.lifecycle import Terms

DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"


def documented() -> dict[str, tuple[str, str]]:
    """Name -> (default, description) as docs/settings.md has them."""
    rows = [
        line.strip("| \n").split(" | ") for line in DOCUMENT.read_text().splitlines() if line.startswith("| `TOMADA_")
    ]
    return {name.strip("`"): (default, description) for name, default, description in rows}


def test_every_setting_is_documented_with_its_default() -> None:
    """docs/settings.md lists exactly the settings there are, with the words and defaults of the code."""
    expected = {
        name: ("unset" if default is None else f"`{default}`", description)
        for name, (description, default) in settings.describe().items()
    }

    assert documented() == expected


def test_values_are_read_with_their_types() -> None:
    """The environment's strings become numbers and switches."""
    read = settings.load({"TOMADA_HTTP_PORT": "0", "TOMADA_SANDBOX": "1", "TOMADA_SEND_DELAY_S": "0", "PATH": "/bin"})

    assert (read.http_port, read.sandbox, read.send_delay_range_s) == (0, True, (0.0, 0.0))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOMADA_HTTP_PORT", "eighty"),
        ("TOMADA_HTTP_PORT", "70000"),
        ("TOMADA_SANDBOX", "maybe"),
        ("TOMADA_TRIAL_HOURS", "0"),
        ("TOMADA_SEND_DELAY_S", "fast"),
        ("TOMADA_BOOTSTRAP_PARTNER_TOKEN", "short"),
        ("TOMADA_HTTP_PROT", "80"),
        ("TOMADA_TRIAL_HOURS", "inf"),
        ("TOMADA_TRIAL_HOURS", "nan"),
        ("TOMADA_TRIAL_HOURS", "1e13"),
        ("TOMADA_RETENTION_DAYS", "inf"),
        ("TOMADA_DELETE_AFTER_DAYS", "1e9"),
        ("TOMADA_EVENTS_RETENTION_DAYS", "inf"),
        ("TOMADA_SUSPENSION_DAYS", "1e9"),
        ("TOMADA_CANCEL_GRACE_DAYS", "9" * 20),
        ("TOMADA_QUEUE_MAX", "9" * 20),
        ("TOMADA_FAILED_LOGINS_PER_MINUTE", "9" * 20),
        ("TOMADA_SEND_DELAY_S", "9" * 400),
        ("TOMADA_BOOTSTRAP_PARTNER_TOKEN", "a-token-that-ends-with-a-line\n"),
        ("TOMADA_BOOTSTRAP_PARTNER_TOKEN", "a token with blanks in the middle"),
        ("TOMADA_OPERATOR_TOKEN", "um-token-com-acentua\u00e7\u00e3o-brasileira"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    """A typo in a name or a value stops the start, and the message names the variable."""
    with pytest.raises(settings.SettingsError, match=name):
        settings.load({name: value})


def test_callbacks_may_go_anywhere_only_in_the_sandbox() -> None:
    """http and private addresses are off by default, on in the sandbox, and either can be said outright."""
    production = settings.load({})
    sandbox = settings.load({"TOMADA_SANDBOX": "1"})
    strict_sandbox = settings.load({"TOMADA_SANDBOX": "1", "TOMADA_CALLBACKS_ALLOW_PRIVATE": "0"})

    assert not production.allow_http
    assert not production.allow_private
    assert sandbox.allow_http
    assert sandbox.allow_private
    assert not strict_sandbox.allow_private


def test_a_time_zone_that_is_not_there_stops_the_start() -> None:
    """Not at the first month's end."""
    with pytest.raises(settings.SettingsError, match="TOMADA_BILLING_ZONE"):
        settings.load({"TOMADA_BILLING_ZONE": "America/Sao_Paolo"})


def test_every_term_of_the_lifecycle_is_a_setting_with_the_same_default() -> None:
    """The wiring copies them by name."""
    plain = settings.load({})
    assert Terms(**{name: getattr(plain, name) for name in Terms.__struct_fields__}) == Terms()
