"""Side tensors: sliced with their weight, claimed by its format, and part of all that is computed with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from attrs import evolve

from sis_core import Registry, load
from sis_core.arrays import F32, I32
from sis_core.errors import FormatError, ModelError
from sis_core.gguf_file import GGUFFile
from sis_core.gguf_file.writer import GGUFWriter
from sis_core.loading.weights import file_weights
from sis_core.quant import F32Format, Weight
from sis_core.sides import Side
from sis_core.tensors import reordered
from sis_core.workbench.quantizer import make_plan

REGISTRY = Registry.load()
NVFP4 = REGISTRY.get("quant_formats", "NVFP4")


def f32(*values: float) -> F32:
    return np.array(values, np.float32)


def stack(**sides: Side) -> Weight:
    """Three experts of two rows of four values, all ones."""
    return evolve(Weight.from_array("w", np.ones((3, 2, 4), np.float32)), side=sides)


def test_sides_multiply_whatever_is_decoded() -> None:
    weight = stack(
        all=Side(f32(10), "tensor"), e=Side(f32(1, 2, 3), "expert"), r=Side(f32(1, 1, 1, 1, 1, 5), "row"),
        c=Side(f32(1, 2, 3, 4), "column"),
    )  # fmt: skip
    wanted = 10 * f32(1, 1, 2, 2, 3, 15)[:, None] * f32(1, 2, 3, 4)
    assert weight.dequantize().reshape(6, 4).tolist() == wanted.tolist()
    assert weight.take(np.array([5, 0])).tolist() == wanted[[5, 0]].tolist()
    assert np.concatenate([panel for _, panel in weight.panels()]).tolist() == wanted.tolist()
    assert weight.rows(1, 6).dequantize().tolist() == wanted[1:].tolist()
    assert weight.rows(2, 6).rows(1, 3).dequantize().tolist() == wanted[3:5].tolist()
    assert weight.expert(1).dequantize().tolist() == wanted[2:4].tolist()
    assert weight.cols(1, 3).dequantize().reshape(6, 2).tolist() == wanted[:, 1:3].tolist()


def test_rows_in_another_order_keep_their_own() -> None:
    weight = evolve(Weight.from_array("w", np.ones((3, 2), np.float32)), side={"r": Side(f32(1, 2, 3), "row")})
    order: I32 = np.array([2, 0, 1], np.int32)
    assert reordered(weight, order).dequantize()[:, 0].tolist() == [3, 1, 2]


def blocks(random: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, F32]:
    """Random rows in NVFP4, with scales of ordinary size, and their values."""
    rows = random.integers(0, 256, (int(np.prod(shape[:-1])), shape[-1] // 64, 36), np.uint8)
    rows[:, :, :4] = random.integers(0x28, 0x40, rows[:, :, :4].shape)
    rows = rows.reshape(len(rows), -1)
    return rows, NVFP4.dequantize(rows, shape[-1])


@pytest.fixture
def two_files(tmp_path: Path) -> tuple[Path, Path]:
    """One model twice: matrices in NVFP4 with scales beside them, and in F32."""
    random = np.random.default_rng(1)
    values = tiny_models.metadata(
        llama__embedding_length=64, llama__feed_forward_length=128, llama__rope__dimension_count=16
    )
    paths = tmp_path / "nvfp4.gguf", tmp_path / "f32.gguf"
    ours, theirs = (GGUFWriter(path, values) for path in paths)

    def plain(name: str, array: F32, *writers: GGUFWriter) -> None:
        for writer in writers:
            writer.add_tensor(name, array.shape, "F32", [np.ascontiguousarray(array)])

    normal = random.standard_normal
    plain("token_embd.weight", normal((260, 64)).astype(np.float32), ours, theirs)
    plain("output_norm.weight", np.ones(64, np.float32), ours, theirs)
    shapes = {"attn_q": (64, 64), "attn_k": (32, 64), "attn_v": (32, 64), "attn_output": (64, 64)}
    shapes |= {"ffn_gate": (128, 64), "ffn_up": (128, 64), "ffn_down": (64, 128)}
    for i in range(2):
        plain(f"blk.{i}.attn_norm.weight", np.ones(64, np.float32), ours, theirs)
        plain(f"blk.{i}.ffn_norm.weight", np.ones(64, np.float32), ours, theirs)
        for name, shape in shapes.items():
            rows, decoded = blocks(random, shape)
            scale = np.float32(random.uniform(0.02, 0.06))
            ours.add_tensor(f"blk.{i}.{name}.weight", shape, "NVFP4", [rows])
            plain(f"blk.{i}.{name}.scale", np.array([scale]), ours)
            plain(f"blk.{i}.{name}.input_scale", f32(7), ours)
            plain(f"blk.{i}.{name}.weight", decoded * scale, theirs)
    ours.write()
    theirs.write()
    return paths


def logits(path: Path, backend: str | None) -> F32:
    with load(path, backend=backend) as model:
        return model.logits([1, 2, 3, 4, 5])


@pytest.mark.parametrize("backend", ["numpy", None])
def test_nvfp4_with_its_scales_is_the_model_in_f32(two_files: tuple[Path, Path], backend: Any) -> None:
    found, wanted = logits(two_files[0], backend), logits(two_files[1], "numpy")
    assert np.abs(found - wanted).max() < (1e-5 if backend else 2e-2) * np.abs(wanted).max()


def test_a_scale_of_another_shape_is_refused(tmp_path: Path) -> None:
    rows, _ = blocks(np.random.default_rng(0), (4, 64))
    writer = GGUFWriter(tmp_path / "bad.gguf", tiny_models.metadata())
    writer.add_tensor("blk.0.ffn_up.weight", (4, 64), "NVFP4", [rows])
    writer.add_tensor("blk.0.ffn_up.scale", (2,), "F32", [f32(1, 2)])
    writer.write()
    wrong = pytest.raises(FormatError, match=r"blk.0.ffn_up.scale.*not 1 plain numbers, one for each tensor")
    with GGUFFile.open(tmp_path / "bad.gguf") as file, wrong:
        file_weights(file, REGISTRY)


def nvfp4_file(path: Path, shape: tuple[int, ...], name: str, scales: F32) -> Path:
    writer = GGUFWriter(path, tiny_models.metadata())
    writer.add_tensor(f"{name}.weight", shape, "NVFP4", [blocks(np.random.default_rng(0), shape)[0]])
    writer.add_tensor(f"{name}.scale", scales.shape, "F32", [scales])
    writer.write()
    return path


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 0.0])
def test_a_scale_that_makes_nothing_of_a_weight_is_refused(tmp_path: Path, number: float) -> None:
    path = nvfp4_file(tmp_path / "bad.gguf", (4, 64), "blk.0.ffn_up", f32(number))
    with GGUFFile.open(path) as file, pytest.raises(FormatError) as refused:
        file_weights(file, REGISTRY)
    assert f"blk.0.ffn_up.scale is {number} at index 0" in str(refused.value)
    assert "bad.gguf: tensor blk.0.ffn_up.weight" in str(refused.value)


def test_an_expert_may_be_all_zeros_but_not_nan(tmp_path: Path) -> None:
    path = nvfp4_file(tmp_path / "zero.gguf", (3, 2, 64), "blk.0.ffn_up_exps", f32(1, 0, 2))
    with GGUFFile.open(path) as file:
        assert not file_weights(file, REGISTRY)["blk.0.ffn_up_exps.weight"].expert(1).dequantize().any()
    path = nvfp4_file(tmp_path / "nan.gguf", (3, 2, 64), "blk.0.ffn_up_exps", f32(1, 0, np.nan))
    with (
        GGUFFile.open(path) as file,
        pytest.raises(FormatError, match=r"exps.scale is nan at index 2; .* must be finite\. Convert"),
    ):
        file_weights(file, REGISTRY)


def test_scales_of_a_format_that_has_none_are_refused(tmp_path: Path) -> None:
    weights = tiny_models.tensors() | {"blk.0.ffn_up.scale": f32(2)}
    with pytest.raises(ModelError, match=r"no use for tensor blk\.0.ffn_up.scale"):
        load(tiny_models.write_model(tmp_path / "model.gguf", weights=weights))


def test_encoding_anew_leaves_no_scales_behind(two_files: tuple[Path, Path]) -> None:
    with GGUFFile.open(two_files[0]) as file:
        plan = make_plan(file, REGISTRY, "Q8_0", requantize=True, pure=True)
        names = {tensor.name for tensor in plan.tensors}
    assert "blk.0.ffn_up.weight" in names
    assert not any(name.endswith("scale") for name in names)


def test_views_with_other_sides_are_other_weights() -> None:
    from sis_core.backends.native.weights import key

    weight = Weight.of("w", F32Format(), (2, 2), lambda: np.zeros(16, np.uint8))
    ones, twos = (evolve(weight, side={"s": Side(f32(number), "tensor")}) for number in (1, 2))
    assert key(weight) != key(ones) != key(twos)
    assert key(ones) == key(evolve(weight, side={"s": Side(f32(1), "tensor")}))
