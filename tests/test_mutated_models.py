"""A sample of what fuzz_models.py does 30,000 times: mutated models run, or are refused by a SisError."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("resource", reason="the limits of fuzz_models.py are those of Unix")

import fuzz_models
import numpy as np

from sis_core.arrays import F32
from sis_core.texts.language_model import LanguageModel


def test_a_sample_of_mutated_models(tmp_path: Path) -> None:
    outcomes = list(fuzz_models.try_cases(range(250), 11, tmp_path))
    assert not fuzz_models.failures(outcomes), fuzz_models.summary(outcomes, details=True)
    assert fuzz_models.reached(outcomes) >= 0.15, "mutations that nothing survives test only the first check"


@pytest.mark.full
def test_many_mutated_models(tmp_path: Path) -> None:
    """In processes of their own, so that a crash or a hang has a number."""
    command = [sys.executable, fuzz_models.__file__, "--count", "5000", "--seed", "12", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


def test_what_is_wrong_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that is no SisError, one that blames our plugin, and a NaN that nobody refuses are failures."""

    def embed(model: LanguageModel, texts: object) -> F32:
        if model.config.n_layer % 2:
            raise ZeroDivisionError
        return np.full((1, model.config.n_embd), np.nan, np.float32)

    monkeypatch.setattr(fuzz_models.Stepping, "embed", embed)
    outcomes = list(fuzz_models.try_cases(range(30), 0, tmp_path, ["gemma3", "llama"]))
    seen = {found["failure"].partition(":")[0] for found in fuzz_models.failures(outcomes)}
    assert seen == {"ZeroDivisionError", "Wrong"}
    assert len(list(tmp_path.glob("failure-*.gguf"))) == len(fuzz_models.failures(outcomes))
