"""The same product on an external PostgreSQL by URL: nothing embedded is started, and all survives a kill."""

import asyncio
from pathlib import Path

import psutil

from tests.acceptance.hooks import Hooks
from tests.acceptance.product import Product, wait_for
from tomada.postgres.launcher import embedded_server


async def test_on_an_external_database(tmp_path: Path, hooks: Hooks) -> None:
    """Create, pair, receive; kill -9; the session comes back from its store on disk and its rows by URL."""
    async with embedded_server(tmp_path / "elsewhere") as server:
        await asyncio.to_thread(use_from_outside, tmp_path, server.dsn, hooks)


def use_from_outside(tmp_path: Path, dsn: str, hooks: Hooks) -> None:
    """The story, with blocking calls."""
    tmp_path.chmod(0o755)
    product = Product(tmp_path / "data", {"TOMADA_DATABASE_URL": dsn})
    product.start()
    try:
        account = product.create_account()
        instance = account.create_instance(hooks.url("external"))
        instance.pair(product.phone("5511999990091", "External"))
        customer = product.phone("5511977770091", "Customer")
        customer.send_text("5511999990091", "before")
        hooks.wait_text("external", "before")
        family = [" ".join(child.cmdline()) for child in psutil.Process(product.pid).children(recursive=True)]
        assert not [line for line in family if "bin/postgres" in line]

        product.kill()
        product.start()

        wait_for("connected", lambda: instance.get("status").body["connected"])
        customer.send_text("5511999990091", "after")
        hooks.wait_text("external", "after")
    finally:
        product.stop()
