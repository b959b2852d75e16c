"""The yardstick of `sis quantize`: no format that is right is far from it, and one that is wrong a little is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sis_core import Registry
from sis_core.arrays import F32
from sis_core.guarded import unpacked
from sis_core.layout import Bits, Layout, Scale
from sis_core.quant import QuantFormat
from sis_core.workbench.quantizer.plain_rounding import rounding_error
from sis_core.workbench.quantizer.read_back import PLAIN

ROOT = Path(__file__).parent.parent
HOOK = "sis_register_quant_formats"
EXAMPLES = [path for path in ROOT.glob("examples/*/sis_*.py") if HOOK in path.read_text("utf-8")]
FORMATS = [f for f in Registry.load(files=EXAMPLES).records("quant_formats") if f.can_quantize and f.layout]
RIGHT = 1.4  # the most that formats reach, with powers of two for scales
VALUES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "normal": lambda random: random.standard_normal((16, 2048)),
    "heavy tails": lambda random: random.standard_t(4, (16, 2048)),
    "heavier tails": lambda random: random.laplace(size=(16, 2048)) * np.exp(random.standard_normal((16, 1))),
    "not centred": lambda random: random.standard_normal((16, 2048)) + 0.5,
}


def relative(found: F32, wanted: F32) -> float:
    return float(np.sqrt(((found - wanted) ** 2).sum(dtype=np.float64) / (wanted**2).sum(dtype=np.float64)))


@pytest.mark.parametrize("case", VALUES)
@pytest.mark.parametrize("format", FORMATS, ids=lambda f: f.name)
def test_what_is_right_is_near(format: QuantFormat, case: str) -> None:
    values = (VALUES[case](np.random.default_rng(2)) * 0.02).astype(np.float32)
    rows = format.quantize(values)
    assert format.layout
    plain = rounding_error(format.layout, unpacked(format, rows, 2048), values)
    assert relative(format.dequantize(rows, 2048), values) < RIGHT * plain
    assert RIGHT < PLAIN


def test_how_many_share_a_scale_is_seen_in_what_was_written() -> None:
    format = next(f for f in FORMATS if f.name == "TERNARY")  # a scale for a row, where its layout says 32
    values = np.random.default_rng(2).standard_normal((16, 2048)).astype(np.float32)
    written = unpacked(format, format.quantize(values), 2048)
    assert format.layout
    size = np.abs(values).max(axis=1, keepdims=True)
    expected = relative(np.rint(values / size) * size, values)
    assert rounding_error(format.layout, written, values) == pytest.approx(expected, rel=1e-3)


def test_zeros_have_no_error() -> None:
    format = next(f for f in FORMATS if f.name == "Q4_1")
    values = np.zeros((2, 64), np.float32)
    assert format.layout
    assert rounding_error(format.layout, unpacked(format, format.quantize(values), 64), values) == 0


def test_what_codes_stand_for() -> None:
    scale, codes = Scale("f16", 0), Bits(2, 2)
    for layout, expected in (
        (Layout(2, 32, scale, zero=1, codes=codes), [-1, 0, 1, 2]),
        (Layout(2, 32, scale, scale, codes=codes), [0, 1, 2, 3]),
        (Layout(2, 32, scale, table=(3, -1, 0, 1), codes=codes), [3, -1, 0, 1]),
    ):
        np.testing.assert_array_equal(layout.code_values, expected)
    assert Layout(2, 32, scale, table="row").code_values is None
