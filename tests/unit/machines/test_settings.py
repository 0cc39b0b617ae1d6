"""The host waits longer for an answer than a machine needs at worst: else it would kill a machine that is well."""

from tomada.engine import neonize_client, neonize_session
from tomada.machines.machine import OPENINGS_MAX
from tomada.machines.settings import HostSettings

SETTINGS = HostSettings()
LEEWAY_S = 3.0  # for pipes and threads on a busy computer


def test_an_opening_outlasts_the_starts_before_it() -> None:
    """The engine starts one session after another."""
    assert SETTINGS.open_timeout_s > OPENINGS_MAX * neonize_client.STARTS_WAIT_S + LEEWAY_S


def test_a_close_outlasts_a_connect_that_hangs() -> None:
    """The engine cannot end it before its time, and then lets out what it holds, behind the starts of others."""
    others_s = OPENINGS_MAX * neonize_client.STARTS_WAIT_S
    after_s = neonize_client.DRAIN_MAX_S + neonize_client.STOP_WAIT_S + neonize_client.ABANDON_WAIT_S
    assert SETTINGS.close_timeout_s > neonize_client.DIAL_MAX_S + after_s + others_s + LEEWAY_S


def test_calls_to_whatsapp_outlast_the_engines_own_deadlines() -> None:
    """A machine that says nothing else and leaves a request without an answer is taken for hung."""
    assert SETTINGS.logout_timeout_s > neonize_session.CALL_DEADLINE_S + LEEWAY_S
    assert SETTINGS.phone_code_timeout_s > neonize_session.CALL_DEADLINE_S + LEEWAY_S
    assert SETTINGS.probe_timeout_s > neonize_session.Limits().probe_deadline_s + LEEWAY_S
