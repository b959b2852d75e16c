"""The contract, and what the splitting is for: groups with outliers lose less than with the range's own zero point."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sis_hqq
from sis_hqq import HQQ3, HQQ4

from sis_core.testing import QuantFormatSuite


class TestHQQ4(QuantFormatSuite):
    format = HQQ4()


class TestHQQ3(QuantFormatSuite):
    format = HQQ3()


@pytest.mark.parametrize("format", [HQQ4(), HQQ3()])
def test_the_splitting_lowers_the_error_that_it_minimises(format: HQQ4, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).laplace(size=(200, 64)).astype(np.float32)

    def error() -> float:
        return float((np.abs(format.dequantize(format.quantize(values), 64) - values) ** sis_hqq.P).mean())

    found = error()
    monkeypatch.setattr(sis_hqq, "ROUNDS", 0)
    assert found < error()


@pytest.mark.parametrize("name", ["hqq4", "hqq3"])
def test_a_model_runs_in_it(name: str, sis_run: Callable[..., str], sis_model_file: Path, tmp_path: Path) -> None:
    sis_run("quantize", sis_model_file, tmp_path / "out.gguf", "--to", name, "--pure")
    assert sis_run("generate", "-m", tmp_path / "out.gguf", "-n", 8, "--ignore-end", "Once")
