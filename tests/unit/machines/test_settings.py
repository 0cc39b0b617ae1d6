"""The host waits longer for an answer than a machine needs at worst: else it would kill a machine that is well."""

import re
from pathlib import Path

from tomada.machines.settings import HostSettings

SETTINGS = HostSettings()
LEEWAY_S = 3.0  # for pipes and threads on a busy computer

_SOURCES = Path(__file__).parents[3] / "machine" / "internal"


def _of_the_machine(file: str, name: str) -> float:
    """One of the machine's own deadlines, in seconds."""
    line = re.search(rf"^\t{name} += (\d+) \* time\.Second", (_SOURCES / file).read_text(), re.MULTILINE)
    assert line is not None, f"{file} has no {name} any more"
    return float(line[1])


def test_an_opening_outlasts_the_machines_own_deadline() -> None:
    """It says by itself that WhatsApp does not answer."""
    assert SETTINGS.open_timeout_s > _of_the_machine("machine/machine.go", "openTimeout") + LEEWAY_S


def test_a_close_outlasts_an_opening_before_it_and_the_send_under_way() -> None:
    """Orders of one instance are carried out one after another."""
    opening_s = _of_the_machine("machine/machine.go", "openTimeout")
    sending_s = _of_the_machine("session/send.go", "finishTimeout")
    assert SETTINGS.close_timeout_s > opening_s + sending_s + LEEWAY_S


def test_calls_to_whatsapp_outlast_the_machines_own_deadlines() -> None:
    """A machine that says nothing else and leaves a request without an answer is taken for hung."""
    call_s = _of_the_machine("machine/machine.go", "callTimeout")
    assert SETTINGS.logout_timeout_s > call_s + LEEWAY_S
    assert SETTINGS.phone_code_timeout_s > call_s + LEEWAY_S
    assert SETTINGS.probe_timeout_s > _of_the_machine("machine/machine.go", "probeTimeout") + LEEWAY_S
