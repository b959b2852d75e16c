"""The contract, and what a codebook is for: values that are few, and spread unevenly, come back exactly."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from sis_codebook4 import HEADER, Codebook4

from sis_core.testing import QuantFormatSuite


class TestCodebook4(QuantFormatSuite):
    format = Codebook4()


def test_few_values_in_odd_places_are_kept() -> None:
    places = np.array([-127, -126, -90, -3, -2, -1, 0, 1, 2, 64, 100, 127], np.float32) / 127
    values = places[np.arange(256) % len(places)][None]
    decoded = Codebook4().dequantize(Codebook4().quantize(values), 256)
    np.testing.assert_allclose(decoded, values, atol=2e-3)


def test_a_row_is_a_header_and_half_a_byte_for_each_value() -> None:
    assert Codebook4().row_bytes(256) == HEADER + 128


def test_a_model_runs_in_it(sis_run: Callable[..., str], sis_model_file: Path, tmp_path: Path) -> None:
    sis_run("quantize", sis_model_file, tmp_path / "out.gguf", "--to", "codebook4", "--pure")
    assert sis_run("generate", "-m", tmp_path / "out.gguf", "-n", 8, "--ignore-end", "Once")
