"""What native code tells of a row of logits where only the likeliest token is wanted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sis_llama
from tiny_models import N_VOCAB, tensors, write_model

from sis_core.backends.native import runner
from sis_core.loading.model import Model
from sis_core.loading.open import open_model
from sis_core.registry import Registry
from sis_core.step import Batch, Best, Run

sis_x86 = pytest.importorskip("sis_x86", reason="sis-x86 is for x86-64")
from sis_x86.backend import X86Backend  # noqa: E402

REASON = X86Backend().idle_reason()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"the x86 backend is idle: {REASON}")


def alike(head: Any) -> None:
    head[:] = head[3]


def two_apart(head: Any) -> None:
    """One of them is the likeliest: in a whole vector, or after the last."""
    first = head[131].copy()
    head[:] = 0
    head[131], head[N_VOCAB - 1] = first, -first


def not_a_number(head: Any) -> None:
    head[200, 3] = np.nan


def infinite(head: Any) -> None:
    head[17, 3] = np.inf


def test_what_a_prompt_worked_in_is_given_back_when_it_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "LARGE", 1)
    run, at_work = runner._Scratch.run, []

    def watched(scratch: Any, *arguments: Any) -> int:
        at_work.append(0 if scratch._workspace is None else len(scratch._workspace))
        return run(scratch, *arguments)

    monkeypatch.setattr(runner._Scratch, "run", watched)
    path = write_model(tmp_path / "model.gguf")
    with open_model(Model, path, Registry.of(sis_llama, sis_x86), backend="x86") as model:
        forward: Any = model.forward

        def sizes(*rows: int) -> list[int]:
            """Bytes that each step worked in."""
            cache, found = model.new_cache(256), []
            for n in rows:
                model.step(Batch.of([5] * n, position=cache.length(0)), cache)
                found.append(at_work[-1])
            return found

        prompt, step = sizes(96, 1)
        assert step * 8 < prompt  # at once: weights are being packed
        for _ in range(500):
            if forward._store.waiting:
                sizes(96, 1)
        assert not forward._store.waiting
        found = sizes(96, *[1] * (runner.PATIENCE + 1), 96)
        assert found[:-2] == found[:1] * (runner.PATIENCE + 1)
        assert found[-2] * 8 < found[-1] <= prompt  # which was taken for as many rows as a step may have


@pytest.mark.parametrize("change", [lambda head: None, alike, two_apart, not_a_number, infinite])
def test_the_best_of_each_row(change: Callable[[Any], None], tmp_path: Path) -> None:
    weights = tensors()
    change(weights["output.weight"])
    path = write_model(tmp_path / "model.gguf", None, weights)
    with open_model(Model, path, Registry.of(sis_llama, sis_x86), backend="x86") as model:
        batch = Batch([5, 6, 7, 8, 9], (Run(0, 0, 3), Run(1, 0, 2)), [0, 2, 4])
        values = model.step(batch, model.new_cache(64)).values
        wanted = [Best.of(row) for row in values]
        greedy = Batch(batch.tokens, batch.runs, batch.outputs, greedy=True)
        for _ in range(2):
            found = model.step(greedy, model.new_cache(64))
            assert not found.values.size
            if change is not_a_number:  # whose token nobody may use
                assert np.isnan([best[1:] for best in found.best]).all()
            else:
                np.testing.assert_array_equal(np.array(found.best), np.array(wanted))
        assert np.isfinite(np.array(wanted)).all() == (change not in (not_a_number, infinite))
        hidden = Batch(batch.tokens, batch.runs, batch.outputs, want="hidden", greedy=True)
        assert model.step(hidden, model.new_cache(64)).values.shape == (3, 32)
