"""The host's figures for Prometheus, read when they are asked for."""

from collections.abc import Callable, Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tomada.machines.host import Figures

_GAUGES = {
    "machines": "Machine processes",
    "machines_ready": "Machine processes that take requests",
    "events_waiting": "Events told by machines and not committed yet",
    "lanes_stuck": "Instances whose events wait behind one that has failed five times or more",
}
_COUNTERS = {
    "machine_restarts": "Machines that ended and were started again",
    "openings": "Sessions opened",
    "recoveries": "Sessions opened again after a failure",
    "probes_failed": "Probes that a session did not answer",
    "deaf_restarts": "Sessions restarted because they were deaf",
    "events_quarantined": "Events that our own code could not handle, kept in the table quarantined_event",
}


class HostMetrics(Collector):
    """Register it with a registry; `figures` is the host's."""

    def __init__(self, figures: Callable[[], Figures]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """All families."""
        figures = self._figures()
        sessions = GaugeMetricFamily("tomada_sessions", "Sessions by condition", labels=["condition"])
        for condition, count in figures.sessions.items():
            sessions.add_metric([condition], count)
        yield sessions
        for name, words in _GAUGES.items():
            yield GaugeMetricFamily(f"tomada_{name}", words, value=getattr(figures, name))
        for name, words in _COUNTERS.items():
            yield CounterMetricFamily(f"tomada_{name}", words, value=getattr(figures, name))
