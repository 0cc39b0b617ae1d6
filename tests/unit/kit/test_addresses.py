"""The table of addresses and the check of URLs, over every spelling that is known to have fooled somebody."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.blocked import BLOCKED_ADDRESSES, BLOCKED_URLS, METADATA_V6

from tomada.kit.addresses import AddressRefused, AddressRules, check_url, destination, parsed, refusal

CLOSED = AddressRules()
HTTP = AddressRules(allow_http=True)
OPEN = AddressRules(allow_http=True, allow_private=True)


def test_the_matrix_is_large_enough() -> None:
    """At least 60 targets, none of them twice."""
    assert len({*BLOCKED_ADDRESSES, *BLOCKED_URLS}) >= 60


@pytest.mark.parametrize("address", BLOCKED_ADDRESSES)
def test_a_blocked_address_is_refused(address: str) -> None:
    """At the socket, in whatever form it arrives there."""
    assert refusal(address, CLOSED) is not None


@pytest.mark.parametrize("url", BLOCKED_URLS)
def test_a_url_that_means_a_blocked_address_cannot_be_saved(url: str) -> None:
    """Numeric and unicode spellings, brackets, scopes, names of this machine, odd ports and schemes."""
    with pytest.raises(AddressRefused):
        check_url(url, HTTP)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "93.184.216.34", "::ffff:8.8.8.8", "2606:4700:4700::1111", "2a00:1450:4001::1"]
)
def test_public_addresses_are_open(address: str) -> None:
    """Or nobody would get any callback."""
    assert refusal(address, CLOSED) is None


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/in",
        "https://hooks.example.com:8443/a%20b?x=%7B1%7D&y=+",
        "https://user:secret@hooks.example.com/",
        "https://a.b.c.example.com./x#fragment",
        "https://caf\u00e9.example.com/",
        "https://8.8.8.8/",
        "https://[2606:4700:4700::1111]:443/",
        "HTTPS://HOOKS.EXAMPLE.COM/",
        "https://1-2.example.com",
        "https://x_y.example.com/?",
    ],
)
def test_ordinary_urls_can_be_saved(url: str) -> None:
    """Among them ports above 1024, credentials, capitals and names in other scripts."""
    check_url(url, CLOSED)


@pytest.mark.parametrize("letter", ["a", "\u00e9", "\u6f22", "\U0001f600"])
def test_a_url_is_bounded_in_bytes(letter: str) -> None:
    """As PostgreSQL's index on the URLs of an instance is, which takes 2704 bytes."""
    start = "https://example.com/"
    room = 2048 - len(start)
    fitting = start + letter * (room // len(letter.encode()))
    check_url(fitting, CLOSED)
    with pytest.raises(AddressRefused, match="longer than 2048 bytes"):
        check_url(fitting + letter, CLOSED)


def test_what_a_self_hoster_opens() -> None:
    """Own networks and plain http; metadata services and multicast stay shut."""
    for address in ("127.0.0.1", "::1", "10.1.2.3", "192.168.0.9", "172.16.0.1", "100.64.1.1", "fd12::1"):
        assert refusal(address, OPEN) is None
    for address in ("169.254.169.254", "fe80::1", *METADATA_V6, "100.100.100.200", "224.0.0.1", "0.0.0.0"):
        assert refusal(address, OPEN) is not None
    check_url("http://localhost:8080/x", OPEN)
    check_url("http://erp/hook", OPEN)
    with pytest.raises(AddressRefused):
        check_url("http://hooks.example.com/", CLOSED)


@given(st.integers(0, 2**32 - 1))
def test_ipv4_agrees_with_python_where_python_is_right(number: int) -> None:
    """Nothing that Python calls private, loopback, link-local, multicast or reserved is open."""
    ip = ipaddress.IPv4Address(number)
    if not ip.is_global or ip.is_multicast:
        assert refusal(str(ip), CLOSED) is not None
        assert refusal(f"::ffff:{ip}", CLOSED) is not None


@given(st.integers(0, 2**128 - 1))
def test_ipv6_agrees_with_python_where_python_is_right(number: int) -> None:
    """Outside 2000::/3 nothing is open, and inside nothing that Python refuses."""
    ip = ipaddress.IPv6Address(number)
    if ip.ipv4_mapped is None and (not ip.is_global or ip not in ipaddress.IPv6Network("2000::/3")):
        assert refusal(str(ip), CLOSED) is not None


@given(st.text(max_size=60))
def test_nothing_but_a_refusal_comes_out(text: str) -> None:
    """Whatever is given for a URL, the answer is yes or AddressRefused."""
    for url in (text, f"https://{text}", f"https://{text}/", f"https://x.example:{text}/", f"https://[{text}]/"):
        try:
            check_url(url, HTTP)
        except AddressRefused:
            continue
        assert destination(url)


def test_the_destination_is_host_and_port() -> None:
    """Capitals, a final dot and the default port make no difference."""
    assert destination("https://Hooks.Example.COM./a?b") == "hooks.example.com:443"
    assert destination("http://x.example") == "x.example:80"
    assert destination("https://u:p@x.example:8443/") == "x.example:8443"


@pytest.mark.parametrize("letter", ["\u200d", "\xad", "\u034f", "\u2060", "\u2048"])
def test_a_name_that_cannot_be_called_cannot_be_saved(letter: str) -> None:
    """One version of IDNA judges at saving and at calling: a second one saved names that no call could ever reach."""
    with pytest.raises(AddressRefused):
        check_url(f"https://a{letter}b.example.com/", CLOSED)


@given(st.text(min_size=1, max_size=12))
def test_what_can_be_saved_can_be_called(label: str) -> None:
    """Its name is ASCII, and one that the resolver and TLS take."""
    url = f"https://{label}.example.com/"
    try:
        check_url(url, CLOSED)
    except AddressRefused:
        return
    name = parsed(url).raw_host
    assert name is not None
    assert name.isascii()
    assert name.encode("idna")


def test_sharp_s_is_one_name() -> None:
    """IDNA 2003 called it ss, which is another name with another owner."""
    check_url("https://fa\u00df.example.com/", CLOSED)
    assert parsed("https://fa\u00df.example.com/").raw_host == "xn--fa-hia.example.com"
