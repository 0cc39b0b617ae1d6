"""Targets that must never be connected to: addresses as a resolver may give them, and URLs as people may write them.

The union of what several webhook senders test, and of reports of what got past them: RFC 6890 ranges and successors,
embedded IPv4, cloud metadata services, numeric and unicode spellings, scopes, names that mean this machine.
"""

# The clouds' metadata services inside unique local; they stay shut when one's own networks are opened.
METADATA_V6 = (
    *("fd00:ec2::254", "fd00:42::42", "fd00:c1::a9fe:a9fe", "fd20:ce::254", "fd00:a9fe:a9fe::1", "fd00:100::100:200"),
)

BLOCKED_ADDRESSES = (
    # IPv4
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.254", "100.100.100.200"),
    *("127.0.0.1", "127.0.0.53", "127.255.255.254", "168.63.129.16", "169.254.169.254", "169.254.170.2"),
    *("172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.3", "192.168.1.1"),
    *("198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255"),
    *("240.0.0.1", "255.255.255.255"),
    # IPv6: unspecified, loopback, link- and site-local, unique local, multicast, documentation, discard
    *("::", "::1", "fe80::1", "fe80::1%1", "febf::1", "fec0::1", "fc00::1", "fd00::1"),
    *METADATA_V6,
    *("ff02::1", "ff0e::1", "2001:db8::1", "3fff::1", "100::1", "5f00::1", "4000::1"),
    # IPv6 that embeds IPv4: mapped, compatible, translated, NAT64, local NAT64, 6to4, Teredo, ISATAP on link-local
    *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::ffff:0:0", "::127.0.0.1", "::a9fe:a9fe"),
    *("::ffff:0:127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::1"),
    *("2002:a9fe:a9fe::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:20::1", "2001:2::1", "fe80::5efe:a00:1"),
    # not addresses at all
    *("", "localhost", "2130706433", "127.1", "0x7f.0.0.1"),
)

BLOCKED_URLS = (
    # numeric spellings that a C library turns into an address
    *("http://2130706433/", "http://0x7f000001/", "http://0x7f.1/", "http://127.1/", "http://017700000001/"),
    *("http://0/", "http://127.0.0.1./", "http://0177.0.0.1/", "http://127.000.000.001/", "http://1.2.3/"),
    *("http://0x7f.0x0.0x0.0x1/", "http://169.254.43518/", "http://256.1.1.1/", "http://x.0x10/"),
    # unicode digits and dots
    "http://\u2460\u2461\u2466.\u24ea.\u24ea.\u2460/",
    "http://169\u3002254\u3002169\u3002254/",
    "http://\uff11\uff12\uff17.0.0.1/",
    "http://127\uff0e0\uff0e0\uff0e1/",
    "http://\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3/",
    # literals
    *("http://127.0.0.1/", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/"),
    *("http://[64:ff9b::a9fe:a9fe]/", "http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/", "http://[::]/"),
    *("http://[2002:a9fe:a9fe::1]/", "http://169.254.169.254/latest/meta-data/", "http://10.0.0.1:8080/"),
    *("http://[v1.x]/", "http://[127.0.0.1]/", "http://[]/", "http://u:p@127.0.0.1/"),
    # names that mean this machine or this network
    *("http://localhost/", "http://LOCALHOST:8080/", "http://localhost./", "http://a.localhost/"),
    *("http://metadata.google.internal/", "http://printer.local/", "http://router.lan/", "http://x.home.arpa/"),
    *("http://intranet/", "http://db/", "http://localhost.localdomain/"),
    # ports, schemes, shapes
    *("http://hooks.example.com:22/", "http://hooks.example.com:25/", "http://hooks.example.com:0/"),
    *("http://hooks.example.com:99999/", "http://hooks.example.com:-1/", "http://hooks.example.com:x/"),
    *("ftp://hooks.example.com/", "file:///etc/passwd", "gopher://hooks.example.com/", "javascript:alert(1)"),
    *("//hooks.example.com/", "hooks.example.com/", "http:/hooks.example.com/", "http:hooks.example.com", "https://"),
    *("http://a@b@127.0.0.1/", "http://hooks.example.com\\@127.0.0.1/", "http://hooks.example.com /", ""),
    *(
        "http://hooks.example.com/\r\nx: y",
        "http://hooks.example.com\t/",
        "http://ho\x00oks.example.com/",
        " http://x.example/",
    ),
    "http://" + "a" * 64 + ".example.com/",
    "http://hooks.example.com/" + "a" * 2100,
)
