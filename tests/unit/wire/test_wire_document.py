"""docs/wire.md lists the routes as they are."""

import re
from pathlib import Path
from typing import Any

from litestar import Litestar
from litestar.routes import HTTPRoute

from tomada.wire import lifecycle_calls
from tomada.wire.api import INSTANCE_PATH, build_app
from tomada.wire.ports import Ports

DOCUMENT = Path(__file__).parents[3] / "docs" / "wire.md"
_ROW = re.compile(r"^\| ([A-Z, ]+) \| `([^`]+)` \| (\d+) \|")
_NOT_OF_THE_WIRE = ("/health", "/ready", "/v1/")


def _documented() -> set[tuple[str, str, int]]:
    table = DOCUMENT.read_text().split("<!-- routes -->")[1].split("<!-- /routes -->")[0]
    rows = [match for line in table.splitlines() if (match := _ROW.match(line))]
    return {(method, row[2], int(row[3])) for row in rows for method in row[1].split(", ")}


def _served(app: Litestar) -> set[tuple[str, str, int]]:
    instance_path = INSTANCE_PATH.replace(":str", "")
    return {
        (str(method), route.path_format.replace(instance_path, "I"), handler.status_code)
        for route in app.routes
        if isinstance(route, HTTPRoute) and not route.path_format.startswith(_NOT_OF_THE_WIRE)
        for handler in route.route_handlers
        for method in handler.http_methods
        if method != "OPTIONS"
    }


def test_routes() -> None:
    """Every route of the wire stands in the table with its status, and no other."""
    nothing: Any = None
    names = [name for name in Ports.__struct_fields__ if name != "settings"]
    app = build_app(Ports(**dict.fromkeys(names, nothing)), [lifecycle_calls.router])
    assert _documented() == _served(app)
