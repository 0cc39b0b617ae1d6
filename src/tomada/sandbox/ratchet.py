"""The double ratchet of the Signal protocol, between two devices: every message has a key of its own.

How: X3DH (`initiate`, `respond`) agrees on a root key from long-term, medium-term and one-time keys; then each side's
chain key steps with every message, and both roots step whenever the other side shows a new ratchet key. A `Session`
is a frozen value: `encrypt` and `decrypt` give back the next one, so a message that fails to decrypt changes nothing
and a caller can try several sessions in turn.

Guarantees: a message decrypts once (a second time is `DuplicateMessage`); messages may come in any order within
the bounds of `signal_chain`, on the last `CHAINS_MAX` chains.

Facts of the wire: X3DH starts with 32 bytes 0xff and the info text "WhisperText"; roots step with "WhisperRatchet";
a message key is 80 bytes of "WhisperMessageKeys" (cipher key, MAC key, initialisation vector); the 8-byte MAC covers
sender identity, receiver identity and the message.
"""

import hmac

import msgspec

from tomada.sandbox.curve import KeyPair, hkdf, verify
from tomada.sandbox.network_ports import SignedPrekey
from tomada.sandbox.signal_chain import CannotDecrypt, KeyChain, step, take
from tomada.sandbox.signal_ciphers import cbc_decrypt, cbc_encrypt
from tomada.sandbox.signal_wire import KEY_TYPE, MAC_BYTES, PrekeyMessage, SignalMessage

CHAINS_MAX = 5


class Bundle(msgspec.Struct, frozen=True):
    """What a device publishes so that others can start a session with it; `one_time` is (id, key)."""

    identity: bytes
    registration_id: int
    signed_prekey: SignedPrekey
    one_time: tuple[int, bytes] | None = None


class Receiving(msgspec.Struct, frozen=True, array_like=True):
    """One receiving chain and the other side's ratchet key that it belongs to."""

    ratchet_key: bytes
    chain: KeyChain


class Introduction(msgspec.Struct, frozen=True, array_like=True):
    """What every message carries until the other side has answered."""

    prekey_id: int | None
    signed_prekey_id: int
    base_key: bytes


class Session(msgspec.Struct, frozen=True, array_like=True):
    """One session with one device. `base_key` names it: both sides know it, and no two sessions share it."""

    remote_identity: bytes
    base_key: bytes
    root: bytes
    ratchet_private: bytes
    ratchet_public: bytes
    sending: KeyChain
    previous_index: int = 0
    receiving: tuple[Receiving, ...] = ()
    introduction: Introduction | None = None


class Envelope(msgspec.Struct, frozen=True):
    """An encrypted message as it stands in a stanza: `kind` is `msg`, `pkmsg` or `skmsg`."""

    kind: str
    data: bytes


def initiate(own: KeyPair, bundle: Bundle) -> Session:
    """Start a session with the owner of `bundle`; `CannotDecrypt` if its signed key is not signed by it."""
    signed = bundle.signed_prekey
    if not verify(bundle.identity, KEY_TYPE + signed.key, signed.signature):
        raise CannotDecrypt("the signed prekey is not signed by its owner")
    base, ratchet = KeyPair(), KeyPair()
    secrets = [own.agree(signed.key), base.agree(bundle.identity), base.agree(signed.key)]
    if bundle.one_time:
        secrets.append(base.agree(bundle.one_time[1]))
    root, chain_key = _agree(secrets)
    next_root, send_key = _step_root(root, ratchet, signed.key)
    return Session(
        remote_identity=bundle.identity,
        base_key=base.public,
        root=next_root,
        ratchet_private=ratchet.private,
        ratchet_public=ratchet.public,
        sending=KeyChain(send_key),
        receiving=(Receiving(signed.key, KeyChain(chain_key)),),
        introduction=Introduction(bundle.one_time[0] if bundle.one_time else None, signed.id, base.public),
    )


def respond(own: KeyPair, signed_prekey: KeyPair, one_time: KeyPair | None, message: PrekeyMessage) -> Session:
    """The other side of `initiate`: the session that the sender of `message` started with us."""
    secrets = [
        signed_prekey.agree(message.identity),
        own.agree(message.base_key),
        signed_prekey.agree(message.base_key),
    ]
    if one_time:
        secrets.append(one_time.agree(message.base_key))
    root, chain_key = _agree(secrets)
    return Session(
        remote_identity=message.identity,
        base_key=message.base_key,
        root=root,
        ratchet_private=signed_prekey.private,
        ratchet_public=signed_prekey.public,
        sending=KeyChain(chain_key),
    )


def encrypt(session: Session, own: KeyPair, registration_id: int, plaintext: bytes) -> tuple[Session, Envelope]:
    """Encrypt for the other side; until it has answered, the envelope is a `pkmsg` with our introduction."""
    seed, sending = step(session.sending)
    cipher_key, mac_key, iv = _message_keys(seed)
    body = SignalMessage(
        session.ratchet_public,
        session.sending.index,
        session.previous_index,
        cbc_encrypt(cipher_key, iv, plaintext),
    ).pack()
    body += _mac(mac_key, own.public, session.remote_identity, body)
    after = msgspec.structs.replace(session, sending=sending)
    hello = session.introduction
    if hello is None:
        return after, Envelope("msg", body)
    wrapped = PrekeyMessage(registration_id, hello.prekey_id, hello.signed_prekey_id, hello.base_key, own.public, body)
    return after, Envelope("pkmsg", wrapped.pack())


def decrypt(session: Session, own: KeyPair, data: bytes) -> tuple[Session, bytes]:
    """Decrypt a SignalMessage; `DuplicateMessage`, or `CannotDecrypt` if it is not of this session or was changed."""
    message = SignalMessage.unpack(data)
    session = _with_chain(session, message.ratchet_key)
    current = next(one for one in session.receiving if one.ratchet_key == message.ratchet_key)
    seed, chain = take(current.chain, message.counter)
    cipher_key, mac_key, iv = _message_keys(seed)
    expected = _mac(mac_key, session.remote_identity, own.public, data[:-MAC_BYTES])
    if not hmac.compare_digest(expected, data[-MAC_BYTES:]):
        raise CannotDecrypt("the authentication code is wrong")
    try:
        plaintext = cbc_decrypt(cipher_key, iv, message.ciphertext)
    except ValueError as error:
        raise CannotDecrypt("the ciphertext is broken") from error
    others = tuple(one for one in session.receiving if one is not current)
    receiving = (Receiving(message.ratchet_key, chain), *others)[:CHAINS_MAX]
    return msgspec.structs.replace(session, receiving=receiving, introduction=None), plaintext


def _with_chain(session: Session, ratchet_key: bytes) -> Session:
    """The session with a receiving chain for this ratchet key, both roots stepped if the key is new."""
    if any(one.ratchet_key == ratchet_key for one in session.receiving):
        return session
    try:
        root, chain_key = _step_root(session.root, KeyPair(session.ratchet_private), ratchet_key)
        ratchet = KeyPair()
        root, send_key = _step_root(root, ratchet, ratchet_key)
    except ValueError as error:
        raise CannotDecrypt("the ratchet key is no key") from error
    return msgspec.structs.replace(
        session,
        root=root,
        ratchet_private=ratchet.private,
        ratchet_public=ratchet.public,
        sending=KeyChain(send_key),
        previous_index=max(session.sending.index - 1, 0),
        receiving=(Receiving(ratchet_key, KeyChain(chain_key)), *session.receiving),
    )


def _agree(secrets: list[bytes]) -> tuple[bytes, bytes]:
    made = hkdf(b"\xff" * 32 + b"".join(secrets), 64, info=b"WhisperText")
    return made[:32], made[32:]


def _step_root(root: bytes, own: KeyPair, remote: bytes) -> tuple[bytes, bytes]:
    made = hkdf(own.agree(remote), 64, salt=root, info=b"WhisperRatchet")
    return made[:32], made[32:]


def _message_keys(seed: bytes) -> tuple[bytes, bytes, bytes]:
    made = hkdf(seed, 80, info=b"WhisperMessageKeys")
    return made[:32], made[32:64], made[64:]


def _mac(key: bytes, sender: bytes, receiver: bytes, body: bytes) -> bytes:
    return hmac.digest(key, KEY_TYPE + sender + KEY_TYPE + receiver + body, "sha256")[:MAC_BYTES]
