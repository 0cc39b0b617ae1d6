"""The lifecycle as a calendar: what happens on which day, in the words of the documentation."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import replace

from tomada.errors import NotFound, Refused, SubscriptionNeeded
from tomada.instances import lifecycle
from tomada.instances.billing import cycle_end_ms
from tomada.instances.lifecycle import Standing, State, Terms

TERMS = Terms()
SAO_PAULO = "America/Sao_Paulo"


def at(text: str, zone: str = SAO_PAULO) -> int:
    """Epoch milliseconds of a local time."""
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def local(ms: int, zone: str = SAO_PAULO) -> str:
    """The local time of epoch milliseconds, to the minute."""
    return datetime.fromtimestamp(ms / 1000, ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M")


class Diary:
    """One instance through the days."""

    def __init__(self, created: str, terms: Terms = TERMS) -> None:
        self.terms = terms
        created_ms = at(created)
        self.now = Standing(
            id="I",
            account_id="A",
            state=State.TRIAL,
            created_ms=created_ms,
            due_ms=created_ms + terms.trial_ms,
        )

    def sweep(self, when: str) -> str:
        """A sweeper comes by; what state it leaves."""
        change = lifecycle.wake(self.now, at(when), self.terms)
        if change is not None:
            self.now = change.after
        return self.now.state.value

    def subscribe(self, when: str) -> str:
        """The integrator subscribes; the due it is told."""
        self.now = lifecycle.subscribe(self.now, at(when), self.terms).after
        return local(self.now.due_ms)

    def cancel(self, when: str) -> str:
        """The integrator cancels; the due it is told."""
        change = lifecycle.cancel(self.now, at(when), self.terms)
        if change is not None:
            self.now = change.after
        return local(self.now.due_ms)

    def delete(self, when: str) -> str:
        """The integrator deletes."""
        change = lifecycle.delete(self.now, at(when), self.terms)
        if change is not None:
            self.now = change.after
        return self.now.state.value

    def suspend(self, until: str | None) -> None:
        """The operator suspends the account, or resumes it."""
        self.now = replace(self.now, suspended_until_ms=at(until) if until else None)

    def serves(self, when: str) -> bool:
        """Whether a call to the instance is answered."""
        try:
            lifecycle.check_serves(self.now, at(when))
        except SubscriptionNeeded:
            return False
        return True


def test_a_trial_lasts_two_days_to_the_millisecond() -> None:
    """Created on the 10th at 09:30, it serves until the 12th at 09:30, then it is expired; its machine goes."""
    diary = Diary("2026-03-10 09:30")
    assert local(diary.now.due_ms) == "2026-03-12 09:30"
    assert diary.serves("2026-03-12 09:29")
    assert diary.sweep("2026-03-12 09:29") == "trial"
    assert not diary.serves("2026-03-12 09:30")
    assert diary.sweep("2026-03-12 09:30") == "expired"
    assert diary.now.epoch == 2


def test_day_0_create_day_1_subscribe_day_2_nothing_happens() -> None:
    """A subscribed instance outlives its trial."""
    diary = Diary("2026-03-10 09:30")
    assert diary.subscribe("2026-03-11 12:00") == "2026-04-01 00:00"
    assert diary.sweep("2026-03-12 09:30") == "active"
    assert diary.serves("2026-03-12 09:30")
    assert diary.now.epoch == 1


def test_a_subscription_renews_on_the_first_of_every_month() -> None:
    """Post-paid by calendar months: due moves from the 1st to the 1st, and the instance never stops."""
    diary = Diary("2026-01-30 10:00")
    assert diary.subscribe("2026-01-31 23:59") == "2026-02-01 00:00"
    assert diary.serves("2026-02-01 00:00")
    assert diary.sweep("2026-02-01 00:00") == "active"
    assert local(diary.now.due_ms) == "2026-03-01 00:00"
    assert diary.sweep("2026-05-17 08:00") == "active"
    assert local(diary.now.due_ms) == "2026-06-01 00:00"


def test_canceled_mid_month_it_serves_to_the_end_of_the_month() -> None:
    """On the 15th it is canceled, on the 1st it is switched off, forty days later it is gone."""
    diary = Diary("2026-03-10 09:30")
    diary.subscribe("2026-03-11 12:00")
    assert diary.cancel("2026-03-15 16:20") == "2026-04-01 00:00"
    assert diary.serves("2026-03-31 23:59")
    assert diary.sweep("2026-03-31 23:59") == "in_cancellation"
    assert not diary.serves("2026-04-01 00:00")
    assert diary.sweep("2026-04-01 00:00") == "canceled"
    assert diary.sweep("2026-05-10 23:59") == "canceled"
    assert diary.sweep("2026-05-11 00:00") == "deleted"
    with pytest.raises(NotFound):
        lifecycle.check_serves(diary.now, at("2026-05-11 00:00"))


def test_canceled_on_the_last_day_it_ends_the_next() -> None:
    """A minute before midnight is still this month."""
    diary = Diary("2026-03-01 00:00")
    diary.subscribe("2026-03-02 00:00")
    assert diary.cancel("2026-03-31 23:59") == "2026-04-01 00:00"


def test_a_cancellation_can_be_taken_back() -> None:
    """Subscribing while in cancellation goes on as before, on the same machine."""
    diary = Diary("2026-03-10 09:30")
    diary.subscribe("2026-03-11 12:00")
    diary.cancel("2026-03-15 16:20")
    assert diary.subscribe("2026-03-20 10:00") == "2026-04-01 00:00"
    assert (diary.sweep("2026-04-01 00:00"), diary.now.epoch) == ("active", 1)


def test_the_grace_after_a_cancellation_can_be_thirty_days() -> None:
    """As the service had it until 2026: thirty days from the cancel."""
    diary = Diary("2026-03-10 09:30", Terms(cancel_grace_days=30))
    diary.subscribe("2026-03-11 12:00")
    assert diary.cancel("2026-03-15 16:20") == "2026-04-14 16:20"
    assert diary.sweep("2026-04-14 16:19") == "in_cancellation"
    assert diary.sweep("2026-04-14 16:20") == "canceled"


def test_an_expired_instance_comes_back_with_a_new_machine() -> None:
    """Within forty days it can be subscribed again; it must be paired anew, so its epoch is another."""
    diary = Diary("2026-03-10 09:30")
    diary.sweep("2026-03-12 09:30")
    assert not diary.serves("2026-04-20 00:00")
    assert diary.subscribe("2026-04-20 10:00") == "2026-05-01 00:00"
    assert diary.serves("2026-04-20 10:00")
    assert diary.now.epoch == 3
    assert (diary.now.ended_ms, diary.now.retire_ms) == (None, None)


def test_after_forty_days_it_is_not_found() -> None:
    """The 12th of March plus forty days is the 21st of April."""
    diary = Diary("2026-03-10 09:30")
    diary.sweep("2026-03-12 09:30")
    assert diary.sweep("2026-04-21 09:29") == "expired"
    assert diary.sweep("2026-04-21 09:30") == "deleted"
    with pytest.raises(NotFound):
        diary.subscribe("2026-04-21 09:31")


def test_paid_a_minute_too_late_but_before_the_sweep_keeps_the_machine() -> None:
    """The trial is over, nobody has come by yet: the pairing is kept."""
    diary = Diary("2026-03-10 09:30")
    assert not diary.serves("2026-03-12 09:31")
    diary.subscribe("2026-03-12 09:31")
    assert (diary.now.state, diary.now.epoch) == (State.ACTIVE, 1)


def test_a_sweeper_that_was_down_for_a_year_catches_up() -> None:
    """Each pass does the next thing that is due."""
    diary = Diary("2026-03-10 09:30")
    assert diary.sweep("2027-03-10 09:30") == "expired"
    assert diary.sweep("2027-04-18 09:30") == "expired"
    assert diary.sweep("2027-04-19 09:30") == "deleted"
    assert diary.sweep("2028-01-01 00:00") == "deleted"


def test_an_unpaid_account_stops_on_the_10th_and_ends_on_the_15th() -> None:
    """Suspended, its instances serve nobody; five days later they end."""
    diary = Diary("2026-03-01 09:30")
    diary.subscribe("2026-03-02 12:00")
    diary.suspend("2026-04-15 00:00")
    assert not diary.serves("2026-04-10 00:00")
    with pytest.raises(Refused, match="already paid"):
        diary.subscribe("2026-04-11 00:00")
    assert diary.sweep("2026-04-14 23:59") == "active"
    assert diary.sweep("2026-04-15 00:00") == "expired"
    with pytest.raises(Refused, match="suspended"):
        diary.subscribe("2026-04-16 00:00")
    diary.suspend(None)
    assert diary.subscribe("2026-04-20 00:00") == "2026-05-01 00:00"


def test_an_account_that_pays_on_the_14th_loses_nothing() -> None:
    """Resumed in time, everything is as before."""
    diary = Diary("2026-03-01 09:30")
    diary.subscribe("2026-03-02 12:00")
    diary.suspend("2026-04-15 00:00")
    diary.suspend(None)
    assert (diary.sweep("2026-04-15 00:00"), diary.now.epoch) == ("active", 1)
    assert diary.serves("2026-04-15 00:00")


def test_delete_is_for_what_has_ended() -> None:
    """Not in trial, not while paid, not in cancellation; at once when canceled, and again without effect."""
    diary = Diary("2026-03-10 09:30")
    for step in (lambda: None, lambda: diary.subscribe("2026-03-11 00:00"), lambda: diary.cancel("2026-03-12 00:00")):
        step()
        with pytest.raises(Refused, match="not eligible for deletion"):
            diary.delete("2026-03-13 00:00")
    diary.sweep("2026-04-01 00:00")
    assert diary.delete("2026-04-01 00:01") == "deleted"
    assert diary.delete("2026-04-01 00:02") == "deleted"


def test_delete_can_be_made_to_wait_forty_days() -> None:
    """As today's service has it."""
    diary = Diary("2026-03-10 09:30", Terms(delete_after_days=40, retention_days=60))
    diary.sweep("2026-03-12 09:30")
    with pytest.raises(Refused):
        diary.delete("2026-04-21 09:29")
    assert diary.delete("2026-04-21 09:30") == "deleted"


@pytest.mark.parametrize(
    ("now", "end", "zone"),
    [
        ("2024-02-10 12:00", "2024-03-01 00:00", SAO_PAULO),  # a leap year
        ("2024-02-29 23:59", "2024-03-01 00:00", SAO_PAULO),  # its leap day
        ("2025-02-28 23:59", "2025-03-01 00:00", SAO_PAULO),  # none
        ("2026-12-31 23:59", "2027-01-01 00:00", SAO_PAULO),  # the year's end
        ("2026-01-01 00:00", "2026-02-01 00:00", SAO_PAULO),  # the first instant of a month is its own
        ("2018-10-20 12:00", "2018-11-01 00:00", SAO_PAULO),  # summer time began three days later (2018-11-04)
        ("2018-11-03 12:00", "2018-12-01 00:00", SAO_PAULO),  # a month of one hour less
        ("2019-02-03 12:00", "2019-03-01 00:00", SAO_PAULO),  # a month of one hour more
        ("2023-09-15 12:00", "2023-10-01 01:00", "America/Asuncion"),  # its first midnight does not exist
        ("2026-10-10 12:00", "2026-11-01 00:00", "America/New_York"),  # summer time ends two hours later
        ("2026-03-20 12:00", "2026-04-01 00:00", "Europe/Lisbon"),
        ("2026-03-20 12:00", "2026-04-01 00:00", "Pacific/Kiritimati"),  # 14 hours ahead
        ("2026-03-20 12:00", "2026-04-01 00:00", "UTC"),
    ],
)
def test_a_month_ends_with_the_first_instant_of_the_next(now: str, end: str, zone: str) -> None:
    """Leap days, year's end, summer time, and a midnight that is left out."""
    assert local(cycle_end_ms(at(now, zone), zone), zone) == end


def test_a_month_in_brazil_ends_three_hours_after_utc() -> None:
    """The default zone, by hand."""
    assert datetime.fromtimestamp(cycle_end_ms(at("2026-03-31 23:00"), SAO_PAULO) / 1000, UTC) == datetime(
        2026, 4, 1, 3, tzinfo=UTC
    )
