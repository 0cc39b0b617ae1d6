"""What the other parts may know of an account."""

import msgspec

INSTANCES_MAX_DEFAULT = 25  # what the first token of an integrator allows at PlugzAPI (docs/wire.md)


class Account(msgspec.Struct, frozen=True):
    """An integrator. `instances_live` counts instances in trial, active or in cancellation; a limit None: no limit.

    `suspended_until_ms`: it does not pay, and its instances end then (lifecycle time). `previous_token_until_ms`: until
    then (real time) its partner token from before the latest rotation works too.
    """

    id: str
    name: str
    created_ms: int
    instances_max: int
    instances_live: int
    created_per_day_max: int | None
    messages_per_minute_max: int | None
    has_client_token: bool
    suspended_until_ms: int | None
    previous_token_until_ms: int | None


class NewAccount(msgspec.Struct, frozen=True):
    """A created account with its secrets in the clear, to be shown once. `client_token` None: the feature is off."""

    id: str
    name: str
    partner_token: str
    client_token: str | None
    signing_secret: str


class Rotated(msgspec.Struct, frozen=True):
    """A new secret, to be shown once, and until when (real time) the one before works too; None: it ended."""

    secret: str
    previous_until_ms: int | None
