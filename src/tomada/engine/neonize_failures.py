"""What the library's error texts mean: surely not sent, refused, or nobody knows.

The library says what went wrong in words only. Where they leave a doubt, it counts as a doubt: whoever calls a message
unsent that has arrived makes somebody send it twice.
"""

from tomada.engine.neonize_addresses import GROUP, NEWSLETTER
from tomada.engine.port import Banned, ConnectFailed, EngineEvent, EngineRefused, OutcomeUnknown, SessionEnded

# The library's words when a message surely did not leave, or may have left.
_NOT_SENT = (
    "websocket not connected",
    "websocket is not connected",
    "frame socket is closed",
    "doesn't contain a device",
)
# After a break the library sends once more; what that second try says comes bare, and the first may have arrived.
_AFTER_A_BREAK = {"websocket not connected", "frame socket is closed"}
_UNKNOWN = ("timed out", "disconnected", "websocket closed", "failed to write", "broken pipe", "connection reset")
# Nobody there: what is said of a number (the library looks each up first), of a hidden id, and of a group.
_NOBODY = ("no LID found for", "server returned error 404", "that group does not exist")


class NotConnected(EngineRefused):
    """The call surely did nothing, because the session is not connected just now."""

    retry = True


def send_failure(words: str, server: str) -> Exception:
    """What an error text of a send to an address of this server means: surely not sent, refused, or unknown."""
    if words in _AFTER_A_BREAK or any(part in words for part in _UNKNOWN):
        return OutcomeUnknown(words)
    if any(part in words for part in _NOT_SENT):
        return NotConnected(words)
    if any(part in words for part in _NOBODY):  # clients look for these words in DeliveryCallback
        what = {GROUP: "Group", NEWSLETTER: "Newsletter"}.get(server, "Phone number")
        return EngineRefused(f"{what} does not exist")
    return EngineRefused(words)


def was_answered(error: str) -> bool:
    """Whether WhatsApp answered a question; a refusal is an answer."""
    return not any(words in error for words in (*_NOT_SENT, *_UNKNOWN))


def ended(reason: str) -> EngineEvent:
    """What a pump's end means. Some events the library cannot encode end it; two of them say something themselves."""
    if "neonize.TemporaryBan" in reason:
        return Banned(0, 0)
    if "neonize.ConnectFailure" in reason:
        return ConnectFailed(0, "refused by WhatsApp for a reason the engine does not know")
    return SessionEnded(reason or "the engine's event pump ended")
