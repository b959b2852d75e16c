"""Engines that share a model in stages: both stages compute at once, and the texts are those of one engine."""

from __future__ import annotations

import queue
import threading
from typing import Any

import pytest
from sis_server.served import Served

from sis_core import LanguageModel, load
from sis_core.cluster import Cluster
from sis_core.stages.stage import Stage
from sis_core.testing.machines import Threads
from sis_core.texts.request import Piece

SECONDS = 60


class Here(Cluster):
    name = "threads"

    def join(self, address: str = "") -> Threads:
        return Threads(2)


def texts(model: LanguageModel, n_engines: int) -> list[str]:
    """Four texts at once."""
    served = Served(model, ("tiny",), cache_tokens=512, stall=None, queue_limit=8, n_engines=n_engines)
    served.engine.start()
    heard: list[queue.SimpleQueue[Piece]] = [queue.SimpleQueue() for _ in range(4)]
    found = []
    try:
        for i, outlet in enumerate(heard):
            served.engine.submit(model.request("Once", seed=i, max_tokens=12, ignore_end=True), outlet.put)
        for outlet in heard:
            found.append("")
            while (piece := outlet.get(timeout=SECONDS)).finish_reason is None:
                found[-1] += piece
        left = served.engine.submit(model.request("Once", max_tokens=200, ignore_end=True), lambda piece: None)
        assert served.engine.n_open == 1
        assert [text["id"] for text in served.engine.texts() or [{"id": left}]] == [left]
        served.engine.cancel(left)
    finally:
        served.engine.close()
    counts = served.engine.counts
    assert (counts.requests, counts.cancelled) == (5, 1)
    assert counts.generated_tokens >= 48
    return found


def test_two_batches_are_on_their_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sis_core.stages.backend.the_cluster", lambda registry: Here())
    with load(n_ctx=128, n_threads=1, batch_invariant=True) as model:
        expected = texts(model, 1)
    assert len(set(expected)) > 1
    whole, met, both = Stage.step, threading.Event(), threading.Barrier(2)

    def step(self: Stage, *arguments: Any) -> Any:
        if not met.is_set():  # until both stages have been here at the same time
            both.wait(SECONDS)
            met.set()
        return whole(self, *arguments)

    with load(n_ctx=128, n_threads=1, batch_invariant=True, stages=2) as model:
        monkeypatch.setattr(Stage, "step", step)
        first = threading.Event()

        def not_first(self: Stage, order: Any, batch: Any, hidden: Any) -> Any:
            if hidden is None and not first.is_set():  # one batch must be past the first stage before they can meet
                first.set()
                return whole(self, order, batch, hidden)
            return step(self, order, batch, hidden)

        monkeypatch.setattr(Stage, "step", not_first)
        assert texts(model, 2) == expected
    assert met.is_set()
