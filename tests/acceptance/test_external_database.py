"""The same product on an external PostgreSQL by URL: nothing embedded is started, and all survives a kill."""

import asyncio
from pathlib import Path

import psutil
import pytest

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


async def test_a_second_server_on_one_database_is_refused(tmp_path: Path) -> None:
    """Its sessions would throw out the first one's. A killed server's place is free at once."""
    async with embedded_server(tmp_path / "elsewhere") as server:
        await asyncio.to_thread(two_servers, tmp_path, server.dsn)


def two_servers(tmp_path: Path, dsn: str) -> None:
    """The story, with blocking calls."""
    tmp_path.chmod(0o755)
    first, second = (Product(tmp_path / name, {"TOMADA_DATABASE_URL": dsn}) for name in ("first", "second"))
    key = tmp_path / "second" / "secret.key"
    first.start()
    try:
        key.parent.mkdir(mode=0o711)
        key.write_bytes((tmp_path / "first" / "secret.key").read_bytes())

        with pytest.raises(AssertionError, match="Another `tomada serve` uses this database"):
            second.start()
        assert first.create_account().get("/instances").status == 200

        first.kill()
        second.start()
        assert second.stop() == 0
    finally:
        first.stop()
        second.stop()
