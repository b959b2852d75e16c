"""Engines that share a model in stages: both stages compute at once, and the texts are those of one engine."""

from __future__ import annotations

import json
import queue
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sis_server.batch.command import command as batch
from sis_server.command import command as serve
from sis_server.models import Models
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


@pytest.fixture
def met(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Stages on threads, which wait until both compute at the same time; set when they did."""
    monkeypatch.setattr("sis_core.stages.backend.the_cluster", lambda registry: Here())
    whole, first, found, both = Stage.step, threading.Event(), threading.Event(), threading.Barrier(2)

    def step(self: Stage, order: Any, batch: Any, hidden: Any) -> Any:
        if hidden is None and not first.is_set():  # one batch must be past the first stage before they can meet
            first.set()
        elif not found.is_set():
            both.wait(SECONDS)
            found.set()
        return whole(self, order, batch, hidden)

    monkeypatch.setattr(Stage, "step", step)
    return found


def test_two_batches_are_on_their_way(met: threading.Event) -> None:
    with load(n_ctx=128, n_threads=1, batch_invariant=True) as model:
        expected = texts(model, 1)
    assert len(set(expected)) > 1
    with load(n_ctx=128, n_threads=1, batch_invariant=True, stages=2) as model:
        assert texts(model, 2) == expected
    assert met.is_set()


def test_so_has_a_batch(met: threading.Event, tmp_path: Path) -> None:
    bodies = [{"prompt": "Once upon", "max_tokens": 4 + i} for i in range(6)]
    asked = [{"custom_id": str(i), "method": "POST", "url": "/v1/completions", "body": b} for i, b in enumerate(bodies)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(each) + "\n" for each in asked))
    found = []
    for stages in ("1", "2"):
        arguments = [str(tmp_path / "in.jsonl"), str(tmp_path / stages), "--ctx", "128", "-t", "1", "--stages", stages]
        done = CliRunner().invoke(batch, arguments)
        assert done.exit_code == 0, done.output
        found.append((tmp_path / stages).read_bytes())
        assert met.is_set() is (stages == "2")
    assert found[0] == found[1]


def test_so_has_a_server(met: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    engines = []

    def run(models: Models, *_: Any) -> None:
        engines.extend(served.engine for served in models.served())

    monkeypatch.setattr("sis_server.running.run", run)
    done = CliRunner().invoke(serve, ["--port", "0", "--ctx", "128", "-t", "1", "--stages", "2"])
    assert done.exit_code == 0, done.output
    assert [len(engine._engines) for engine in engines] == [2]
