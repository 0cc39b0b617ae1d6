"""Ids and tokens in the formats that today's clients know (docs/wire.md), from the system's random source only.

Clients treat all of them as opaque; the formats are kept so that a column or a pattern sized for them still fits.
"""

import secrets
import uuid


def account_id() -> str:
    """32 upper-case hex digits."""
    return secrets.token_hex(16).upper()


def instance_id() -> str:
    """32 upper-case hex digits."""
    return secrets.token_hex(16).upper()


def instance_token() -> str:
    """24 upper-case hex digits: 96 random bits."""
    return secrets.token_hex(12).upper()


def client_token() -> str:
    """`F`, 32 hex digits, `S`."""
    return f"F{secrets.token_hex(16)}S"


def partner_token() -> str:
    """A prefix that secret scanners can know, and 43 random characters: 256 bits."""
    return f"tmd_{secrets.token_urlsafe(32)}"


def zaap_id() -> str:
    """32 upper-case hex digits: the name of an accepted send."""
    return secrets.token_hex(16).upper()


def message_id() -> str:
    """`3EB0` and 18 upper-case hex digits, the look of WhatsApp Web's ids."""
    return f"3EB0{secrets.token_hex(9).upper()}"


def event_id() -> str:
    """`evt_` and a UUID: the webhook-id of every attempt at delivering one event."""
    return f"evt_{uuid.uuid4().hex}"


def signing_secret() -> str:
    """`whsec_` and 32 random bytes in base64, as Standard Webhooks writes them."""
    import base64

    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
