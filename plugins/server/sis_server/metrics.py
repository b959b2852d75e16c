"""What Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sis_server.engine import Counts, Engine
from sis_server.engines import Engines

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
    "rows_ahead": "Rows of steps that were fed before their tokens were chosen.",
    "rows_wasted": "Those of them whose tokens were not chosen.",
}
_BY_DRAFTER = {
    "guessed": "Tokens that a drafter guessed and that were fed.",
    "guessed_right": "Those that were chosen.",
}


@frozen
class Waits:
    """How long the clients of a model waited."""

    first_token: Histogram
    gap: Histogram


class Metrics:
    """Counts of engines, and how long their clients waited, by the ids of models. Any thread may use it."""

    def __init__(self) -> None:
        self._registry, self._counts = CollectorRegistry(), _Counts()
        self._registry.register(self._counts)
        buckets = (0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)

        def histogram(name: str, about: str) -> Histogram:
            return Histogram(name, about, ["model"], registry=self._registry, buckets=buckets)

        self._first_token = histogram("sis_first_token_seconds", "From a request to its first token.")
        self._gap = histogram("sis_token_gap_seconds", "Between two pieces of a reply.")

    def watch(self, id: str, engine: Engine | Engines) -> Waits:
        """Count what an engine does for a model."""
        self._counts.engines[engine] = id
        return Waits(self._first_token.labels(id), self._gap.labels(id))

    def forget(self, id: str, engine: Engine | Engines) -> None:
        """Keep what an engine has done that has ended. Twice is no error."""
        if self._counts.engines.pop(engine, None) is not None:
            self._counts.ended[id] = self._counts.ended.get(id, Counts()).added(engine.counts)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self._registry)


class _Counts(Collector):
    def __init__(self) -> None:
        self.engines: dict[Engine | Engines, str] = {}
        self.ended: dict[str, Counts] = {}

    def collect(self) -> Iterable[Metric]:
        engines, sums = list(self.engines.items()), dict(self.ended)
        running = GaugeMetricFamily("sis_requests_running", "Texts that are computed.", labels=["model"])
        waiting = GaugeMetricFamily("sis_requests_waiting", "Texts that wait for room.", labels=["model"])
        for engine, id in engines:
            sums[id] = sums.get(id, Counts()).added(engine.counts)
            running.add_metric([id], engine.n_running)
            waiting.add_metric([id], max(0, engine.n_open - engine.n_running))
        for name, about in _HELP.items():
            family = CounterMetricFamily(f"sis_{name}", about, labels=["model"])
            for id, counts in sums.items():
                family.add_metric([id], getattr(counts, name))
            yield family
        for name, about in _BY_DRAFTER.items():
            family = CounterMetricFamily(f"sis_{name}", about, labels=["model", "drafter"])
            for id, counts in sums.items():
                for drafter, n in getattr(counts, name).items():
                    family.add_metric([id, drafter], n)
            yield family
        yield running
        yield waiting
