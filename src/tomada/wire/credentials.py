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
    connection.state.account = await authenticate(
        ports.accounts, connection.headers.get("authorization"), connection.headers.get("client-token")
    )


async def instance_guard(connection: AnyConnection, _handler: BaseRouteHandler) -> None:
    """Raises as instances.authorize unless the path and the Client-Token belong to a usable instance."""
    ports: Ports = connection.app.state.ports
    path: dict[str, str] = connection.path_params
    connection.state.instance = await authorize(
        ports.instances, path["instance_id"], path["token"], connection.headers.get("client-token")
    )


def account_of(request: AnyRequest) -> Account:
    """The account that partner_guard found."""
    account: Account = request.state.account
    return account


def instance_of(request: AnyRequest) -> Instance:
    """The instance that instance_guard found."""
    instance: Instance = request.state.instance
    return instance
