"""The simulated network: accounts, devices and the routing of stanzas between them."""

from __future__ import annotations

from tomada.sandbox.network_ports import (
    AttachedDevice,
    BlobStore,
    Device,
    LinkCodeBundle,
    MediaLocation,
    PairingError,
    PendingLinkCode,
    PendingPairing,
    PhoneNetwork,
    SignedPrekey,
)

__all__ = [
    "AttachedDevice",
    "BlobStore",
    "Device",
    "LinkCodeBundle",
    "MediaLocation",
    "PairingError",
    "PendingLinkCode",
    "PendingPairing",
    "PhoneNetwork",
    "SignedPrekey",
]
