"""The four binary messages of the Signal protocol, read and written.

Why by hand: they are protobufs of a few fields whose definitions no installed package carries, and a reader of thirty
lines is smaller than a second protobuf tool chain. Only the two field shapes they use exist here: varint and bytes.

Shapes (first byte 0x33: version 3 twice): `SignalMessage` is fields and an 8-byte MAC; `PrekeyMessage` is fields that
carry a whole SignalMessage; `SenderKeyMessage` is fields and a 64-byte signature; the distribution message is fields
only. Public keys are 33 bytes on the wire, type byte 0x05 first; the structs hold the raw 32.
"""

import msgspec

VERSION = b"\x33"
KEY_TYPE = b"\x05"
MAC_BYTES = 8
SIGNATURE_BYTES = 64

Fields = dict[int, int | bytes]


class MalformedMessage(ValueError):
    """These bytes are no message of the Signal protocol"""


class SignalMessage(msgspec.Struct, frozen=True):
    """One ratcheted message: the sender's ratchet key, its place in the chain, and the ciphertext."""

    ratchet_key: bytes
    counter: int
    previous_counter: int
    ciphertext: bytes

    def pack(self) -> bytes:
        """Everything but the MAC, which covers just this."""
        return VERSION + write_fields(
            {
                1: KEY_TYPE + self.ratchet_key,
                2: self.counter,
                3: self.previous_counter,
                4: self.ciphertext,
            }
        )

    @staticmethod
    def unpack(data: bytes) -> "SignalMessage":
        """Read a message with its MAC at the end; `MalformedMessage` if it is none."""
        fields = _read_versioned(data, MAC_BYTES)
        return SignalMessage(_key(fields, 1), _number(fields, 2), _number(fields, 3), _bytes(fields, 4))


class PrekeyMessage(msgspec.Struct, frozen=True):
    """The first messages of a session: what the receiver needs to build it, and the message itself."""

    registration_id: int
    prekey_id: int | None
    signed_prekey_id: int
    base_key: bytes
    identity: bytes
    message: bytes

    def pack(self) -> bytes:
        """The whole message; it has no MAC of its own."""
        fields: Fields = {} if self.prekey_id is None else {1: self.prekey_id}
        fields |= {2: KEY_TYPE + self.base_key, 3: KEY_TYPE + self.identity, 4: self.message}
        fields |= {5: self.registration_id, 6: self.signed_prekey_id}
        return VERSION + write_fields(fields)

    @staticmethod
    def unpack(data: bytes) -> "PrekeyMessage":
        """Read; `MalformedMessage` if it is none."""
        fields = _read_versioned(data, 0)
        return PrekeyMessage(
            registration_id=_number(fields, 5),
            prekey_id=_number(fields, 1) if 1 in fields else None,
            signed_prekey_id=_number(fields, 6),
            base_key=_key(fields, 2),
            identity=_key(fields, 3),
            message=_bytes(fields, 4),
        )


class SenderKeyMessage(msgspec.Struct, frozen=True):
    """A group message: one ciphertext for everybody who was given the sender key."""

    key_id: int
    iteration: int
    ciphertext: bytes

    def pack(self) -> bytes:
        """Everything but the signature, which covers just this."""
        return VERSION + write_fields({1: self.key_id, 2: self.iteration, 3: self.ciphertext})

    @staticmethod
    def unpack(data: bytes) -> "SenderKeyMessage":
        """Read a message with its signature at the end; `MalformedMessage` if it is none."""
        fields = _read_versioned(data, SIGNATURE_BYTES)
        return SenderKeyMessage(_number(fields, 1), _number(fields, 2), _bytes(fields, 3))


class SenderKeyDistribution(msgspec.Struct, frozen=True):
    """A sender key as it is given to each device of a group, inside a one-to-one message."""

    key_id: int
    iteration: int
    chain_key: bytes
    signing_key: bytes

    def pack(self) -> bytes:
        """The whole message."""
        fields: Fields = {1: self.key_id, 2: self.iteration, 3: self.chain_key, 4: KEY_TYPE + self.signing_key}
        return VERSION + write_fields(fields)

    @staticmethod
    def unpack(data: bytes) -> "SenderKeyDistribution":
        """Read; `MalformedMessage` if it is none."""
        fields = _read_versioned(data, 0)
        return SenderKeyDistribution(_number(fields, 1), _number(fields, 2), _bytes(fields, 3), _key(fields, 4))


def write_fields(fields: Fields) -> bytes:
    """Protobuf fields in the given order: an int as varint, bytes with their length."""
    out = bytearray()
    for number, value in fields.items():
        if isinstance(value, int):
            out += _varint(number << 3) + _varint(value)
        else:
            out += _varint(number << 3 | 2) + _varint(len(value)) + value
    return bytes(out)


def read_fields(data: bytes) -> Fields:
    """Protobuf fields by number, the last one of each; `MalformedMessage` for anything but varints and bytes."""
    fields: Fields = {}
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        value, at = _read_varint(data, at)
        if key & 7 == 0:
            fields[key >> 3] = value
        elif key & 7 == 2 and at + value <= len(data):
            fields[key >> 3] = data[at : at + value]
            at += value
        else:
            raise MalformedMessage("a field of unknown type or beyond the end")
    return fields


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for place, byte in enumerate(data[at : at + 10]):
        number |= (byte & 127) << 7 * place
        if byte < 128:
            return number, at + place + 1
    raise MalformedMessage("a number without an end")


def _read_versioned(data: bytes, trailer_bytes: int) -> Fields:
    if len(data) <= trailer_bytes or data[0] >> 4 != 3:
        raise MalformedMessage("not version 3")
    return read_fields(data[1 : len(data) - trailer_bytes])


def _number(fields: Fields, number: int) -> int:
    value = fields.get(number, 0)
    if not isinstance(value, int):
        raise MalformedMessage(f"field {number} is no number")
    return value


def _bytes(fields: Fields, number: int) -> bytes:
    value = fields.get(number)
    if not isinstance(value, bytes):
        raise MalformedMessage(f"field {number} is missing")
    return value


def _key(fields: Fields, number: int) -> bytes:
    value = _bytes(fields, number)
    if len(value) != 33 or value[:1] != KEY_TYPE:
        raise MalformedMessage(f"field {number} is no public key")
    return value[1:]
