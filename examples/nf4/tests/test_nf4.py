"""NF4: the contract, and the levels that the paper prints."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from sis_nf4 import LEVELS, NF4

from sis_core.testing import QuantFormatSuite

PUBLISHED = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


class TestNF4(QuantFormatSuite):
    format = NF4()


def test_levels_are_those_of_the_paper() -> None:
    np.testing.assert_allclose(LEVELS, PUBLISHED, atol=2e-7)


def test_normal_values_use_every_level_and_lose_a_tenth() -> None:
    values = np.random.default_rng(0).standard_normal((100, 640), np.float32)
    decoded = NF4().dequantize(NF4().quantize(values), 640)
    assert len(np.unique(decoded[0, :64])) > 8
    assert np.sqrt(((decoded - values) ** 2).mean()) < 0.1


def test_a_model_runs_in_it(sis_run: Callable[..., str], sis_model_file: Path, tmp_path: Path) -> None:
    sis_run("quantize", sis_model_file, tmp_path / "out.gguf", "--to", "nf4", "--pure")
    assert sis_run("generate", "-m", tmp_path / "out.gguf", "-n", 8, "--ignore-end", "Once")
