"""Whole models of every family: one native call a step, and the logits of the reference."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import random_model
from shapes import SHAPES

from sis_core.backend import BackendOptions
from sis_core.errors import SisError
from sis_core.loading.model import Model
from sis_core.loading.open import open_model
from sis_core.registry import Registry
from sis_core.step import Batch

sis_x86 = pytest.importorskip("sis_x86", reason="sis-x86 is for x86-64")
from sis_x86.backend import X86Backend  # noqa: E402

REASON = X86Backend().idle_reason()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"the x86 backend is idle: {REASON}")
REGISTRY = Registry.load() if REASON is None else Registry.of()

# The largest error of a logit over the largest logit. Floats differ by the order of sums alone. Integer kernels see
# activations in 8 bits, as llama.cpp's do; the random models are sharper than trained ones.
TOLERANCE = {"F32": 1e-4, "Q8_0": 0.15}


@pytest.mark.parametrize("file_type", list(TOLERANCE))
@pytest.mark.parametrize("shape", SHAPES)
def test_a_family_keeps_its_grain_and_its_logits(shape: str, file_type: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    random_model.write_model(SHAPES[shape].scaled_down(), path, file_type=file_type, seed=3)
    options = BackendOptions(kv_type="f32", n_threads=2)
    with (
        open_model(Model, path, REGISTRY, backend="numpy", options=options) as reference,
        open_model(Model, path, REGISTRY, backend="x86", options=options) as model,
    ):
        assert set(model.grains) == {"x86 forward"}, f"{shape} runs as {model.grains}"
        ids = np.random.default_rng(8).integers(0, model.network.n_vocab, 60)
        wanted = reference.step(Batch.of(ids, outputs=range(60)), reference.new_cache(64)).values
        cache = model.new_cache(64)
        first = model.step(Batch.of(ids[:37], outputs=range(37)), cache).values
        rest = [model.step(Batch.of([t], position=37 + i), cache).values for i, t in enumerate(ids[37:].tolist())]
        error = np.abs(np.concatenate([first, *rest]) - wanted).max() / np.abs(wanted).max()
        assert error <= TOLERANCE[file_type], f"{shape} {file_type}: {error:.2g}"


@pytest.mark.parametrize("kv_type", ["f32", "f16"])
def test_a_real_model_word_by_word(test_data: Path, kv_type: str) -> None:
    path = test_data / "models" / "stories260K.gguf"
    golden = json.loads((test_data / "models" / "goldens.json").read_text())["stories260K (f32) BOS only, 200 steps"]
    ids = golden["greedy_ids"]
    with open_model(Model, path, REGISTRY, backend="x86", options=BackendOptions(kv_type=kv_type)) as model:
        cache = model.new_cache(256)
        for i, (token, following) in enumerate(itertools.pairwise(ids)):
            logits = model.step(Batch.of([token], position=i), cache).values[0]
            assert int(logits.argmax()) == following, f"token {i + 1}"


def test_a_wrong_machine_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    path = tmp_path / "model.gguf"
    random_model.write_model(SHAPES["gpt2"].scaled_down(), path)
    with pytest.raises(SisError, match="backend x86: cannot work here: this machine is riscv64, not x86_64"):
        open_model(Model, path, REGISTRY, backend="x86")
