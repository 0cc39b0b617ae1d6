"""The life of one connection: handshake, then either waiting to be linked or serving a device until it goes."""

from __future__ import annotations

import asyncio

from cryptography.exceptions import InvalidTag

from tomada.sandbox.certs import NoiseIdentity
from tomada.sandbox.codec import CodecError
from tomada.sandbox.connection import Connection, Hello, ProtocolError
from tomada.sandbox.login import log_in, refusal
from tomada.sandbox.network import Network
from tomada.sandbox.network_ports import Device, PairingError
from tomada.sandbox.network_state import answer_to, log
from tomada.sandbox.node import Node
from tomada.sandbox.pairing import WINDOW_S, Pairing

_ENDS = (ConnectionError, ProtocolError, PairingError, CodecError, InvalidTag, TimeoutError)


async def serve_connection(network: Network, connection: Connection, identity: NoiseIdentity) -> None:
    """Serve a client until it or we close the connection; never raises for what the client does."""
    network.connections.add(connection)
    try:
        hello = await connection.greet(identity)
        if hello.payload.HasField("devicePairingData") and hello.payload.devicePairingData.eIdent:
            await _serve_unregistered(network, connection, hello)
        else:
            await _serve_device(network, connection, hello)
    except _ENDS as error:
        log.info("connection %d ended: %r", connection.number, error)
    finally:
        network.connections.discard(connection)
        await connection.finish()


async def _serve_unregistered(network: Network, connection: Connection, hello: Hello) -> None:
    refused = refusal(network.world, None)
    if refused:
        connection.close(refused)
    else:
        pairing = network.pairings.open(connection, hello)
        timer = asyncio.get_running_loop().call_later(WINDOW_S, connection.close)
        offer = asyncio.create_task(_offer(connection, pairing))
        try:
            async for node in connection.stanzas():
                if node.tag == "iq":
                    answer = network.pairings.handle(pairing, node)
                    connection.push(answer)
        finally:
            timer.cancel()
            offer.cancel()
            await asyncio.gather(offer, return_exceptions=True)
            network.pairings.close(pairing)
        return
    await _drain(connection)


async def _offer(connection: Connection, pairing: Pairing) -> None:
    try:
        await connection.request(pairing.offer())
    except ConnectionError:
        connection.close()


async def _serve_device(network: Network, connection: Connection, hello: Hello) -> None:
    number = str(hello.payload.username)
    connection.account_number = number
    if network.world.faults.find("refuse", number):
        connection.abort()
        return
    device = log_in(network.world, connection, hello.static, hello.payload)
    if isinstance(device, Node):
        connection.close(device)
        await _drain(connection)
        return
    try:
        async for node in connection.stanzas():
            _handle(network, connection, device, node)
    finally:
        network.gone(device, connection)


def _handle(network: Network, connection: Connection, device: Device, node: Node) -> None:
    if node.tag == "iq" and node.text("xmlns") == "w:p":
        connection.push_always(answer_to(node))
        return
    if connection.deaf:
        return
    network.handle(device, node, connection.push)


async def _drain(connection: Connection) -> None:
    """Read on until the client goes, so that what we sent last arrives before the end."""
    async for _ in connection.stanzas():
        pass
