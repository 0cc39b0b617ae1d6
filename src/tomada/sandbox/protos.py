"""WhatsApp's protobuf messages, as the machine program has them (`tomada.kit.protobufs`), under short names."""

from tomada.kit.protobufs import Package

adv = Package("WAAdv")
"""Device identities: `ADVDeviceIdentity`, `ADVSignedDeviceIdentity`, `ADVSignedDeviceIdentityHMAC`."""
cert = Package("WACert")
"""The certificate chain of the transport handshake: `CertChain`."""
companion = Package("WACompanionReg")
"""What a new companion says of itself: `DeviceProps`."""
e2e = Package("WAWebProtobufsE2E")
"""The encrypted content: `Message`."""
server_sync = Package("WAWebProtobufsServerSync")
"""App state as the server stores it: `SyncdPatch`."""
sync_action = Package("WAWebProtobufSyncAction")
"""App state as devices read it: `SyncActionData`, `SyncActionValue`."""
wa6 = Package("WAWebProtobufsWa6")
"""Transport: `HandshakeMessage`, `ClientPayload`."""
