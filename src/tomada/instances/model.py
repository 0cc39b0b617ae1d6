"""What the other parts may know of an instance."""

import msgspec

# The wire's name of each callback URL, without `CallbackUrl` -> the column and field here.
CALLBACK_FIELDS = {
    "delivery": "delivery_callback_url",
    "received": "received_callback_url",
    "receivedAndDelivery": "received_and_delivery_callback_url",
    "disconnected": "disconnected_callback_url",
    "connected": "connected_callback_url",
    "messageStatus": "message_status_callback_url",
    "presenceChat": "presence_chat_callback_url",
}


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """One instance. Times are epoch ms of the lifecycle's clock; `overdue`: its trial or its cancellation has
    run out, whether or not the sweep has come by, or its account is suspended.

    `condition` and `phone` are the session's, as its node last wrote them (see machines/).
    """

    id: str
    account_id: str
    name: str
    session_name: str
    state: str
    created_ms: int
    due_ms: int
    suspended_until_ms: int | None
    delivery_callback_url: str | None
    received_callback_url: str | None
    received_and_delivery_callback_url: str | None
    disconnected_callback_url: str | None
    connected_callback_url: str | None
    message_status_callback_url: str | None
    presence_chat_callback_url: str | None
    notify_sent_by_me: bool
    call_reject_auto: bool
    call_reject_message: str | None
    auto_read_message: bool
    auto_read_status: bool
    is_device: bool
    business_device: bool
    enqueue_when_disconnected: bool
    overdue: bool
    condition: str
    phone: str | None

    @property
    def connected(self) -> bool:
        """Whether the session is logged in and receives."""
        return self.condition == "connected"

    @property
    def subscribed(self) -> bool:
        """Whether it is paid for, be it until the end of a cancellation."""
        return self.state in ("active", "in_cancellation")


class NewInstance(msgspec.Struct, frozen=True, kw_only=True):
    """What a create call asks for; checked by instances.create."""

    name: str
    session_name: str | None = None
    delivery_callback_url: str | None = None
    received_callback_url: str | None = None
    received_and_delivery_callback_url: str | None = None
    disconnected_callback_url: str | None = None
    connected_callback_url: str | None = None
    message_status_callback_url: str | None = None
    presence_chat_callback_url: str | None = None
    call_reject_auto: bool = False
    call_reject_message: str | None = None
    auto_read_message: bool = False
    auto_read_status: bool = False
    is_device: bool = False
    business_device: bool = False
    enqueue_when_disconnected: bool = True


class Created(msgspec.Struct, frozen=True):
    """A created instance: what the integrator needs to use it."""

    id: str
    token: str
    due_ms: int


class Listed(msgspec.Struct, frozen=True):
    """One instance of a list, with its token, which the wire shows there."""

    instance: Instance
    token: str


class Page(msgspec.Struct, frozen=True):
    """A page of an account's instances; `total` counts all that match."""

    total: int
    content: list[Listed]
