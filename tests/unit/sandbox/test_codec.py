"""The binary form of stanzas, both ways, with the awkward cases."""

import contextlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomada.sandbox.codec import CodecError, decode, encode
from tomada.sandbox.node import AttrValue, Jid, Node, element

_texts = st.one_of(
    st.text(max_size=200),
    st.text("0123456789-.", max_size=130),
    st.text("0123456789ABCDEF", max_size=130),
    st.sampled_from(["message", "s.whatsapp.net", "me@home", "", "@", "1@lid", "Read-Self"]),
)
_jids = st.one_of(
    st.builds(
        Jid,
        st.text("0123456789", min_size=1, max_size=15),
        st.sampled_from(["s.whatsapp.net", "lid", "hosted", "hosted.lid"]),
        st.integers(0, 255),
    ),
    st.builds(Jid, st.text("0123456789-", max_size=15), st.sampled_from(["g.us", "broadcast", "newsletter"])),
)
_values: st.SearchStrategy[AttrValue] = st.one_of(_texts, _jids)
_nodes: st.SearchStrategy[Node] = st.recursive(
    st.builds(
        Node,
        st.text(min_size=1, max_size=30),
        st.dictionaries(st.text(min_size=1, max_size=20), _values, max_size=5),
        st.one_of(st.none(), st.binary(max_size=300)),
    ),
    lambda children: st.builds(
        Node,
        st.text(min_size=1, max_size=30),
        st.dictionaries(st.text(min_size=1, max_size=20), _values, max_size=3),
        st.lists(children, max_size=4).map(tuple),
    ),
    max_leaves=8,
)


@given(_nodes)
def test_every_stanza_survives_encoding(node: Node) -> None:
    """Decoding what was encoded gives the same stanza, addresses as addresses and texts as texts."""
    assert decode(encode(node)) == node


@pytest.mark.parametrize("name", ["me@home", "a@s.whatsapp.net", "1:2@lid", "@"])
def test_a_push_name_that_looks_like_an_address_stays_a_text(name: str) -> None:
    """The engine rejects a message whose push name arrives as an address."""
    decoded = decode(encode(element("message", {"notify": name})))

    assert decoded.attrs["notify"] == name
    assert isinstance(decoded.attrs["notify"], str)


def test_known_bytes() -> None:
    """An iq as clients write it: tokens for tag, names and values, packed digits for the id, a pair for the server."""
    node = element("iq", {"id": "12345", "type": "get", "to": Jid("", "s.whatsapp.net")})

    assert encode(node).hex() == "00f807" + "19" + "08" + "ff83" + "12345f" + "04" + "29" + "11" + "fa0003"
    assert decode(encode(node)) == node


def test_long_data_and_long_lists() -> None:
    """Data beyond 2^8 and 2^20 bytes and lists beyond 255 children have their own heads."""
    for size in (255, 256, (1 << 20) - 1, 1 << 20):
        node = element("x", {}, b"a" * size)
        assert decode(encode(node)) == node
    wide = element("x", {}, [element("y")] * 300)
    assert decode(encode(wide)) == wide


def test_a_compressed_stanza_is_read() -> None:
    """Flag bit 1 says that the rest is zlib."""
    node = element("message", {"id": "1"}, b"z" * 5000)

    assert decode(b"\x02" + zlib.compress(encode(node)[1:])) == node


def test_no_content_and_empty_content_differ() -> None:
    """Missing content, no children and empty data are three things."""
    contents: list[tuple[()] | bytes | None] = [None, (), b""]
    for content in contents:
        node = Node("x", {}, content)
        assert decode(encode(node)).content == content


@given(st.binary(max_size=200))
def test_rubbish_ends_in_a_codec_error(data: bytes) -> None:
    """No input makes the decoder fail in any other way."""
    with contextlib.suppress(CodecError):
        decode(data)


@given(_nodes, st.integers(1, 50))
def test_a_cut_off_stanza_is_refused(node: Node, missing: int) -> None:
    """Fewer bytes than the stanza needs never decode."""
    body = encode(node)

    with pytest.raises(CodecError):
        decode(body[: max(1, len(body) - missing)])


def test_bombs_are_bounded() -> None:
    """Neither deep nesting nor a small body that inflates without end is followed."""
    deep = element("x")
    for _ in range(200):
        deep = element("x", {}, [deep])
    with pytest.raises(CodecError, match="deep"):
        decode(encode(deep))
    with pytest.raises(CodecError, match="inflated"):
        decode(b"\x02" + zlib.compress(bytes(40 << 20)))
