"""Days that are not as others, over HTTP: a 29 February, and months that a change of clocks makes shorter or longer.

The billing zone is Berlin's, whose clocks change on the last Sunday of March and of October; times are written in UTC.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.acceptance.product import Account, Product, running, wait_for
from tests.acceptance.test_lifecycle import MUST_SUBSCRIBE, cancel, listed, now_ms, said, subscribe


@pytest.fixture(scope="module")
def berlin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A product whose months are Berlin's and whose clock this module moves."""
    environment = {"TOMADA_BILLING_ZONE": "Europe/Berlin"}
    with running(tmp_path_factory.mktemp("berlin") / "data", environment) as product:
        yield product


@pytest.fixture(scope="module")
def partner(berlin: Product) -> Account:
    """An integrator."""
    return berlin.create_account()


def ms(year: int, month: int, day: int, hour: int = 12, minute: int = 0) -> int:
    """A moment in UTC."""
    return int(datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp()) * 1000


def go_to(product: Product, at_ms: int) -> None:
    """Time passes until then."""
    left_ms = at_ms - now_ms(product)
    assert left_ms > 0
    product.advance_clock(left_ms // 1000 + 1)


def subscribed_until(partner: Account) -> int:
    """The end of the month for which an instance pays that is made and subscribed now."""
    return int(subscribe(partner.create_instance()).body["due"])


def test_a_leap_year_month_by_month(berlin: Product, partner: Account) -> None:
    """February has a 29th, which is paid for; March is an hour short, October an hour long."""
    year = next(it for it in range(2028, 2200, 4) if ms(it, 2, 10) > now_ms(berlin) and it % 100)

    go_to(berlin, ms(year, 2, 10))
    cancelled, renewed = partner.create_instance(), partner.create_instance()
    end_of_february = ms(year, 2, 29, 23)
    assert subscribe(cancelled).body["due"] == subscribe(renewed).body["due"] == end_of_february
    assert cancel(cancelled).body["due"] == end_of_february
    go_to(berlin, ms(year, 2, 29, 22, 50))
    assert cancelled.get("status").status == renewed.get("status").status == 200
    go_to(berlin, end_of_february)
    assert said(cancelled.get("status")) == MUST_SUBSCRIBE
    assert renewed.get("status").status == 200

    end_of_march = ms(year, 3, 31, 22)
    wait_for("renewed", lambda: (it := listed(renewed)) and it["due"] == end_of_march)
    assert subscribed_until(partner) == end_of_march
    cancel(renewed)
    go_to(berlin, ms(year, 3, 31, 21, 50))
    assert renewed.get("status").status == 200
    go_to(berlin, end_of_march)
    assert said(renewed.get("status")) == MUST_SUBSCRIBE

    go_to(berlin, ms(year, 9, 30, 21, 50))
    assert subscribed_until(partner) == ms(year, 9, 30, 22)
    go_to(berlin, ms(year, 9, 30, 22))
    assert subscribed_until(partner) == ms(year, 10, 31, 23)
