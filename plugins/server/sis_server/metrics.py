"""What Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import asdict
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sis_server.engine import Engine

_HELP = {
    "requests": "Requests taken.",
    "refused": "Requests refused because too many waited.",
    "cancelled": "Requests whose client left.",
    "failed": "Requests that ended with an error.",
    "prompt_tokens": "Tokens of prompts.",
    "cached_tokens": "Tokens of prompts that were known.",
    "generated_tokens": "Tokens generated.",
    "steps": "Steps of the model.",
    "step_seconds": "Seconds in steps of the model.",
}


class Metrics:
    """Counts of an engine, and how long its clients waited."""

    def __init__(self, engine: Engine) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Counts(engine))
        buckets = (0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
        self.first_token = Histogram(
            "sis_first_token_seconds", "From a request to its first token.", registry=self._registry, buckets=buckets
        )
        self.gap = Histogram(
            "sis_token_gap_seconds", "Between two pieces of a reply.", registry=self._registry, buckets=buckets
        )

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self._registry)


class _Counts(Collector):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterable[Metric]:
        for name, value in asdict(self._engine.counts).items():
            yield CounterMetricFamily(f"sis_{name}", _HELP[name], value=value)
        yield GaugeMetricFamily("sis_requests_running", "Texts that are computed.", value=self._engine.n_running)
        waiting = max(0, self._engine.n_open - self._engine.n_running)
        yield GaugeMetricFamily("sis_requests_waiting", "Texts that wait for room.", value=waiting)
