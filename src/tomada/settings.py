"""Every setting in one place: its name, unit, default, and the reason for the default.

A setting is an environment variable `TOMADA_<FIELD>`; docs/settings.md lists them all and a test keeps that list true.
An unknown TOMADA_ variable or a value that does not parse stops the start, and the message names it: a typo must not
silently leave a default in force.
"""

import difflib
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta

PREFIX = "TOMADA_"
_WORDS = {
    "Expected `bool`, got `str`": "write 1 or 0",
    "Expected `int`, got `str`": "write a number",
    "Expected `float`, got `str`": "write a number",
}
_DAYS_MAX = 3650  # ten years; much more does not fit into a date, and infinity into no column
_HOURS_MAX = _DAYS_MAX * 24
_SEND_DELAY_S_MAX = 3600.0
_TOKEN = re.compile(r"[!-~]{1,4096}")  # what a header can carry; blanks around it are lost on the way
PARTNER_TOKEN_LENGTH_MIN = 24  # contract: a shorter bootstrap token is refused


class SettingsError(Exception):
    """A setting is wrong; the message names it."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What one process of Tomada is told at start. Field `x_y` is the environment's TOMADA_X_Y."""

    data_dir: Annotated[str, Meta(description="Embedded database, key file, what machines need.")] = "data"
    database_url: Annotated[
        str | None, Meta(description="External PostgreSQL 15 or newer. Unset: the embedded one, on this computer only.")
    ] = None
    secret_key: Annotated[
        Annotated[str, Meta(pattern="^[0-9a-fA-F]{64}$")] | None,
        Meta(description="Hex of the 32-byte key that seals tokens. Unset: the file secret.key in the data directory."),
    ] = None

    http_host: Annotated[str, Meta(description="Address to listen on. Loopback: an open server must be asked for.")] = (
        "127.0.0.1"
    )
    http_port: Annotated[int, Meta(ge=0, le=65535, description="Port to listen on; 0 picks a free one.")] = 8080
    public_url: Annotated[
        Annotated[str, Meta(pattern="^https?://[^/]")] | None,
        Meta(description="The URL integrators use, if it is another than host and port (behind a proxy)."),
    ] = None

    sandbox: Annotated[bool, Meta(description="Simulated WhatsApp network and the /sandbox routes.")] = False
    bootstrap_partner_token: Annotated[
        str | None,
        Meta(description="If no account exists at start, create one with this partner token (24 characters at least)."),
    ] = None

    operator_token: Annotated[
        Annotated[str, Meta(min_length=24)] | None,
        Meta(description="Opens /v1/accounts and /metrics (24 characters at least). Unset: nobody."),
    ] = None

    failed_logins_per_minute: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Wrong tokens that one address may send in a minute before it hears 429; 0: any.",
        ),
    ] = 600

    trial_hours: Annotated[
        float, Meta(gt=0, le=_HOURS_MAX, description="Trial length. The seed page promises two days.")
    ] = 48.0
    billing_zone: Annotated[
        str, Meta(description="Time zone in which a billing month begins and ends (docs/lifecycle.md).")
    ] = "America/Sao_Paulo"
    cancel_grace_days: Annotated[
        Annotated[int, Meta(ge=0, le=_DAYS_MAX)] | None,
        Meta(description="Days from a cancel to the end. Unset: to the end of the running month."),
    ] = None
    retention_days: Annotated[
        float,
        Meta(
            gt=0,
            le=_DAYS_MAX,
            description="Days in which an ended instance can be subscribed again; then it is not found.",
        ),
    ] = 40.0
    delete_after_days: Annotated[
        float,
        Meta(
            ge=0, le=_DAYS_MAX, description="Days after its end before an instance can be deleted by call; 0: at once."
        ),
    ] = 0.0
    events_retention_days: Annotated[
        float,
        Meta(
            ge=4,
            le=_DAYS_MAX,
            description="Days that events outlive their instance, so that the last are delivered too.",
        ),
    ] = 7.0
    suspension_days: Annotated[
        float, Meta(ge=0, le=_DAYS_MAX, description="Days from an account's suspension to the end of its instances.")
    ] = 5.0
    machine: Annotated[
        str | None,
        Meta(
            description="A machine program built elsewhere, the one for the sandbox beside it. Unset: the one beside "
            "the Python that runs Tomada, which `make` and our wheel put there."
        ),
    ] = None
    instances_per_machine: Annotated[
        int,
        Meta(
            ge=1,
            le=200,
            description="Sessions in one machine process; 1 = a dedicated machine. A panic of the engine takes one "
            "machine down for a few seconds: 50 keeps that small and the 20 MB of an empty process shared.",
        ),
    ] = 50
    send_delay_s: Annotated[
        str,
        Meta(
            pattern=r"^\d+(\.\d+)?(-\d+(\.\d+)?)?$",
            description="Seconds between two sends of one instance when delayMessage is not given; `1-3` = random.",
        ),
    ] = "1-3"
    queue_max: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Messages waiting per instance; the wire documents 1000.")
    ] = 1000

    callbacks_allow_http: Annotated[
        bool | None, Meta(description="Allow http:// callback URLs. Default: only in the sandbox.")
    ] = None
    callbacks_allow_private: Annotated[
        bool | None, Meta(description="Allow private and loopback addresses. Default: only in the sandbox.")
    ] = None

    callbacks_retention_days: Annotated[
        float, Meta(ge=4, le=3650, description="Days that settled events, attempts and dead letters are kept.")
    ] = 30.0

    log_level: Annotated[str, Meta(pattern="^(debug|info|warning|error)$", description="Least level logged.")] = "info"

    @property
    def allow_http(self) -> bool:
        """callbacks_allow_http with its default."""
        return self.sandbox if self.callbacks_allow_http is None else self.callbacks_allow_http

    @property
    def allow_private(self) -> bool:
        """callbacks_allow_private with its default."""
        return self.sandbox if self.callbacks_allow_private is None else self.callbacks_allow_private

    @property
    def send_delay_range_s(self) -> tuple[float, float]:
        """send_delay_s as its two ends."""
        low, _, high = self.send_delay_s.partition("-")
        return float(low), float(high or low)

    @property
    def data_path(self) -> Path:
        """data_dir as an absolute path."""
        return Path(self.data_dir).resolve()


def describe() -> dict[str, tuple[str, object]]:
    """Environment name -> (description, default) of every setting, for docs and the start-up log."""
    hints = typing.get_type_hints(Settings, include_extras=True)
    return {
        PREFIX + field.name.upper(): (hints[field.name].__metadata__[0].description, field.default)
        for field in msgspec.structs.fields(Settings)
    }


def load(environ: Mapping[str, str]) -> Settings:
    """Settings from the environment; raises SettingsError naming the variable."""
    known = describe()
    given = {name: value for name, value in environ.items() if name.startswith(PREFIX) and value != ""}
    unknown = sorted(set(given) - set(known))
    if unknown:
        meant = difflib.get_close_matches(unknown[0], known, 1)
        raise SettingsError(f"unknown setting {unknown[0]}" + (f"; did you mean {meant[0]}?" if meant else ""))
    values: dict[str, object] = {name.removeprefix(PREFIX).lower(): value for name, value in given.items()}
    try:
        settings = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(_named(str(error))) from None
    try:
        ZoneInfo(settings.billing_zone)
    except (ZoneInfoNotFoundError, ValueError):
        raise SettingsError(
            "TOMADA_BILLING_ZONE: no such time zone here; write it as in the tz database (America/Sao_Paulo), "
            "and see that the system package tzdata is installed"
        ) from None
    low_s, high_s = settings.send_delay_range_s
    if low_s > high_s:
        raise SettingsError(f"TOMADA_SEND_DELAY_S: {settings.send_delay_s} begins above its end")
    if high_s > _SEND_DELAY_S_MAX:
        raise SettingsError(f"TOMADA_SEND_DELAY_S: at most {_SEND_DELAY_S_MAX:.0f} seconds")
    for name in ("bootstrap_partner_token", "operator_token"):
        secret = getattr(settings, name)
        if secret is not None and not _TOKEN.fullmatch(secret):
            raise SettingsError(
                f"{PREFIX}{name.upper()}: only visible ASCII characters, without blanks or a line's end, at most 4096: "
                "no header could carry it, so nobody could log in"
            )
    token = settings.bootstrap_partner_token
    if token is not None and len(token) < PARTNER_TOKEN_LENGTH_MIN:
        raise SettingsError(
            f"TOMADA_BOOTSTRAP_PARTNER_TOKEN must have at least {PARTNER_TOKEN_LENGTH_MIN} characters: "
            "whoever guesses it owns every instance of the account"
        )
    return settings


def _named(message: str) -> str:
    """msgspec's words, with `$.http_port` turned into the variable's name."""
    text, _, path = message.partition(" - at `$.")
    text = _WORDS.get(text, text).replace("`", "")
    return f"{PREFIX}{path.rstrip('`').upper()}: {text}" if path else text
