"""The contract, under which the C function must give what numpy gives, and powers of two that come back exactly."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from sis_pot4 import POT4

from sis_core.testing import QuantFormatSuite


class TestPOT4(QuantFormatSuite):
    format = POT4()
    max_error = 0.25  # between one power of two and the next lies much


def test_there_is_a_decoder() -> None:
    assert POT4().decoder


def test_powers_of_two_are_kept_exactly() -> None:
    values = (np.float32(2) ** -(np.arange(32) % 8) * np.where(np.arange(32) % 3, 1, -1)).astype(np.float32)[None]
    assert np.array_equal(POT4().dequantize(POT4().quantize(values), 32), values)


def test_a_model_runs_in_it(sis_run: Callable[..., str], sis_model_file: Path, tmp_path: Path) -> None:
    sis_run("quantize", sis_model_file, tmp_path / "out.gguf", "--to", "pot4", "--pure")
    assert sis_run("generate", "-m", tmp_path / "out.gguf", "-n", 8, "--ignore-end", "Once")
