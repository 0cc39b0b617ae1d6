"""The machine programs that were built: they say hello, and Python takes WhatsApp's messages from them."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tomada.kit import machine_program, protobufs

PINNED = "v0.0.0-20260921121126-35ae40906e74"
GO_MOD = Path(__file__).parents[3] / "machine" / "go.mod"
PROGRAMS = [machine_program.locate(os.environ), machine_program.locate_sandbox(os.environ)]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_both_programs_say_hello(program: Path) -> None:
    """In our version of the protocol, with the whatsmeow that go.mod pins."""
    hello = machine_program.greet(program)

    assert hello.engine == f"whatsmeow {PINNED}"
    assert f"go.mau.fi/whatsmeow {PINNED}\n" in GO_MOD.read_text("utf-8")


def test_the_production_program_cannot_be_led_to_another_network() -> None:
    """The sandbox's flags belong to the sandbox's program; the other refuses them and says nothing to its pipe."""
    production, sandbox = (
        subprocess.run([program, "--noise-root", "00" * 32, "hello"], capture_output=True, check=False)
        for program in PROGRAMS
    )

    assert (production.returncode, production.stdout) == (64, b"")
    assert b"flag provided but not defined: -noise-root" in production.stderr
    assert sandbox.returncode == 0
    assert json.loads(sandbox.stdout)["type"] == "hello"


def test_messages_are_written_and_read_with_the_schemas_of_the_program() -> None:
    """A text with a quote goes through bytes and comes back; the bytes are the wire's."""
    message_class = protobufs.message_class("WAWebProtobufsE2E.Message")
    message = message_class(
        extendedTextMessage={
            "text": "olá",
            "contextInfo": {"stanzaID": "3EB0", "quotedMessage": {"conversation": "?"}},
        }
    )

    again = message_class.FromString(message.SerializeToString())

    assert again == message
    assert again.extendedTextMessage.contextInfo.quotedMessage.conversation == "?"
    assert message_class(conversation="olá").SerializeToString() == b"\x0a\x04ol\xc3\xa1"  # field 1, four bytes


@pytest.mark.parametrize(
    "name",
    [
        "WAAdv.ADVSignedDeviceIdentityHMAC",
        "WACert.CertChain",
        "WACommon.MessageKey",
        "WACompanionReg.DeviceProps",
        "WAMmsRetry.MediaRetryNotification",
        "WAWebProtobufSyncAction.SyncActionData",
        "WAWebProtobufsHistorySync.HistorySync",
        "WAWebProtobufsServerSync.SyncdPatch",
        "WAWebProtobufsVnameCert.VerifiedNameCertificate",
        "WAWebProtobufsWa6.ClientPayload",
        "WAWebProtobufsWeb.WebMessageInfo",
    ],
)
def test_every_part_of_the_wire_is_there(name: str) -> None:
    """One message of each file that host and sandbox use."""
    assert protobufs.message_class(name).DESCRIPTOR.full_name == name


def test_a_package_reads_like_a_generated_module() -> None:
    """Messages and enumerations by name, the same object each time; an unknown name is an AttributeError."""
    adv = protobufs.Package("WAAdv")

    assert adv.ADVDeviceIdentity is protobufs.message_class("WAAdv.ADVDeviceIdentity")
    assert adv.ADVEncryptionType.Name(adv.ADVEncryptionType.HOSTED) == "HOSTED"
    with pytest.raises(AttributeError, match=r"WhatsApp has no WAAdv\.Nothing"):
        _ = adv.Nothing
