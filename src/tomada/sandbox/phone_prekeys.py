"""Prekeys as a simulated phone uses them: those of other devices to start sessions, and its own to be reached.

A session with a device needs what that device published: the network hands it out, or the device sends it along when it
asks for a message again.
"""

from tomada.sandbox.network_ports import SignedPrekey
from tomada.sandbox.node import SERVER, Jid, Node, element
from tomada.sandbox.phone import Phone
from tomada.sandbox.ratchet import Bundle


async def ensure_sessions(phone: Phone, devices: list[Jid]) -> list[Jid]:
    """Fetch the prekeys of devices we never wrote to; those of the devices that can be written to.

    One caller at a time, or two sends would start two sessions. The phone itself is never among the result; a device
    that was unlinked just now is left out. One that was linked just now is not: its messages wait for its first login.
    """
    async with phone.fetching:
        missing = [device for device in devices if device != phone.lid and not phone.sessions.knows(device)]
        if not missing:
            return _known(phone, devices)
        users = [element("user", {"jid": device, "reason": "identity"}) for device in missing]
        request = element(
            "iq",
            {"to": SERVER, "type": "get", "xmlns": "encrypt", "id": phone.new_id()},
            [element("key", content=users)],
        )
        answer = await phone.ask(request)
        found = answer.child("list")
        for user in found.children("user") if found else ():
            address, bundle = user.jid("jid"), read_bundle(user)
            if address and bundle:
                phone.sessions.start(address, bundle)
    return _known(phone, devices)


def _known(phone: Phone, devices: list[Jid]) -> list[Jid]:
    return [device for device in devices if device != phone.lid and phone.sessions.knows(device)]


def read_bundle(node: Node) -> Bundle | None:
    """The keys of one device as the network or a retry receipt gives them; None if there are none."""
    keys = node.child("keys") or node
    registration, identity, signed = node.child("registration"), keys.child("identity"), keys.child("skey")
    one_time = keys.child("key")
    if registration is None or identity is None or signed is None:
        return None
    signature = signed.child("signature")
    key_id, key = _read_key(signed)
    return Bundle(
        identity.data,
        int.from_bytes(registration.data, "big"),
        SignedPrekey(key_id, key, signature.data if signature else b""),
        _read_key(one_time) if one_time else None,
    )


def _read_key(node: Node) -> tuple[int, bytes]:
    key_id, value = node.child("id"), node.child("value")
    return int.from_bytes(key_id.data if key_id else b"", "big"), value.data if value else b""


def own_keys(phone: Phone) -> Node:
    """The keys by which a device can start a new session with this phone, with a fresh one-time prekey."""
    number, key = phone.sessions.make_prekey()
    signed = phone.signed_prekey
    parts = [
        element("type", content=b"\x05"),
        element("identity", content=phone.identity),
        element("key", content=_key_content(number, key)),
        element("skey", content=[*_key_content(signed.id, signed.key), element("signature", content=signed.signature)]),
    ]
    return element("keys", content=parts)


def _key_content(number: int, key: bytes) -> list[Node]:
    return [element("id", content=number.to_bytes(3, "big")), element("value", content=key)]
