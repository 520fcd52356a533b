"""What Prometheus may ask: names and meanings of the operator's own numbers. One port, /metrics."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator

import prometheus_client
from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import REGISTRY, Collector

RECONCILE = Histogram("tunesmith_reconcile_seconds", "Time one look at a job takes, API calls included")
API_CALLS = Counter("tunesmith_api_calls_total", "Requests to the API server, watches apart", ["verb"])
API_ERRORS = Counter("tunesmith_api_errors_total", "Requests to the API server that failed", ["verb"])
UNANSWERED = Counter("tunesmith_progress_unanswered_total", "Requests for progress without a usable answer")
ATTEMPTS = Counter("tunesmith_attempts_total", "PyTorchJobs created", ["kind"])


class JobsByPhase(Collector):
    """`tunesmith_jobs{kind, phase}`, counted when asked."""

    def __init__(self, look: Callable[[], Iterable[tuple[str, str]]]) -> None:
        self._look = look

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One value for each kind and phase there is."""
        family = GaugeMetricFamily("tunesmith_jobs", "Jobs by kind and phase", labels=["kind", "phase"])
        for (kind, phase), count in sorted(Tally(self._look()).items()):
            family.add_metric([kind, phase], count)
        yield family


def serve(port: int, look: Callable[[], Iterable[tuple[str, str]]]) -> None:
    """Serve /metrics from a thread of its own until the process ends; port 0: not at all."""
    if port:
        REGISTRY.register(JobsByPhase(look))
        prometheus_client.start_http_server(port)
