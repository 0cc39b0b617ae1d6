"""Failed log-ins: the many wrong ones are stopped, the good ones never."""

import pytest

from tests.unit.accounts.test_limits import HeldClock
from tomada.errors import (
    ClientTokenMissing,
    ClientTokenWrong,
    NotFound,
    SubscriptionNeeded,
    TomadaError,
    TooManyRequests,
    Unauthorized,
)
from tomada.wire.failed_logins import REMEMBERED_MAX, FailedLogins


def attempt(
    logins: FailedLogins,
    peer: str,
    credential: str,
    error: type[TomadaError] | None = None,
    client_token: str | None = None,
) -> None:
    """A check of a credential with this outcome."""
    with logins.guarding(peer, credential, client_token=client_token):
        if error is not None:
            raise error


def fail(logins: FailedLogins, peer: str, times: int) -> None:
    """So many wrong credentials."""
    for number in range(times):
        with pytest.raises(Unauthorized):
            attempt(logins, peer, f"wrong {number}", Unauthorized)


def test_too_many_are_told_to_wait_without_a_look() -> None:
    """After the limit even a good credential that is new here is not looked at; a minute's share later it is."""
    clock = HeldClock()
    logins = FailedLogins(clock, 60)
    fail(logins, "192.0.2.1", 60)
    with pytest.raises(TooManyRequests) as refused:
        attempt(logins, "192.0.2.1", "right")
    assert 0 < refused.value.retry_after_s <= 1
    clock.s += 1
    attempt(logins, "192.0.2.1", "right")


def test_other_addresses_and_known_credentials_go_on() -> None:
    """Behind one proxy, those who were in before stay in; whoever comes from elsewhere notices nothing."""
    logins = FailedLogins(HeldClock(), 5)
    attempt(logins, "192.0.2.1", "known")
    with pytest.raises(SubscriptionNeeded):
        attempt(logins, "192.0.2.1", "known too", SubscriptionNeeded)
    fail(logins, "192.0.2.1", 5)
    attempt(logins, "192.0.2.1", "known")
    attempt(logins, "192.0.2.1", "known too")
    attempt(logins, "192.0.2.2", "new")


def test_a_known_credential_that_has_ended_is_forgotten() -> None:
    """It may be tried once more, fails, and is then one of the wrong ones."""
    logins = FailedLogins(HeldClock(), 5)
    attempt(logins, "192.0.2.1", "ends")
    fail(logins, "192.0.2.1", 5)
    with pytest.raises(Unauthorized):
        attempt(logins, "192.0.2.1", "ends", Unauthorized)
    with pytest.raises(TooManyRequests):
        attempt(logins, "192.0.2.1", "ends", Unauthorized)


def test_the_same_wrong_credential_counts_once() -> None:
    """A backend that polls an instance that is gone, for ever, leaves room for what it has not shown yet."""
    logins = FailedLogins(HeldClock(), 5)
    for _ in range(100):
        with pytest.raises(NotFound):
            attempt(logins, "192.0.2.1", "gone", NotFound)
    attempt(logins, "192.0.2.1", "new")
    fail(logins, "192.0.2.1", 4)
    with pytest.raises(TooManyRequests):
        attempt(logins, "192.0.2.1", "newer")


def test_a_wrong_credential_counts_at_each_address() -> None:
    """What one address has tried says nothing of another: it guesses for itself."""
    logins = FailedLogins(HeldClock(), 1)
    for peer in ("192.0.2.1", "192.0.2.2"):
        with pytest.raises(Unauthorized):
            attempt(logins, peer, "wrong", Unauthorized)
        with pytest.raises(TooManyRequests):
            attempt(logins, peer, "another", Unauthorized)


def test_what_was_made_here_is_good_at_once() -> None:
    """The first call of a new instance is looked at although its address failed too often, with any Client-Token."""
    logins = FailedLogins(HeldClock(), 5)
    fail(logins, "192.0.2.1", 5)
    logins.made("created")
    attempt(logins, "192.0.2.1", "created", client_token="whatever")
    attempt(logins, "192.0.2.1", "created")


def test_a_new_instance_is_no_way_to_try_client_tokens() -> None:
    """A wrong Client-Token takes the welcome away: the next one is not looked at."""
    logins = FailedLogins(HeldClock(), 5)
    fail(logins, "192.0.2.1", 5)
    logins.made("created")
    with pytest.raises(ClientTokenWrong):
        attempt(logins, "192.0.2.1", "created", ClientTokenWrong, "guess 1")
    with pytest.raises(TooManyRequests):
        attempt(logins, "192.0.2.1", "created", ClientTokenWrong, "guess 2")


def test_what_is_no_guess_does_not_count() -> None:
    """A missing Client-Token is a mistake in a header, not a try."""
    logins = FailedLogins(HeldClock(), 1)
    for _ in range(5):
        with pytest.raises(ClientTokenMissing):
            attempt(logins, "192.0.2.1", "x", ClientTokenMissing)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("unix:", "unix:", True),
    ],
)
def test_ipv6_counts_by_network(one: str, other: str, same: bool) -> None:
    """One customer has a /64, so it is one address here."""
    logins = FailedLogins(HeldClock(), 3)
    fail(logins, one, 3)
    expected = TooManyRequests if same else Unauthorized
    with pytest.raises(expected):
        attempt(logins, other, "wrong", Unauthorized)


def test_none_and_bounds() -> None:
    """0 is no limit; what is remembered of credentials, good and bad, is bounded."""
    fail(FailedLogins(HeldClock(), 0), "192.0.2.1", 100)
    logins = FailedLogins(HeldClock(), 2 * REMEMBERED_MAX)
    for number in range(REMEMBERED_MAX + 5):
        attempt(logins, "192.0.2.1", str(number))
    fail(logins, "192.0.2.1", REMEMBERED_MAX + 5)
    assert (len(logins._good), len(logins._bad)) == (REMEMBERED_MAX, REMEMBERED_MAX)
