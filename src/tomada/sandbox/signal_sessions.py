"""All sessions and sender keys of one simulated phone, kept durably.

How: per remote device a record of sessions, the current one first. A new introduction puts a new session in front;
older ones stay readable, because both sides may introduce themselves at the same time and each must be able to read
what the other sent before it knew. Whatever decrypts becomes the current session.

What rests on what: every change goes into the phone's `PhoneStore` before the caller commits, so keys, message log and
answers of one stanza become durable together or not at all.
"""

import msgspec

from tomada.sandbox import ratchet, sender_keys
from tomada.sandbox.curve import KeyPair
from tomada.sandbox.network_ports import SignedPrekey
from tomada.sandbox.node import Jid
from tomada.sandbox.phone_store import PhoneStore
from tomada.sandbox.ratchet import Bundle, Envelope, Session
from tomada.sandbox.sender_keys import OwnSenderKey, RemoteSenderKey
from tomada.sandbox.signal_chain import CannotDecrypt, DuplicateMessage
from tomada.sandbox.signal_ciphers import pad_message, unpad_message
from tomada.sandbox.signal_wire import KEY_TYPE, MalformedMessage, PrekeyMessage

SESSIONS_MAX = 6
SIGNED_PREKEY_ID = 1

_sessions_decoder = msgspec.msgpack.Decoder(tuple[Session, ...])
_own_key_decoder = msgspec.msgpack.Decoder(OwnSenderKey)
_remote_keys_decoder = msgspec.msgpack.Decoder(tuple[RemoteSenderKey, ...])
_encode = msgspec.msgpack.encode


class SignalSessions:
    """One phone's end of every conversation. Addresses are hidden-number addresses with a device."""

    def __init__(self, store: PhoneStore, identity: KeyPair, signed_prekey: KeyPair, registration_id: int) -> None:
        self._store = store
        self._identity = identity
        self._signed_prekey = signed_prekey
        self._registration_id = registration_id
        self._sessions: dict[Jid, tuple[Session, ...]] = {}
        self._signing: dict[bytes, KeyPair] = {}

    def knows(self, address: Jid) -> bool:
        """Whether there is a session with this device."""
        return bool(self._record(address))

    def start(self, address: Jid, bundle: Bundle) -> None:
        """Make a new current session from what the device published."""
        self._keep(address, (ratchet.initiate(self._identity, bundle), *self._record(address)))

    def encrypt(self, address: Jid, content: bytes) -> Envelope:
        """Encrypt for one device; there must be a session."""
        current, *older = self._record(address)
        current, envelope = ratchet.encrypt(current, self._identity, self._registration_id, pad_message(content))
        self._keep(address, (current, *older))
        return envelope

    def decrypt(self, address: Jid, envelope: Envelope) -> bytes:
        """Decrypt what a device sent to us alone (`msg`, `pkmsg`); `CannotDecrypt` or `DuplicateMessage`."""
        try:
            return unpad_message(self._decrypt(address, envelope))
        except ValueError as error:
            raise CannotDecrypt(str(error)) from error

    def encrypt_group(self, group: Jid, content: bytes) -> Envelope:
        """Encrypt once for the whole group."""
        key = self._own_sender_key(group)
        signing = self._signing.get(key.signing_private)
        if signing is None:
            signing = self._signing[key.signing_private] = KeyPair(key.signing_private)
        key, data = sender_keys.encrypt(key, signing, pad_message(content))
        self._store.put(_own_key_name(group), _encode(key))
        return Envelope("skmsg", data)

    def decrypt_group(self, group: Jid, address: Jid, data: bytes) -> bytes:
        """Decrypt what a device sent to a group; `CannotDecrypt` or `DuplicateMessage`."""
        name = _remote_key_name(group, address)
        stored = self._store.get(name)
        if stored is None:
            raise CannotDecrypt("this device never gave us its sender key")
        try:
            keys, padded = sender_keys.decrypt(_remote_keys_decoder.decode(stored), data)
            content = unpad_message(padded)
        except MalformedMessage as error:
            raise CannotDecrypt(str(error)) from error
        self._store.put(name, _encode(keys))
        return content

    def accept_sender_key(self, group: Jid, address: Jid, distribution: bytes) -> None:
        """Remember the sender key a device gave us."""
        name = _remote_key_name(group, address)
        stored = self._store.get(name)
        known = _remote_keys_decoder.decode(stored) if stored else ()
        self._store.put(name, _encode(sender_keys.accept(known, distribution)))

    def sender_key_distribution(self, group: Jid) -> bytes:
        """What a device needs to read our group messages from the next one on."""
        return sender_keys.distribution(self._own_sender_key(group))

    def share_sender_key(self, group: Jid, addresses: list[Jid]) -> list[Jid]:
        """Those of the group's devices that must be given our sender key before the next message.

        If a device that has it is no longer among them, the key is renewed: whoever left must not read on.
        """
        wanted = {str(address) for address in addresses}
        if not self._own_sender_key(group).given_to <= wanted:
            self._store.put(_own_key_name(group), _encode(sender_keys.create()))
        given = self._own_sender_key(group).given_to
        return [address for address in addresses if str(address) not in given]

    def mark_sender_key_given(self, group: Jid, addresses: list[Jid]) -> None:
        """Remember that these devices got our sender key."""
        key = self._own_sender_key(group)
        given_to = key.given_to | {str(address) for address in addresses}
        self._store.put(_own_key_name(group), _encode(msgspec.structs.replace(key, given_to=given_to)))

    def make_prekey(self) -> tuple[int, bytes]:
        """A fresh one-time prekey as (id, public key); its private half is kept until it is used."""
        stored = self._store.get("prekey/last")
        number = int.from_bytes(stored or b"\x00", "big") % 0xFFFFFE + 1
        pair = KeyPair()
        self._store.put("prekey/last", number.to_bytes(3, "big"))
        self._store.put(f"prekey/{number}", pair.private)
        return number, pair.public

    def _decrypt(self, address: Jid, envelope: Envelope) -> bytes:
        record = self._record(address)
        data, spent = envelope.data, None
        if envelope.kind == "pkmsg":
            introduction = PrekeyMessage.unpack(data)
            data, spent = introduction.message, introduction.prekey_id
            if not any(session.base_key == introduction.base_key for session in record):
                record = (self._respond(introduction), *record)
        for session in record:
            try:
                after, content = ratchet.decrypt(session, self._identity, data)
            except DuplicateMessage:
                raise
            except CannotDecrypt:
                continue
            self._keep(address, (after, *(other for other in record if other is not session)))
            if spent is not None:
                self._store.delete(f"prekey/{spent}")
            return content
        raise CannotDecrypt("no session fits")

    def _respond(self, message: PrekeyMessage) -> Session:
        if message.signed_prekey_id != SIGNED_PREKEY_ID:
            raise CannotDecrypt(f"signed prekey {message.signed_prekey_id} is not ours")
        one_time = None
        if message.prekey_id is not None:
            private = self._store.get(f"prekey/{message.prekey_id}")
            if private is None:
                raise CannotDecrypt(f"prekey {message.prekey_id} is used up")
            one_time = KeyPair(private)
        return ratchet.respond(self._identity, self._signed_prekey, one_time, message)

    def _record(self, address: Jid) -> tuple[Session, ...]:
        record = self._sessions.get(address)
        if record is None:
            stored = self._store.get(f"session/{address}")
            record = self._sessions[address] = _sessions_decoder.decode(stored) if stored else ()
        return record

    def _keep(self, address: Jid, record: tuple[Session, ...]) -> None:
        record = self._sessions[address] = record[:SESSIONS_MAX]
        self._store.put(f"session/{address}", _encode(record))

    def _own_sender_key(self, group: Jid) -> OwnSenderKey:
        stored = self._store.get(_own_key_name(group))
        if stored is not None:
            return _own_key_decoder.decode(stored)
        key = sender_keys.create()
        self._store.put(_own_key_name(group), _encode(key))
        return key


def sign_prekey(identity: KeyPair, prekey: KeyPair) -> SignedPrekey:
    """The public form of a phone's medium-term key."""
    return SignedPrekey(SIGNED_PREKEY_ID, prekey.public, identity.sign(KEY_TYPE + prekey.public))


def _own_key_name(group: Jid) -> str:
    return f"senderkey/own/{group}"


def _remote_key_name(group: Jid, address: Jid) -> str:
    return f"senderkey/remote/{group}/{address}"
