"""The handshake, with a client of our own on the other side."""

import pytest
from cryptography.exceptions import InvalidTag

from tomada.sandbox.certs import noise_identity
from tomada.sandbox.curve import KeyPair, verify
from tomada.sandbox.noise import FrameCipher, NoiseState, ServerHandshake
from tomada.sandbox.protos import cert

_PROLOGUE = b"WA\x06\x03"


def shake_hands(server_static: KeyPair, chain: bytes) -> tuple[bytes, bytes, FrameCipher, FrameCipher, KeyPair]:
    """Run a whole handshake; what the server learned, and both ends' ciphers."""
    server = ServerHandshake(_PROLOGUE, server_static, chain)
    ephemeral, static = KeyPair(), KeyPair()
    client = NoiseState(_PROLOGUE)
    client.authenticate(ephemeral.public)
    their_ephemeral, sealed_static, sealed_chain = server.answer(ephemeral.public)
    client.authenticate(their_ephemeral)
    client.mix(ephemeral.agree(their_ephemeral))
    their_static = client.decrypt(sealed_static)
    client.mix(ephemeral.agree(their_static))
    assert client.decrypt(sealed_chain) == chain
    sealed_own = client.encrypt(static.public)
    client.mix(static.agree(their_ephemeral))
    sealed_payload = client.encrypt(b"payload")
    seen_static, payload, server_cipher = server.finish(sealed_static=sealed_own, sealed_payload=sealed_payload)
    assert payload == b"payload"
    mirrored = client.split()
    return seen_static, their_static, server_cipher, mirrored, static


def test_both_ends_learn_each_other_and_share_ciphers() -> None:
    """The server learns the client's static key and both directions decrypt; the client's ciphers are mirrored."""
    server_static = KeyPair()
    seen, theirs, server, client, static = shake_hands(server_static, b"chain")

    assert (seen, theirs) == (static.public, server_static.public)
    for number in range(3):
        sealed = server.seal(b"to client %d" % number)
        with pytest.raises(InvalidTag):
            FrameCipher(bytes(32), bytes(32)).open(sealed)
        assert client_open(client, sealed) == b"to client %d" % number


def client_open(client: FrameCipher, sealed: bytes) -> bytes:
    """Open with the client's reading key, which is the server's writing key."""
    mirrored = FrameCipher.__new__(FrameCipher)
    mirrored._read, mirrored._write = client._write, client._read
    mirrored._read_count, mirrored._write_count = client._write_count, 0
    data = mirrored.open(sealed)
    client._write_count += 1
    return data


def test_an_altered_step_ends_the_handshake() -> None:
    """A changed byte in the client's last step is noticed."""
    server = ServerHandshake(_PROLOGUE, KeyPair(), b"chain")
    server.answer(KeyPair().public)

    with pytest.raises(InvalidTag):
        server.finish(b"x" * 48, b"y" * 40)


def test_the_chain_is_what_clients_check(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Root signs the intermediate (issuer serial 0), that signs the leaf, whose key is the static key."""
    folder = tmp_path_factory.mktemp("noise")
    identity = noise_identity(folder, 1_790_000_000_000)

    chain = cert.CertChain.FromString(identity.chain)
    details = cert.CertChain.NoiseCertificate.Details
    intermediate, leaf = (details.FromString(part.details) for part in (chain.intermediate, chain.leaf))
    assert verify(identity.root_public, chain.intermediate.details, chain.intermediate.signature)
    assert verify(intermediate.key, chain.leaf.details, chain.leaf.signature)
    assert (intermediate.issuerSerial, leaf.issuerSerial) == (0, intermediate.serial)
    assert leaf.key == identity.static.public
    assert leaf.notBefore < 1_790_000_000 < leaf.notAfter
    assert noise_identity(folder, 1_790_000_000_000).root_public == identity.root_public
