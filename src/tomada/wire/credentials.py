"""Guards: they stand on the routers, so that no route of a partner or of an instance runs without its credentials.

A partner's route finds its account with `account_of`, an instance's route its instance with `instance_of`.
"""

from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from tomada.accounts.model import Account
from tomada.accounts.partner import authenticate
from tomada.instances.authorize import authorize
from tomada.instances.model import Instance
from tomada.wire.ports import Ports
from tomada.wire.reading import AnyRequest

AnyConnection = ASGIConnection[Any, Any, Any, Any]


async def partner_guard(connection: AnyConnection, _handler: BaseRouteHandler) -> None:
    """Raises Unauthorized unless the headers carry a partner credential."""
    ports: Ports = connection.app.state.ports
    authorization, client_token = connection.headers.get("authorization"), connection.headers.get("client-token")
    with ports.logins.guarding(peer_of(connection), authorization or "", client_token=client_token):
        connection.state.account = await authenticate(ports.accounts, authorization, client_token)


ENDED_TOO = "ended_too"  # `opt` of a route that also serves an instance whose time is over


async def instance_guard(connection: AnyConnection, handler: BaseRouteHandler) -> None:
    """Raises as instances.authorize unless the path and the Client-Token belong to a usable instance."""
    ports: Ports = connection.app.state.ports
    path: dict[str, str] = connection.path_params
    client_token = connection.headers.get("client-token")
    with ports.logins.guarding(peer_of(connection), path["instance_id"], path["token"], client_token=client_token):
        found = await authorize(
            ports.instances, path["instance_id"], path["token"], client_token, ended_too=ENDED_TOO in handler.opt
        )
    connection.state.instance = found.instance
    connection.state.messages_per_minute_max = found.messages_per_minute_max


def peer_of(connection: AnyConnection) -> str:
    """The address that the connection comes from: a reverse proxy's, if there is one."""
    return connection.client.host if connection.client else ""


def account_of(request: AnyRequest) -> Account:
    """The account that partner_guard found."""
    account: Account = request.state.account
    return account


def messages_per_minute_of(request: AnyRequest) -> int | None:
    """The limit of the instance's account."""
    limit: int | None = request.state.messages_per_minute_max
    return limit


def instance_of(request: AnyRequest) -> Instance:
    """The instance that instance_guard found."""
    instance: Instance = request.state.instance
    return instance
