"""The contract, and the numbers that the specification lists."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from sis_mxfp6 import MXFP6

from sis_core.testing import QuantFormatSuite


class TestMXFP6(QuantFormatSuite):
    format = MXFP6()


def test_numbers_of_the_specification_come_back() -> None:
    sizes = np.array([0, 0.125, 0.875, 1, 1.875, 2, 3.75, 4, 7.5], np.float32)  # table 4 of the specification
    values = np.zeros((3, 32), np.float32)
    values[:, :9], values[:, 9:18] = sizes, -sizes
    values *= np.array([[1], [2.0**-30], [2.0**40]], np.float32)
    assert np.array_equal(MXFP6().dequantize(MXFP6().quantize(values), 32), values)


def test_a_model_runs_in_it(sis_run: Callable[..., str], sis_model_file: Path, tmp_path: Path) -> None:
    sis_run("quantize", sis_model_file, tmp_path / "out.gguf", "--to", "MXFP6_E2M3", "--pure")
    assert sis_run("generate", "-m", tmp_path / "out.gguf", "-n", 8, "--ignore-end", "Once")
