"""One phone's Signal code against another's: what one encrypts the other reads, once, in any order."""

import random  # noqa: TID251 - seeded shuffles, so that a failure replays
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tomada.sandbox.curve import KeyPair
from tomada.sandbox.node import Jid
from tomada.sandbox.phone_store import PhoneStore
from tomada.sandbox.ratchet import Bundle, Envelope
from tomada.sandbox.signal_chain import CannotDecrypt, DuplicateMessage
from tomada.sandbox.signal_sessions import SignalSessions, sign_prekey
from tomada.sandbox.signal_wire import MalformedMessage, PrekeyMessage, read_fields, write_fields
from tomada.sandbox.storage import Storage

GROUP = Jid("120363000000000001", "g.us")


class Party:
    """A device with its keys, and the way others see it."""

    def __init__(self, user: str, blobs: Storage) -> None:
        self.address = Jid(user, "lid")
        self.identity, self.prekey = KeyPair(), KeyPair()
        self.store = PhoneStore(blobs, user)
        self.sessions = SignalSessions(self.store, self.identity, self.prekey, 7)

    def bundle(self, *, one_time: bool = True) -> Bundle:
        """What this device publishes."""
        signed = sign_prekey(self.identity, self.prekey)
        return Bundle(self.identity.public, 7, signed, self.sessions.make_prekey() if one_time else None)

    def restart(self) -> None:
        """Forget everything that was not stored."""
        self.store.commit()
        self.sessions = SignalSessions(self.store, self.identity, self.prekey, 7)


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[Storage]:
    """The store of a sandbox."""
    storage = Storage(tmp_path)
    yield storage
    storage.close()


@pytest.fixture
def pair(blobs: Storage) -> tuple[Party, Party]:
    """Two devices; the first has the second's bundle."""
    alice, bob = Party("1", blobs), Party("2", blobs)
    alice.sessions.start(bob.address, bob.bundle())
    return alice, bob


def _tell(sender: Party, receiver: Party, content: bytes) -> Callable[[], bytes]:
    envelope = sender.sessions.encrypt(receiver.address, content)
    return lambda: receiver.sessions.decrypt(sender.address, envelope)


def test_introductions_end_with_the_first_answer(pair: tuple[Party, Party]) -> None:
    """Messages are `pkmsg` until the other side has answered, `msg` from then on."""
    alice, bob = pair
    first = alice.sessions.encrypt(bob.address, b"one")
    second = alice.sessions.encrypt(bob.address, b"two")
    assert [first.kind, second.kind] == ["pkmsg", "pkmsg"]
    assert bob.sessions.decrypt(alice.address, first) == b"one"
    assert bob.sessions.decrypt(alice.address, second) == b"two"
    answer = bob.sessions.encrypt(alice.address, b"three")
    assert answer.kind == "msg"
    assert alice.sessions.decrypt(bob.address, answer) == b"three"
    assert alice.sessions.encrypt(bob.address, b"four").kind == "msg"


def test_a_device_without_one_time_prekeys_can_be_reached(blobs: Storage) -> None:
    """The one-time key is optional on both sides."""
    alice, bob = Party("1", blobs), Party("2", blobs)
    alice.sessions.start(bob.address, bob.bundle(one_time=False))
    assert _tell(alice, bob, b"hello")() == b"hello"


@pytest.mark.parametrize("seed", range(5))
def test_messages_arrive_in_any_order_and_across_restarts(pair: tuple[Party, Party], seed: int) -> None:
    """Shuffled delivery in both directions, with both sides restarted now and then, loses nothing."""
    order = random.Random(seed)
    under_way: list[tuple[Callable[[], bytes], bytes]] = []
    _tell(*pair, b"hello")()
    for number in range(120):
        sender, receiver = pair if order.random() < 0.5 else pair[::-1]
        content = b"message %d" % number
        under_way.append((_tell(sender, receiver, content), content))
        while under_way and order.random() < 0.45:
            read, expected = under_way.pop(order.randrange(len(under_way)))
            assert read() == expected
        if order.random() < 0.1:
            sender.restart()
    for read, expected in under_way:
        assert read() == expected


def test_a_message_is_read_once(pair: tuple[Party, Party]) -> None:
    """The same envelope a second time is a duplicate, also after other messages."""
    read = _tell(*pair, b"one")
    assert read() == b"one"
    with pytest.raises(DuplicateMessage):
        read()
    _tell(pair[1], pair[0], b"two")()
    with pytest.raises(DuplicateMessage):
        read()


def test_a_changed_message_is_refused_and_changes_nothing(pair: tuple[Party, Party]) -> None:
    """After a corrupted copy, the true one still decrypts."""
    alice, bob = pair
    _tell(alice, bob, b"one")()
    envelope = alice.sessions.encrypt(bob.address, b"two")
    middle = len(envelope.data) - 20
    changed = bytes([envelope.data[middle] ^ 1])
    broken = Envelope(envelope.kind, envelope.data[:middle] + changed + envelope.data[middle + 1 :])
    with pytest.raises(CannotDecrypt):
        bob.sessions.decrypt(alice.address, broken)
    assert bob.sessions.decrypt(alice.address, envelope) == b"two"


def test_every_byte_of_a_message_is_protected(pair: tuple[Party, Party]) -> None:
    """Whichever byte is changed on the way, the message is refused, and the true one is read after all."""
    alice, bob = pair
    _tell(alice, bob, b"one")()
    _tell(bob, alice, b"two")()
    envelope = alice.sessions.encrypt(bob.address, b"three")
    assert envelope.kind == "msg"
    for place in range(len(envelope.data)):
        changed = bytearray(envelope.data)
        changed[place] ^= 4
        with pytest.raises(CannotDecrypt):
            bob.sessions.decrypt(alice.address, Envelope("msg", bytes(changed)))
    assert bob.sessions.decrypt(alice.address, envelope) == b"three"


def test_both_may_introduce_themselves_at_once(pair: tuple[Party, Party]) -> None:
    """Crossing introductions: both first messages are read, and the talk goes on."""
    alice, bob = pair
    bob.sessions.start(alice.address, alice.bundle())
    from_alice, from_bob = _tell(alice, bob, b"a"), _tell(bob, alice, b"b")
    assert (from_alice(), from_bob()) == (b"a", b"b")
    for number in range(3):
        assert _tell(alice, bob, b"a%d" % number)() == b"a%d" % number
        assert _tell(bob, alice, b"b%d" % number)() == b"b%d" % number


def test_a_new_bundle_heals_a_lost_session(pair: tuple[Party, Party], blobs: Storage) -> None:
    """A receiver that lost its keys is reached again through a new introduction (what a retry with keys does)."""
    alice, bob = pair
    _tell(alice, bob, b"one")()
    _tell(bob, alice, b"two")()
    bob.sessions = SignalSessions(PhoneStore(blobs, "elsewhere"), bob.identity, bob.prekey, 7)
    with pytest.raises(CannotDecrypt):
        _tell(alice, bob, b"lost")()
    alice.sessions.start(bob.address, bob.bundle())
    assert _tell(alice, bob, b"again")() == b"again"


def test_a_forged_signed_prekey_is_refused(blobs: Storage) -> None:
    """A bundle whose medium-term key another identity signed starts no session."""
    alice, bob = Party("1", blobs), Party("2", blobs)
    forged = Bundle(alice.identity.public, 7, sign_prekey(bob.identity, bob.prekey))
    with pytest.raises(CannotDecrypt, match="not signed"):
        alice.sessions.start(bob.address, forged)


def test_group_messages_reach_those_who_got_the_key(blobs: Storage) -> None:
    """One ciphertext serves every member; without the sender key, or changed, it is refused."""
    alice, bob, carol = Party("1", blobs), Party("2", blobs), Party("3", blobs)
    bob.sessions.accept_sender_key(GROUP, alice.address, alice.sessions.sender_key_distribution(GROUP))
    sent = [alice.sessions.encrypt_group(GROUP, b"%d" % number).data for number in range(4)]
    assert [bob.sessions.decrypt_group(GROUP, alice.address, sent[n]) for n in (2, 0, 3, 1)] == [b"2", b"0", b"3", b"1"]
    with pytest.raises(DuplicateMessage):
        bob.sessions.decrypt_group(GROUP, alice.address, sent[0])
    with pytest.raises(CannotDecrypt, match="never gave"):
        carol.sessions.decrypt_group(GROUP, alice.address, sent[0])
    carol.sessions.accept_sender_key(GROUP, alice.address, alice.sessions.sender_key_distribution(GROUP))
    last = alice.sessions.encrypt_group(GROUP, b"last").data
    with pytest.raises(CannotDecrypt, match="signature"):
        carol.sessions.decrypt_group(GROUP, alice.address, last[:-70] + bytes([last[-70] ^ 1]) + last[-69:])
    assert carol.sessions.decrypt_group(GROUP, alice.address, last) == b"last"


def test_sender_keys_are_given_once_per_device(blobs: Storage) -> None:
    """Only devices that were not given the key are listed; when one leaves, the key is new to everyone."""
    alice = Party("1", blobs)
    others = [Jid("2", "lid"), Jid("2", "lid", 1)]
    assert alice.sessions.share_sender_key(GROUP, others) == others
    alice.sessions.mark_sender_key_given(GROUP, others[:1])
    assert alice.sessions.share_sender_key(GROUP, others) == others[1:]
    alice.sessions.mark_sender_key_given(GROUP, others)
    before = alice.sessions.sender_key_distribution(GROUP)
    assert alice.sessions.share_sender_key(GROUP, others[:1]) == others[:1]
    assert alice.sessions.sender_key_distribution(GROUP) != before


@pytest.mark.parametrize(
    "data", [b"", b"\x33", b"\x33\xff\xff", b"\x23\x08\x01", b"\x33\x0a\x7f", b"\x33" + b"\xff" * 30]
)
def test_rubbish_is_no_message(pair: tuple[Party, Party], data: bytes) -> None:
    """Bytes that are no message are refused with the one error callers know."""
    alice, bob = pair
    with pytest.raises(MalformedMessage):
        PrekeyMessage.unpack(data)
    for kind in ("msg", "pkmsg"):
        with pytest.raises(CannotDecrypt):
            bob.sessions.decrypt(alice.address, Envelope(kind, data))


def test_fields_survive_the_round_trip() -> None:
    """Numbers of every size and bytes come back as they were."""
    fields: dict[int, int | bytes] = {1: 0, 2: 127, 3: 128, 4: 2**32 - 1, 5: b"", 6: b"x" * 300}
    assert read_fields(write_fields(fields)) == fields
