"""Files that people have: what others' tools leave in them runs, or is named for what it is."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sis_llama
import sis_qwen
import sis_samplers
import sis_tokenizers
import tiny_models
from click.testing import CliRunner

import sis_core
from sis_core.cli.main import group
from sis_core.errors import ModelError
from sis_core.gguf_file.writer import GGUFWriter
from sis_core.loading.model import Model
from sis_core.loading.open import open_model
from sis_core.registry import Registry


def write(path: Path, extra: dict[str, np.ndarray[Any, Any]] | None = None, **changes: Any) -> Path:
    return tiny_models.write_model(
        path / "model.gguf", tiny_models.metadata(**changes), tiny_models.tensors() | (extra or {})
    )


def opened(path: Path, **options: Any) -> Model:
    return open_model(Model, path, Registry.of(sis_llama, sis_qwen, sis_tokenizers), backend="numpy", **options)


@pytest.mark.parametrize(
    "keys",
    [
        {"llama__use_parallel_residual": True},
        {"llama__rope__freq_base": None, "llama__rope__global__freq_base": 10000.0},
        {"llama__rope__scaling__beta_fast": 32.0, "llama__rope__scaling__beta_slow": 1.0},
        {"llama__logit_scale": 1.0, "llama__residual_scale": 1.0},
        {"split__count": 0, "split__no": 0},
    ],
    ids=lambda keys: next(iter(keys)),
)
def test_keys_that_ask_for_nothing(keys: dict[str, Any], tmp_path: Path) -> None:
    with opened(write(tmp_path, **keys)) as model:
        assert model.degraded == 0


def test_an_original_context_of_one_token_is_no_crash(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"rope_factors_long\.weight .* is missing"):
        opened(write(tmp_path, llama__rope__scaling__original_context_length=1))


def test_a_scalar_tensor_is_refused_as_unused(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "model.gguf", tiny_models.metadata())
    for name, array in tiny_models.tensors().items():
        writer.add_tensor(name, array.shape, "F32", [np.ascontiguousarray(array)])
    writer.add_tensor("scale", (), "F32", [np.ones(1, np.float32)], n_bytes=4)
    writer.write()
    with pytest.raises(ModelError, match="no use for tensor scale"):
        opened(tmp_path / "model.gguf")


def test_a_key_passed_over_makes_the_result_degraded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, llama__clever__trick=2)
    with pytest.raises(ModelError, match=r"llama\.clever\.trick asks for.*--ignore-key llama\.clever\.trick"):
        opened(path)
    registry = Registry.of(sis_llama, sis_samplers, sis_tokenizers)
    with sis_core.load(path, registry=registry, backend="numpy", ignore_keys=["llama.clever.trick"]) as model:
        assert "passed over because you said so: llama.clever.trick" in caplog.text
        assert [piece.degraded for piece in model.generate("he", max_tokens=1)] == [True]


def test_keys_beyond_float16_move_the_cache_to_bf16(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = {key.replace("llama.", "qwen2."): value for key, value in tiny_models.metadata().items()}
    values["general.architecture"] = "qwen2"
    weights: dict[str, Any] = tiny_models.tensors()
    for i in range(2):
        for part, n in (("q", 32), ("k", 16), ("v", 16)):
            weights[f"blk.{i}.attn_{part}.bias"] = np.full(n, 60000.0 if part == "k" else 0.0, np.float32)
    path = tiny_models.write_model(tmp_path / "model.gguf", values, weights)
    with opened(path) as model:
        assert model.options.kv_type == "bf16"
        assert "the cache is kept in bf16" in caplog.text
        from sis_core.texts.session import Session

        with Session(model) as session:
            assert np.isfinite(session.feed([1, 2, 3])).all()


def test_degrade_makes_no_model_of_a_small_file_that_claims_many_layers(tmp_path: Path) -> None:
    path = write(tmp_path, llama__block_count=10_000)
    with pytest.raises(ModelError, match="block_count is 10000, but there are no tensors for layer 2"):
        opened(path, degrade=True)


def test_usual_files_are_quiet(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, llama__rope__dimension_count=None, llama__attention__head_count_kv=None,
                 llama__rope__freq_base=None)  # fmt: skip
    caplog.set_level(logging.WARNING)
    with pytest.raises(ModelError, match="attn_k"):  # four key heads then, as the file says no other number
        opened(path)
    assert caplog.messages == []


def test_ids_need_no_vocabulary(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, tokenizer__ggml__pre="unheard-of")
    registry = Registry.of(sis_llama, sis_samplers, sis_tokenizers)
    with sis_core.load(path, registry=registry, backend="numpy") as model:
        pieces = list(model.generate([1, 2, 3], sampler="greedy", max_tokens=4))
        assert len(pieces) == 4
        assert all(piece == "" and piece.token is not None for piece in pieces)
        assert caplog.text.count("texts are token ids alone") == 1
        with pytest.raises(sis_core.SisError, match="unknown pre-tokenizer 'unheard-of'"):
            list(model.generate("text"))


def test_numpy_for_want_of_kernels_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for machine, package in (("x86_64", "sis-x86"), ("arm64", "sis-neon")):
        monkeypatch.setattr("platform.machine", lambda machine=machine: machine)
        caplog.clear()
        with open_model(Model, write(tmp_path), Registry.of(sis_llama)):
            assert f"kernels for this machine come with `pip install {package}`" in caplog.text
        monkeypatch.setattr("sis_core.cli.doctor.registry_of", lambda *_, **__: Registry.of(sis_llama))
        assert f"come with `pip install {package}`" in CliRunner().invoke(group, ["doctor"]).output
    caplog.clear()
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with open_model(Model, write(tmp_path), Registry.of(sis_llama)):
        assert caplog.text == ""
    with opened(write(tmp_path)):  # by name: the user knows
        assert caplog.text == ""
