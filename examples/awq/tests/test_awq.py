"""The contract, and columns that are multiplied beside the weight."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from sis_awq import AWQ

from sis_core.gguf_file import GGUFFile
from sis_core.quant import Weight
from sis_core.sides import Side
from sis_core.testing import QuantFormatSuite


class TestAWQ(QuantFormatSuite):
    format = AWQ()


def test_columns_that_matter_lose_less() -> None:
    """The point of it: with the largest activations in a few columns, the product is nearer."""
    random = np.random.default_rng(0)
    values = random.standard_normal((64, 256)).astype(np.float32)
    sizes = np.where(np.arange(256) % 32 == 5, 20, 1).astype(np.float32)  # of activations
    x = random.standard_normal((50, 256)).astype(np.float32) * sizes
    divided = sizes**-0.5
    plain = Weight.from_array("w", values, AWQ())
    scaled = Weight.from_array("w", values / divided, AWQ())
    errors = []
    for weight, side in ((plain, {}), (scaled, {"columns": Side(divided, "column")})):
        made = Weight("w", weight.format, weight.shape, weight.read, weight.shape, side=side)
        errors.append(np.abs(x @ made.dequantize().T - x @ values.T).mean())
    assert errors[1] < 0.75 * errors[0]


def test_the_tensor_beside_a_weight() -> None:
    assert AWQ().side_names("blk.0.ffn_down.weight")["columns"].tensor == "blk.0.ffn_down.awq_scale"


def test_a_model_runs_in_it(sis_run: Callable[..., str], sis_model_file: Path, tmp_path: Path) -> None:
    sis_run("quantize", sis_model_file, tmp_path / "out.gguf", "--to", "awq", "--pure")
    assert sis_run("generate", "-m", tmp_path / "out.gguf", "-n", 8, "--ignore-end", "Once")


def test_importance_becomes_sides(sis_run: Callable[..., str], sis_model_file: Path, tmp_path: Path) -> None:
    """The numbers for columns lie in the file, and it runs."""
    text = tmp_path / "text.txt"
    text.write_text("Once upon a time there was a little boy. " * 20)
    sis_run("imatrix", "-m", sis_model_file, "--text", text, "-o", tmp_path / "i.gguf", "--ctx", 32, "--chunks", 1)
    sis_run(
        "quantize", sis_model_file, tmp_path / "out.gguf", "--to", "awq", "--pure", "--imatrix", tmp_path / "i.gguf"
    )
    with GGUFFile.open(tmp_path / "out.gguf") as file:
        sides = [name.encode() for name in file.tensors if name.endswith(".awq_scale")]
        assert b"blk.0.ffn_down.awq_scale" in sides
        assert list(file.metadata["sis.format.AWQ.sides"]) == sorted(sides)
    assert sis_run("generate", "-m", tmp_path / "out.gguf", "-n", 8, "--ignore-end", "Once")


def test_what_columns_are_divided_by_makes_the_product_nearer() -> None:
    random = np.random.default_rng(0)
    values = random.standard_normal((64, 256)).astype(np.float32)
    weight = Weight.from_array("blk.0.ffn_down.weight", values)
    squares = np.where(np.arange(256) % 32 == 5, 400, 1).astype(np.float32)
    columns = AWQ().make_sides(weight, squares[None])["columns"]
    found = Weight.from_array("w", values / columns, AWQ()).dequantize() * columns
    plain = Weight.from_array("w", values, AWQ()).dequantize()
    assert (squares * (found - values) ** 2).sum() < 0.5 * (squares * (plain - values) ** 2).sum()
    assert AWQ().make_sides(weight, None) == {}
