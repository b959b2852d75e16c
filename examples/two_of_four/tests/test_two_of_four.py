"""The contract, and a matrix that was pruned to two of four."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from sis_two_of_four import TwoOfFour

from sis_core.testing import QuantFormatSuite


class TestTwoOfFour(QuantFormatSuite):
    format = TwoOfFour()
    max_error = 0.6  # half of the values become zero


def test_pruned_weights_are_kept() -> None:
    random = np.random.default_rng(0)
    places = np.argsort(random.random((3, 32, 4)), axis=2)[:, :, :2]
    values = np.zeros((3, 32, 4), np.float32)
    np.put_along_axis(values, places, random.integers(1, 8, places.shape).astype(np.float32), axis=2)
    values[:, ::8, :] = [7, 0, 0, -7]  # so that every block's scale is 1
    values = values.reshape(3, 128)
    assert np.array_equal(TwoOfFour().dequantize(TwoOfFour().quantize(values), 128), values)


def test_a_model_runs_in_it(sis_run: Callable[..., str], sis_model_file: Path, tmp_path: Path) -> None:
    sis_run("quantize", sis_model_file, tmp_path / "out.gguf", "--to", "two_of_four", "--pure")
    assert sis_run("generate", "-m", tmp_path / "out.gguf", "-n", 8, "--ignore-end", "Once")
