"""What a tester may ask a simulated phone to send: the body of `POST /sandbox/phones/{number}/send`.

Exactly one kind per body. A medium is given as an object, or as its content alone in base64; without content a tiny
sample is sent. `quoted` (a message id) makes any kind but reactions, votes, edits and revokes a reply.
"""

import msgspec

KINDS = (
    *("text", "image", "audio", "video", "document", "sticker", "location", "contact"),
    *("reaction", "poll", "vote", "edit", "revoke"),
)


class _Body(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    pass


class MediaBody(_Body, frozen=True):
    """A medium; `data` is base64, with or without `data:...;base64,` before it."""

    data: str = ""
    mimetype: str = ""
    caption: str = ""
    file_name: str = ""
    seconds: int = 0
    width: int = 0
    height: int = 0
    ptt: bool = False
    """Audio only: recorded with the microphone."""
    gif: bool = False
    """Video only: plays as a moving picture."""
    view_once: bool = False


class LocationBody(_Body, frozen=True):
    """A place on the map, in degrees."""

    latitude: float
    longitude: float
    name: str = ""
    address: str = ""


class ContactBody(_Body, frozen=True):
    """A contact card: made from name and phone, or given whole as `vcard`."""

    name: str
    phone: str = ""
    vcard: str = ""


class ReactionBody(_Body, frozen=True):
    """A reaction to the message with this id; an empty emoji takes it back."""

    id: str
    emoji: str = ""


class PollBody(_Body, frozen=True):
    """A question; `selectable` is how many options one may choose, 0 = any number."""

    name: str
    options: list[str]
    selectable: int = 1


class VoteBody(_Body, frozen=True):
    """The options one chooses in the poll with this message id."""

    id: str
    options: list[str]


class EditBody(_Body, frozen=True):
    """A new text for a message of one's own."""

    id: str
    text: str


class RevokeBody(_Body, frozen=True):
    """The message to delete for everyone."""

    id: str


class SendBody(_Body, frozen=True):
    """The whole request; see the module."""

    to: str
    text: str | None = None
    image: MediaBody | str | None = None
    audio: MediaBody | str | None = None
    video: MediaBody | str | None = None
    document: MediaBody | str | None = None
    sticker: MediaBody | str | None = None
    location: LocationBody | None = None
    contact: ContactBody | None = None
    reaction: ReactionBody | None = None
    poll: PollBody | None = None
    vote: VoteBody | None = None
    edit: EditBody | None = None
    revoke: RevokeBody | None = None
    quoted: str | None = None
    mentioned: list[str] = []
    forwarded: bool = False
