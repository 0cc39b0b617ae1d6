"""Which addresses may be called from inside the house, and which URLs may be saved.

Two checks, and the first decides:

1. `refusal(address, rules)` looks at the numeric address that a socket is about to be connected to (egress.py), so no
   name, redirect or changing DNS answer can get round it.
2. `check_url(url, rules)` looks at the URL when it is saved, updated, tested and called: scheme, port, literal
   addresses in all their spellings, names that always mean this machine or this network. It resolves nothing; it is
   there to tell people early, and to leave no two readings of a URL.

`ipaddress.is_global` is not used: depending on the Python it calls NAT64, 6to4, Teredo, site-local, multicast and
IPv4-compatible addresses global. The table is our own: IPv4 is open save for the listed ranges, IPv6 is closed save for
2000::/3 without the listed ranges (IANA special-purpose registries, RFC 6890 and successors). Addresses that embed an
IPv4 address are refused whole, except IPv4-mapped ones, which are judged by what they embed.

Two classes: *inner* ranges (loopback, private, CGNAT, unique local) open with `allow_private`, for those who call their
own network; *never* ranges (link-local with the clouds' metadata services, multicast, reserved, ...) stay shut.
"""

import functools
import ipaddress
import re
import unicodedata
from urllib.parse import urlsplit

import msgspec
from yarl import URL

URL_BYTES_MAX = 2048  # PostgreSQL's index of an instance's URLs takes 2704, the instance's id included
OPEN_LOW_PORTS = (80, 443)  # below 1024 only these; above it everything is somebody's web server

_IPv4 = ipaddress.IPv4Network
_IPv6 = ipaddress.IPv6Network

_INNER_V4 = tuple(
    _IPv4(text) for text in ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
)
_INNER_V6 = (_IPv6("::1/128"), _IPv6("fc00::/7"))

_NEVER_V4 = tuple(
    _IPv4(text)
    for text in (
        "0.0.0.0/8",  # this network; 0.0.0.0 connects to this machine
        "100.100.100.200/32",  # Alibaba's metadata service, inside CGNAT
        "168.63.129.16/32",  # Azure's host service, at a public address
        "169.254.0.0/16",  # link-local: metadata services
        "192.0.0.0/24",  # IETF protocol assignments; Oracle's metadata service
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
_OPEN_V6 = _IPv6("2000::/3")
_NEVER_V6 = tuple(
    _IPv6(text)
    for text in (
        "2001::/23",  # IETF protocol assignments: Teredo (2001::/32), benchmarking, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: embeds an IPv4 address
        "3fff::/20",  # documentation
        # The clouds' metadata services inside unique local, by what their makers document:
        "fd00:ec2::/32",  # Amazon
        "fd00:42::42/128",  # Scaleway
        "fd00:c1::a9fe:a9fe/128",  # Oracle
        "fd20:ce::254/128",  # Google
        "fd00:a9fe:a9fe::1/128",  # Akamai (Linode)
        "fd00:100::100:200/128",  # Alibaba
    )
)

_HERE_NAMES = ("localhost", "localdomain", "local", "internal", "intranet", "lan", "home.arpa", "test", "invalid")
_NUMERIC_LABEL = re.compile(r"(?:0[xX][0-9a-fA-F]*|[0-9]+)\Z")
_NAME = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z"
)
_BARE_TEXT = re.compile(r"[\x21-\x5b\x5d-\x7e\u00a1-\U0010ffff]+\Z")  # no spaces, control characters or backslashes


class AddressRefused(ValueError):
    """This URL cannot be called; the message says why, in words for a person, and names no address."""


class AddressRules(msgspec.Struct, frozen=True):
    """What a self-hoster opened: plain http, and the inner ranges of the table."""

    allow_http: bool = False
    allow_private: bool = False


def refusal(address: str, rules: AddressRules) -> str | None:
    """Why a numeric address may not be connected to; None if it may. What cannot be read is refused."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return "not an address"
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.scope_id is not None:
            return "an address with a scope"
        if ip.ipv4_mapped is None:
            return _refusal_v6(ip, rules)
        ip = ip.ipv4_mapped
    if any(ip in network for network in _NEVER_V4):
        return "a reserved address"
    if any(ip in network for network in _INNER_V4):
        return None if rules.allow_private else "a private address"
    return None


def _refusal_v6(ip: ipaddress.IPv6Address, rules: AddressRules) -> str | None:
    if any(ip in network for network in _NEVER_V6):
        return "a reserved address"
    if any(ip in network for network in _INNER_V6):
        return None if rules.allow_private else "a private address"
    return None if ip in _OPEN_V6 else "a reserved address"


@functools.lru_cache(maxsize=8192)
def parsed(url: str) -> URL:
    """The URL as it is called: byte for byte; only what is not ASCII must be encoded to be sent at all.

    Its `raw_host` is the one reading of a name in other letters (IDNA 2008, UTS 46), at saving and at calling.
    """
    return URL(url, encoded=url.isascii())


@functools.lru_cache(maxsize=8192)
def destination(url: str) -> str:
    """`host:port` of a URL that was checked, in lower case: the key of limits per destination."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme.lower() == "https" else 80)
    return f"{(parts.hostname or '').rstrip('.')}:{port}"


def check_url(url: str, rules: AddressRules) -> None:
    """Raises AddressRefused with words for a person unless `url` may be saved and called."""
    too_long = len(url.encode(errors="surrogatepass")) > URL_BYTES_MAX
    problem = f"it is longer than {URL_BYTES_MAX} bytes" if too_long else _problem(url, rules)
    if problem:
        raise AddressRefused(f"This URL cannot be called: {problem}")


@functools.lru_cache(maxsize=8192)
def _problem(url: str, rules: AddressRules) -> str | None:
    if not _BARE_TEXT.match(url):
        return "it is empty, or has spaces, control characters or backslashes"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "host or port cannot be read"
    scheme = parts.scheme.lower()
    if scheme not in ("https", "http") or not url[len(scheme) :].startswith("://"):
        return "it must begin with https://"
    if scheme == "http" and not rules.allow_http:
        return "it must be https"
    if not host or parts.netloc.count("@") > 1:
        return "it has no host that can be read"
    return _port_problem(port, rules) or _host_problem(url, host, parts.netloc, rules)


def _port_problem(port: int | None, rules: AddressRules) -> str | None:
    if port is None or port >= 1024 or port in OPEN_LOW_PORTS:
        return None
    if rules.allow_private and port > 0:
        return None
    return f"port {port} is not open to callbacks (80, 443 and 1024 upwards are)"


def _host_problem(url: str, host: str, netloc: str, rules: AddressRules) -> str | None:
    """Literal addresses by the table, spellings of addresses never, names unless they mean this house."""
    if "[" in netloc or ":" in host:
        return _literal_problem(host, rules)
    plain = unicodedata.normalize("NFKC", host).replace("\u3002", ".").lower()
    labels = plain.removesuffix(".").split(".")
    if _NUMERIC_LABEL.match(labels[-1]):
        if plain != host or not re.fullmatch(r"(?:(?:0|[1-9][0-9]{0,2})\.){3}(?:0|[1-9][0-9]{0,2})", host):
            return "write an IPv4 address as four decimal numbers"
        return _literal_problem(host, rules)
    try:
        name = (parsed(url).raw_host or "").lower().removesuffix(".")
    except ValueError:
        return "its host is not a name"
    if not _NAME.match(name) or _NUMERIC_LABEL.match(name.rsplit(".", maxsplit=1)[-1]):
        return "its host is not a name"
    here = "." not in name or any(name == end or name.endswith(f".{end}") for end in _HERE_NAMES)
    return "its host is a name of this machine or this network" if here and not rules.allow_private else None


def _literal_problem(host: str, rules: AddressRules) -> str | None:
    if "%" in host:
        return "its host is an address with a scope"
    reason = refusal(host, rules)
    return f"its host is {reason}" if reason else None
