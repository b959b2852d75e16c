"""sis imatrix, its files, and what importance does to a quantised one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from workbench import inside, refused, sis

from sis_core.errors import ContextError, FormatError
from sis_core.gguf_file import GGUFFile
from sis_core.gguf_file.writer import GGUFWriter
from sis_core.loading.weights import file_weights
from sis_core.quant import BlockFormat
from sis_core.registry import Registry
from sis_core.texts.language_model import load
from sis_core.workbench.quantizer import Importance, make_plan, quantize_file
from sis_core.workbench.quantizer.collect import NAME, counting, measure


@pytest.fixture
def registry() -> Registry:
    return Registry.load()


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("Once upon a time there was a little hen who lived in a small red house. " * 12)
    return path


def test_importance_is_the_mean_square_of_inputs(random_model: Path, registry: Registry, tmp_path: Path) -> None:
    wrapped, sums = counting(registry)
    tokens = list(range(64))
    with load(random_model, registry=wrapped, backend=NAME) as model:
        found = measure(model, sums, tokens, n_ctx=32, dataset="numbers")
        last = np.concatenate([model.hidden([256, *tokens[i + 1 : i + 32]]) for i in (0, 32)])
    mean = found.mean("output.weight", (260, 32))
    assert mean is not None
    np.testing.assert_allclose(mean[0], (last.astype(np.float64) ** 2).mean(0), rtol=1e-4)
    assert len(found.sums) == 15
    assert found.n_chunks == 2
    found.write(tmp_path / "i.gguf")
    read = Importance.read(tmp_path / "i.gguf")
    assert (read.datasets, read.n_chunks, read.chunk_size) == (("numbers",), 2, 32)
    again = read.mean("output.weight", (260, 32))
    assert again is not None
    np.testing.assert_allclose(again, mean, rtol=1e-6)
    assert read.mean("token_embd.weight", (260, 32)) is None
    with pytest.raises(FormatError, match="but the tensor has 1 × 64"):
        read.mean("output.weight", (260, 64))
    with load(random_model, registry=wrapped, backend=NAME) as model, pytest.raises(ContextError, match="fewer than"):
        measure(model, sums, tokens, n_ctx=65)


def test_imatrix_file_has_the_layout_of_llama_cpp(random_model: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "imatrix.gguf"
    done = inside("imatrix", random_model, "--text", text, "-o", out, "--ctx", 64, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tensors"] == 15
    with GGUFFile.open(out) as file:
        assert file.metadata["general.type"] == "imatrix"
        assert list(file.metadata["imatrix.datasets"]) == [b"text.txt"]  # type: ignore[arg-type]
        assert file.metadata["imatrix.chunk_size"] == 64
        assert file.tensors["blk.0.ffn_down.weight.in_sum2"].shape == (1, 64)
        assert file.tensors["blk.0.ffn_down.weight.counts"].shape == (1, 1)
    refused(inside("imatrix", random_model, "--text", text, "-o", out, "--ctx", 64), "exists already")
    short = inside("imatrix", random_model, "--text", text, "-o", tmp_path / "b.gguf", "--ctx", 100_000)
    refused(short, "fewer than one chunk of 100000")


class Weighing(BlockFormat):
    """Stores zero for columns that do not matter."""

    name, block_size, type_size = "WEIGHING", 16, 64

    def dequantize_blocks(self, blocks: Any) -> Any:
        return blocks.view(np.float32)

    def quantize_blocks(self, values: Any) -> Any:
        return np.ascontiguousarray(values).view(np.uint8)

    def quantize_weighted(self, values: Any, importance: Any) -> Any:
        return self.quantize(np.where(importance > 0, values, np.float32(0)))


def test_importance_reaches_the_format(random_model: Path, tmp_path: Path) -> None:
    class Plugin:
        from sis_core import hookimpl

        @hookimpl
        def sis_register_quant_formats(self) -> list[Any]:
            return [Weighing()]

    registry = Registry.of(Plugin())
    sums = np.ones((1, 32))
    sums[0, :7] = 0
    importance = Importance({"blk.0.attn_q.weight": sums}, {"blk.0.attn_q.weight": np.array([4.0])}, ("t",), 1, 4, "i")
    out = tmp_path / "out.gguf"
    with GGUFFile.open(random_model) as file:
        quantize_file(file, out, make_plan(file, registry, "weighing"), importance=importance)
    with GGUFFile.open(out) as file:
        weights = file_weights(file, registry)
        q, k = (weights[f"blk.0.attn_{name}.weight"].dequantize() for name in "qk")
        assert file.metadata["quantize.imatrix.chunks_count"] == 1
    assert not q[:, :7].any()
    assert q[:, 7:].all()
    assert k.all()


def test_importance_of_experts_one_by_one(tmp_path: Path) -> None:
    class Plugin:
        from sis_core import hookimpl

        @hookimpl
        def sis_register_quant_formats(self) -> list[Any]:
            return [Weighing()]

    model, out = tmp_path / "experts.gguf", tmp_path / "out.gguf"
    writer = GGUFWriter(model, {"general.architecture": "none"})
    writer.add_tensor("blk.0.ffn_up_exps.weight", (3, 20, 32), "F32", [np.ones((3, 20, 32), np.float32)])
    writer.write()
    sums = np.ones((3, 32))
    sums[1, 5] = sums[2, 6] = 0
    counts = np.array([4.0, 4.0, 4.0])
    importance = Importance({"blk.0.ffn_up_exps.weight": sums}, {"blk.0.ffn_up_exps.weight": counts})
    with GGUFFile.open(model) as file:
        quantize_file(file, out, make_plan(file, Registry.of(Plugin()), "weighing"), importance=importance)
    with GGUFFile.open(out) as file:
        values = file_weights(file, Registry.of(Plugin()))["blk.0.ffn_up_exps.weight"].dequantize()
    expected = np.ones((3, 20, 32), np.float32)
    expected[1, :, 5] = expected[2, :, 6] = 0
    np.testing.assert_array_equal(values, expected)


def test_importance_as_ggml_writes_it(tmp_path: Path) -> None:
    """ggml drops dimensions of 1, and an expert that saw nothing has a count of 0."""
    path = tmp_path / "ggml.gguf"
    writer = GGUFWriter(path, {"general.type": "imatrix"})
    writer.add_tensor("a.weight.in_sum2", (4,), "F32", [np.array([2, 4, 6, 8], np.float32)])
    writer.add_tensor("a.weight.counts", (1,), "F32", [np.array([2], np.float32)])
    writer.add_tensor("b.weight.in_sum2", (2, 4), "F32", [np.full((2, 4), 3, np.float32)])
    writer.add_tensor("b.weight.counts", (2, 1), "F32", [np.array([[3], [0]], np.float32)])
    writer.write()
    found = Importance.read(path)
    np.testing.assert_array_equal(found.mean("a.weight", (8, 4)), [[1, 2, 3, 4]])
    np.testing.assert_array_equal(found.mean("b.weight", (2, 8, 4)), np.ones((2, 4)))


def test_importance_that_is_none(random_model: Path, text: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="holds no importance"):
        Importance.read(random_model)
    done = inside("imatrix", random_model, "--text", text, "-o", tmp_path / "i.gguf", "--ctx", 64)
    assert done.returncode == 0
    done = sis("quantize", random_model, tmp_path / "o.gguf", "--to", "q8_0", "--imatrix", tmp_path / "i.gguf")
    assert "--imatrix changes nothing for Q8_0" in done.stderr
