"""The figures of the host of machines, each with its unit, default and reason."""

import msgspec


class HostSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How sessions are hosted."""

    instances_per_machine: int = 50  # TOMADA_INSTANCES_PER_MACHINE

    orderly_rate: float = 50.0  # openings a second after a start of ours: 200 sessions in 4 s (see backoff.py)
    orderly_burst: int = 10
    backoff_base_s: float = 2.0
    backoff_cap_s: float = 300.0  # after an outage of whatever length a session is back within this
    machine_backoff_base_s: float = 1.0  # between two starts of a machine that keeps dying; grows to a minute

    reconnect_grace_s: float = 5.0  # the engine tries at 0 and 2 s by itself; all in step, so not for longer
    connect_timeout_s: float = 60.0  # from opening to connected; an upload of prekeys to a slow disk takes seconds

    probe_interval_s: float = 120.0  # +-25 %: two failures are seen within 3.5 minutes, the promise is 5
    probe_retry_s: float = 10.0
    probe_timeout_s: float = 15.0

    open_timeout_s: float = 60.0  # from its turn on; the machine itself gives up before, as with the calls below
    close_timeout_s: float = 90.0  # an opening under way comes first
    send_timeout_s: float = 10.0  # until the machine has taken a message, not until it is sent
    phone_code_timeout_s: float = 30.0  # as the next: the machine itself gives up after 20 s, and says so
    logout_timeout_s: float = 30.0
    qr_timeout_s: float = 10.0
    drain_timeout_s: float = 10.0  # for events of an instance that is removed to be committed

    tend_s: float = 1.0
