"""One running product, one account without a small limit and one receiver for all acceptance tests that harm nobody."""

from collections.abc import Iterator

import pytest

from tests.acceptance.hooks import Hooks
from tests.acceptance.product import Account, Product, running
from tests.receiver import Receiver


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A server with the sandbox; tests that kill or stop use one of their own."""
    environment = {"TOMADA_OPERATOR_TOKEN": "operator-token-of-the-acceptance-tests"}
    with running(tmp_path_factory.mktemp("product") / "data", environment) as product:
        yield product


@pytest.fixture(scope="session")
def account(product: Product) -> Account:
    """An integrator."""
    return product.create_account("--limit", "1000")


@pytest.fixture(scope="session")
def hooks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hooks]:
    """A receiver that answers 200 and keeps its own record."""
    receiver = Receiver(tmp_path_factory.mktemp("receiver"))
    yield Hooks(receiver)
    receiver.close()
