"""The contract, and a model trained in 1.58 bits, whose weights come back exactly."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from sis_ternary import Ternary

from sis_core.testing import QuantFormatSuite


class TestTernary(QuantFormatSuite):
    format = Ternary()


def test_ternary_weights_are_kept_exactly() -> None:
    random = np.random.default_rng(0)
    scales = np.array([[0.25], [3], [0.001953125]], np.float32)
    values = random.integers(-1, 2, (3, 224)).astype(np.float32) * scales  # 224 is no multiple of 5
    format = Ternary()
    assert np.array_equal(format.dequantize(format.quantize(values), 224), values)
    assert format.row_bytes(224) == 2 + 45


def test_a_model_runs_in_it(sis_run: Callable[..., str], sis_model_file: Path, tmp_path: Path) -> None:
    sis_run("quantize", sis_model_file, tmp_path / "out.gguf", "--to", "ternary", "--pure")
    assert sis_run("generate", "-m", tmp_path / "out.gguf", "-n", 8, "--ignore-end", "Once")
