"""Changing an instance: its name, its callback URLs and its switches."""

from tomada.errors import NotFound
from tomada.instances.create import CheckUrl, checked_message, checked_name, checked_url
from tomada.instances.model import CALLBACK_FIELDS, Instance
from tomada.instances.store import InstanceStore


async def rename(store: InstanceStore, instance: Instance, name: str) -> None:
    """Give it another name; the session's name on the phone stays. Raises BadInput, NotFound."""
    await _update(store, instance, {"name": checked_name(name)})


async def set_callback(
    store: InstanceStore, instance: Instance, check_url: CheckUrl, field: str, url: str | None
) -> None:
    """Set one callback URL (a value of CALLBACK_FIELDS); empty or None clears it.

    Setting receivedAndDelivery also asks for the messages that the number itself sends, clearing it ends that: this is
    what the setting means on the wire. Raises BadAddress, NotFound.
    """
    clean = checked_url(url, check_url)
    values: dict[str, object] = {field: clean}
    if field == CALLBACK_FIELDS["receivedAndDelivery"]:
        values["notify_sent_by_me"] = clean is not None
    await _update(store, instance, values)


async def set_every_callback(
    store: InstanceStore, instance: Instance, check_url: CheckUrl, url: str | None, notify_sent_by_me: bool | None
) -> None:
    """Set every callback URL to the same one; `notify_sent_by_me` None leaves that switch. Raises as set_callback."""
    clean = checked_url(url, check_url)
    values: dict[str, object] = dict.fromkeys(CALLBACK_FIELDS.values(), clean)
    if notify_sent_by_me is not None:
        values["notify_sent_by_me"] = notify_sent_by_me
    await _update(store, instance, values)


async def set_call_reject_message(store: InstanceStore, instance: Instance, text: str | None) -> None:
    """The text sent to a rejected caller; empty or None for none. Raises BadInput, NotFound."""
    await _update(store, instance, {"call_reject_message": checked_message(text)})


async def set_switch(store: InstanceStore, instance: Instance, field: str, on: bool) -> None:
    """Turn a boolean field of the instance on or off. Raises NotFound."""
    await _update(store, instance, {field: on})


async def _update(store: InstanceStore, instance: Instance, values: dict[str, object]) -> None:
    if not await store.update(instance.account_id, instance.id, values):
        raise NotFound
