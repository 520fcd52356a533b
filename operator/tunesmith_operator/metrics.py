"""Prometheus metrics: names and descriptions of the operator's own. One port, /metrics."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator

import prometheus_client
from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import REGISTRY, Collector

RECONCILE = Histogram("tunesmith_reconcile_seconds", "Duration of a job's reconciliation, API calls included")
API_CALLS = Counter("tunesmith_api_calls_total", "Requests to the API server, without watches", ["verb"])
API_ERRORS = Counter("tunesmith_api_errors_total", "Requests to the API server that failed", ["verb"])
UNANSWERED = Counter("tunesmith_progress_unanswered_total", "Requests for progress without a valid response")
ATTEMPTS = Counter(
    "tunesmith_attempts_total", "Objects created, one per launch of a job's pods", ["kind", "backend"]
)


class JobsByPhase(Collector):
    """`tunesmith_jobs{kind, phase}`, counted on request."""

    def __init__(self, look: Callable[[], Iterable[tuple[str, str]]]) -> None:
        self._look = look

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield one value per existing kind and phase."""
        family = GaugeMetricFamily("tunesmith_jobs", "Jobs by kind and phase", labels=["kind", "phase"])
        for (kind, phase), count in sorted(Tally(self._look()).items()):
            family.add_metric([kind, phase], count)
        yield family


def serve(port: int, look: Callable[[], Iterable[tuple[str, str]]]) -> None:
    """Serve /metrics from a separate thread until the process exits; port 0: not at all."""
    if port:
        REGISTRY.register(JobsByPhase(look))
        prometheus_client.start_http_server(port)
