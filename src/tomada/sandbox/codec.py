"""Binary form of stanzas, both ways.

The wire keeps stanzas short by a dictionary of 235 one-byte and 4 x 256 two-byte tokens (`tokens.json`, version 3), by
packing digits and hex digits two to a byte, and by own tokens for addresses. Layout of a node: a list of
1 + 2 x attributes (+ 1 with content) items: tag, names and values in turn, content. In front of the root stands a
flag byte whose bit 1 says that the rest is compressed with zlib.

Encoding a text or an address is cached, because nearly all of them repeat; that is only an optimisation.
Decoding trusts nothing: every malformed input ends in `CodecError`, depth and inflated size are bounded.
"""

from __future__ import annotations

import json
import zlib
from functools import lru_cache
from importlib import resources

from tomada.sandbox.node import AttrValue, Content, Jid, Node

BODY_BYTES_MAX = 1 << 24
_DEPTH_MAX = 64
_COMPRESSED = 2

_LIST_EMPTY, _LIST_8, _LIST_16 = 0, 248, 249
_DICTIONARY_0 = 236
_JID_INTEROP, _JID_MESSENGER, _JID_DEVICE, _JID_PAIR = 245, 246, 247, 250
_HEX_8, _BINARY_8, _BINARY_20, _BINARY_32, _NIBBLE_8 = 251, 252, 253, 254, 255
_PACKED_CHARS_MAX = 127

_DOMAINS = {0: "s.whatsapp.net", 1: "lid", 128: "hosted", 129: "hosted.lid"}
_DOMAIN_NUMBERS = {server: number for number, server in _DOMAINS.items()}
_ALWAYS_DEVICE_FORM = ("hosted", "hosted.lid")

_NIBBLES = "0123456789-."
_HEX_DIGITS = "0123456789ABCDEF"
_NIBBLE_SET, _HEX_SET = frozenset(_NIBBLES), frozenset(_HEX_DIGITS)


class CodecError(ValueError):
    """The bytes are not a stanza; the text says what is wrong."""


def _load_tokens() -> tuple[list[str], list[list[str]]]:
    table = json.loads((resources.files("tomada.sandbox") / "tokens.json").read_text("utf-8"))
    return table["single"], table["double"]


_SINGLE, _DOUBLE = _load_tokens()
_TOKENS: dict[str, bytes] = {
    **{
        token: bytes((_DICTIONARY_0 + page, index))
        for page, tokens in enumerate(_DOUBLE)
        for index, token in enumerate(tokens)
    },
    **{token: bytes((index,)) for index, token in enumerate(_SINGLE) if token},
}


def encode(node: Node) -> bytes:
    """A stanza as the payload of one frame, uncompressed."""
    out = bytearray(1)
    _write_node(out, node)
    return bytes(out)


def decode(payload: bytes) -> Node:
    """Read the payload of one frame; `CodecError` if it is anything but one whole stanza."""
    if not payload:
        raise CodecError("empty frame")
    body = _inflate(payload[1:]) if payload[0] & _COMPRESSED else payload[1:]
    reader = _Reader(body)
    try:
        node = reader.node(0)
    except (IndexError, UnicodeDecodeError) as error:
        raise CodecError(f"malformed stanza: {error}") from error
    if reader.position != len(body):
        raise CodecError(f"{len(body) - reader.position} bytes after the stanza")
    return node


def _inflate(data: bytes) -> bytes:
    inflater = zlib.decompressobj()
    try:
        body = inflater.decompress(data, BODY_BYTES_MAX)
    except zlib.error as error:
        raise CodecError(f"not zlib: {error}") from error
    if inflater.unconsumed_tail:
        raise CodecError(f"more than {BODY_BYTES_MAX} bytes inflated")
    return body


def _write_node(out: bytearray, node: Node) -> None:
    content = node.content
    _write_list(out, 1 + 2 * len(node.attrs) + (content is not None))
    out += _text_bytes(node.tag)
    for name, value in node.attrs.items():
        out += _text_bytes(name)
        out += _jid_bytes(value) if isinstance(value, Jid) else _text_bytes(value)
    if content is None:
        return
    if isinstance(content, bytes):
        out += _data_head(len(content))
        out += content
        return
    _write_list(out, len(content))
    for child in content:
        _write_node(out, child)


def _write_list(out: bytearray, length: int) -> None:
    if length == 0:
        out.append(_LIST_EMPTY)
    elif length < 1 << 8:
        out += bytes((_LIST_8, length))
    elif length < 1 << 16:
        out += bytes((_LIST_16, length >> 8, length & 0xFF))
    else:
        raise CodecError(f"a list of {length} items does not fit")


def _data_head(length: int) -> bytes:
    if length < 1 << 8:
        return bytes((_BINARY_8, length))
    if length < 1 << 20:
        return bytes((_BINARY_20,)) + length.to_bytes(3, "big")
    return bytes((_BINARY_32,)) + length.to_bytes(4, "big")


@lru_cache(maxsize=8192)
def _text_bytes(text: str) -> bytes:
    token = _TOKENS.get(text)
    if token is not None:
        return token
    if 0 < len(text) <= _PACKED_CHARS_MAX:
        letters = frozenset(text)
        if letters <= _NIBBLE_SET:
            return _packed(text, _NIBBLE_8, _NIBBLES)
        if letters <= _HEX_SET:
            return _packed(text, _HEX_8, _HEX_DIGITS)
    data = text.encode()
    return _data_head(len(data)) + data


def _packed(text: str, tag: int, alphabet: str) -> bytes:
    odd = len(text) % 2
    values = [alphabet.index(letter) for letter in text] + [15] * odd
    pairs = bytes(high << 4 | low for high, low in zip(values[::2], values[1::2], strict=True))
    return bytes((tag, len(pairs) | odd << 7)) + pairs


@lru_cache(maxsize=8192)
def _jid_bytes(jid: Jid) -> bytes:
    if (jid.device and jid.server in _DOMAIN_NUMBERS) or jid.server in _ALWAYS_DEVICE_FORM:
        return bytes((_JID_DEVICE, _DOMAIN_NUMBERS[jid.server], jid.device)) + _text_bytes(jid.user)
    user = _text_bytes(jid.user) if jid.user else b"\0"
    return bytes((_JID_PAIR,)) + user + _text_bytes(jid.server)


class _Reader:
    """Walks over one body."""

    __slots__ = ("body", "position")

    def __init__(self, body: bytes) -> None:
        self.body, self.position = body, 0

    def node(self, depth: int) -> Node:
        if depth > _DEPTH_MAX:
            raise CodecError("nested too deeply")
        size = self._list_size(self._byte())
        if size == 0:
            raise CodecError("a node without a tag")
        tag = self._text()
        attrs: dict[str, AttrValue] = {}
        for _ in range((size - 1) // 2):
            name = self._text()
            attrs[name] = self._value(self._byte())
        return Node(tag, attrs, None if size % 2 else self._content(depth))

    def _content(self, depth: int) -> Content:
        tag = self._byte()
        if tag in (_LIST_8, _LIST_16):
            return tuple(self.node(depth + 1) for _ in range(self._list_size(tag)))
        if tag == _LIST_EMPTY:
            return ()
        if tag in (_BINARY_8, _BINARY_20, _BINARY_32):
            return self._data(tag)
        return str(self._value(tag)).encode()

    def _byte(self) -> int:
        value = self.body[self.position]
        self.position += 1
        return value

    def _number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "big")

    def _take(self, size: int) -> bytes:
        end = self.position + size
        if end > len(self.body):
            raise CodecError("the stanza is cut off")
        data = self.body[self.position : end]
        self.position = end
        return data

    def _list_size(self, tag: int) -> int:
        if tag == _LIST_EMPTY:
            return 0
        if tag == _LIST_8:
            return self._byte()
        if tag == _LIST_16:
            return self._number(2)
        raise CodecError(f"{tag} does not start a list")

    def _data(self, tag: int) -> bytes:
        if tag == _BINARY_8:
            return self._take(self._byte())
        if tag == _BINARY_20:
            return self._take(self._number(3) & 0xFFFFF)
        return self._take(self._number(4))

    def _text(self) -> str:
        return str(self._value(self._byte()))

    def _value(self, tag: int) -> AttrValue:
        if tag in (_BINARY_8, _BINARY_20, _BINARY_32):
            return self._data(tag).decode()
        if tag in (_HEX_8, _NIBBLE_8):
            return self._unpack(_HEX_DIGITS if tag == _HEX_8 else _NIBBLES)
        if tag in (_JID_PAIR, _JID_DEVICE, _JID_MESSENGER, _JID_INTEROP):
            return self._jid(tag)
        if _DICTIONARY_0 <= tag < _DICTIONARY_0 + len(_DOUBLE):
            return _DOUBLE[tag - _DICTIONARY_0][self._byte()]
        if 0 < tag < len(_SINGLE):
            return _SINGLE[tag]
        raise CodecError(f"{tag} is not a text")

    def _unpack(self, alphabet: str) -> str:
        head = self._byte()
        pairs = self._take(head & 0x7F)
        digits = [digit for pair in pairs for digit in (pair >> 4, pair & 15)]
        if head >> 7:
            digits = digits[:-1]
        try:
            return "".join(alphabet[digit] for digit in digits)
        except IndexError:
            raise CodecError("a packed text holds an unknown digit") from None

    def _jid(self, tag: int) -> Jid:
        if tag == _JID_PAIR:
            first = self._byte()
            user = "" if first == _LIST_EMPTY else str(self._value(first))
            return Jid(user, self._text())
        if tag == _JID_DEVICE:
            domain, device = self._byte(), self._byte()
            if domain not in _DOMAINS:
                raise CodecError(f"unknown address domain {domain}")
            return Jid(self._text(), _DOMAINS[domain], device)
        user = self._text()
        device = self._number(2)
        if tag == _JID_INTEROP:
            user = f"{self._number(2)}-{user}"
        return Jid(user, self._text(), device)
