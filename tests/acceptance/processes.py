"""The product's processes, asked while they come and go.

PostgreSQL starts and ends processes of its own at any time. One may have ended between the moment a test listed it and
the moment the test asks it something; that is no fault of anybody.
"""

import contextlib
from collections.abc import Callable, Iterable
from typing import TypeVar

import psutil

from tests.acceptance.product import Product

Found = TypeVar("Found")


def family_of(product: Product) -> list[psutil.Process]:
    """All processes of the product but the main one."""
    return psutil.Process(product.pid).children(recursive=True)


def of_each(family: Iterable[psutil.Process], ask: Callable[[psutil.Process], Found]) -> dict[int, Found]:
    """By pid, what each process answers; one that has ended by now is left out."""
    found = {}
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            found[process.pid] = ask(process)
    return found


def listening(family: Iterable[psutil.Process]) -> set[tuple[str, int]]:
    """Addresses and ports on which these processes accept connections."""
    connections = of_each(family, lambda process: process.net_connections("tcp"))
    return {
        (connection.laddr.ip, connection.laddr.port)
        for of_one in connections.values()
        for connection in of_one
        if connection.status == psutil.CONN_LISTEN
    }
