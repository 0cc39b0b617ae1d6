"""What the other parts may know of an account."""

import msgspec

INSTANCES_MAX_DEFAULT = 25  # what the first token of an integrator allows at PlugzAPI (docs/wire.md)


class Account(msgspec.Struct, frozen=True):
    """An integrator. `instances_live` counts instances in trial, active or in cancellation."""

    id: str
    name: str
    created_ms: int
    instances_max: int
    instances_live: int
    has_client_token: bool


class NewAccount(msgspec.Struct, frozen=True):
    """A created account with its tokens in the clear, to be shown once. `client_token` None: the feature is off."""

    id: str
    name: str
    partner_token: str
    client_token: str | None
