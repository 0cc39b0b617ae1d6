"""The keys the sandbox proves itself with: a TLS authority and certificate, and the chain of the Noise handshake.

Both persist in the sandbox's directory, so that an engine started yesterday trusts today's process. The engine is
brought to trust them from outside, by what it is told at its start (`launch`): the bundle file with the authority, and
the Noise root. None of it is a secret worth keeping: the keys protect loopback traffic of simulated phones.

The Noise chain is what WhatsApp's servers send: root (pinned in the engine) signs an intermediate, which signs the
leaf; each details record carries serial, issuer's serial, key and validity, and is signed as raw bytes (XEdDSA).
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tomada.sandbox.curve import KeyPair
from tomada.sandbox.protos import cert

HOST_NAMES = (
    "web.whatsapp.com",
    "whatsapp.com",
    "*.whatsapp.com",
    "whatsapp.net",
    "*.whatsapp.net",
    "*.cdn.whatsapp.net",
)
_DAY_S = 86_400
_SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)


class TlsFiles(msgspec.Struct, frozen=True):
    """Where the certificate, its key and the bundle for clients lie."""

    certificate: Path
    key: Path
    bundle: Path


class NoiseIdentity(msgspec.Struct, frozen=True):
    """What the server side of a handshake needs: the pinned root, the static key and the serialized chain."""

    root_public: bytes
    static: KeyPair
    chain: bytes


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """TLS settings of the simulated servers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    return context


def tls_files(directory: Path, now_ms: int) -> TlsFiles:
    """The TLS files of a sandbox, made at the first call. The bundle holds the system's authorities as well."""
    files = TlsFiles(directory / "tls.pem", directory / "tls.key", directory / "ca-bundle.pem")
    if files.bundle.exists():
        return files
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority_name = _name("Tomada sandbox authority")
    authority = _sign(
        _certificate(authority_name, authority_name, authority_key.public_key(), now, days=3650)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False),
        authority_key,
    )
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = _sign(
        _certificate(_name(HOST_NAMES[0]), authority_name, key.public_key(), now, days=800)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in HOST_NAMES]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False),
        authority_key,
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    files.key.touch(mode=0o600)
    files.key.write_bytes(private)
    files.certificate.write_bytes(leaf.public_bytes(pem))
    files.bundle.write_bytes(_system_bundle() + authority.public_bytes(pem))
    return files


def noise_identity(directory: Path, now_ms: int) -> NoiseIdentity:
    """The Noise keys of a sandbox: the root is kept in a file, the chain below it is made anew at each start."""
    path = directory / "noise-root.key"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_bytes(KeyPair().private)
    root, intermediate, static = KeyPair(path.read_bytes()), KeyPair(), KeyPair()
    issued, leaf = (
        cert.CertChain.NoiseCertificate.Details(
            serial=serial,
            issuerSerial=serial - 1,
            key=key.public,
            notBefore=now_ms // 1000 - _DAY_S,
            notAfter=now_ms // 1000 + 3650 * _DAY_S,
        ).SerializeToString()
        for serial, key in ((1, intermediate), (2, static))
    )
    chain = cert.CertChain(
        intermediate=cert.CertChain.NoiseCertificate(details=issued, signature=root.sign(issued)),
        leaf=cert.CertChain.NoiseCertificate(details=leaf, signature=intermediate.sign(leaf)),
    )
    return NoiseIdentity(root.public, static, chain.SerializeToString())


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
    )


def _sign(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    return builder.sign(key, hashes.SHA256())


def _system_bundle() -> bytes:
    for path in map(Path, _SYSTEM_BUNDLES):
        if path.is_file():
            return path.read_bytes() + b"\n"
    return b""
