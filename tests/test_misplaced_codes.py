"""The kit's look at which codes are the nearest: it names scales that are off by one, and nothing in a right format."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from sis_core import Registry
from sis_core.arrays import F32, U8
from sis_core.layout import Bits, Layout, Scale
from sis_core.quant import BlockFormat, QuantFormat
from sis_core.testing import check_quant_format
from sis_core.testing.misplaced_codes import misread
from sis_core.testing.refitted_scales import scales_of_others

ROOT = Path(__file__).parent.parent
HOOK = "sis_register_quant_formats"
EXAMPLES = [path for path in ROOT.glob("examples/*/sis_*.py") if HOOK in path.read_text("utf-8")]
FORMATS = [f for f in Registry.load(files=EXAMPLES).records("quant_formats") if f.can_quantize and f.layout]


def side_by_side(numbers: Any, bits: int) -> U8:
    """Numbers ``(n, m)`` of so many bits, the first in the lowest ones."""
    each = np.unpackbits(np.asarray(numbers, np.uint8)[:, :, None], axis=2, count=bits, bitorder="little")
    return np.packbits(each.reshape(len(each), -1), axis=1, bitorder="little")


def halves(values: F32) -> Any:
    return np.clip(values, 0, 65504).astype("<f2")


def divisors(scales: Any) -> F32:
    return np.where(scales > 0, scales, 1).astype(np.float32)


class TwoLevels(BlockFormat):
    """Groups of 16 with whole scales, and perhaps minima, times a half for each 128 values."""

    name, block_size = "TWO_LEVELS", 128
    bits: ClassVar[int] = 4
    of_scales: ClassVar[int] = 6
    with_minima: ClassVar[bool] = True
    rounds: ClassVar[Any] = np.rint
    before: ClassVar[bool] = False  # whether codes are chosen before scales are rounded

    def quantize_blocks(self, values: F32) -> U8:
        self.check_values(values, finite=True)
        groups, last, most = values.reshape(-1, 8, 16), (1 << self.bits) - 1, (1 << self.of_scales) - 1
        least = np.maximum(-groups.min(2), 0) if self.with_minima else np.zeros(groups.shape[:2], np.float32)
        zero = 0 if self.with_minima else 1 << (self.bits - 1)
        reach = np.maximum(groups.max(2), 0) / last + least / last if self.with_minima else np.abs(groups).max(2) / zero
        (upper, lower, scales), (upper_min, lower_min, minima) = (self.levels(some, most) for some in (reach, least))
        own = reach if self.before else scales
        steps = np.rint((groups + minima[:, :, None]) / divisors(own)[:, :, None]) + zero
        codes = np.clip(steps, 0, last).reshape(len(values), 128)
        written = [upper.view(np.uint8), side_by_side(lower, self.of_scales)]
        if self.with_minima:
            written += [upper_min.view(np.uint8), side_by_side(lower_min, self.of_scales)]
        return np.hstack([*written, side_by_side(codes, self.bits)])

    def levels(self, numbers: F32, most: int) -> tuple[Any, F32, F32]:
        upper = halves(numbers.max(1, keepdims=True) / most)
        lower = np.clip(self.rounds(numbers / divisors(upper)), 0, most)
        return upper, lower, lower * upper.astype(np.float32)


def two_levels(bits: int, of_scales: int, minima: bool, less: int = 0, less_of_minima: int = 0, **more: Any) -> Any:
    size = 2 + of_scales
    scale = Scale("uint", Bits(2, of_scales), less=less, times=Scale("f16", 0, per=128))
    of_minima = Scale("f16", size, per=128)
    minimum = Scale("uint", Bits(size + 2, of_scales), less=less_of_minima, factor=-1, times=of_minima)
    layout = Layout(
        bits, 16, scale, minimum if minima else None, zero=0 if minima else 1 << (bits - 1),
        codes=Bits((1 + minima) * size, bits),
    )  # fmt: skip
    members = {
        "layout": layout, "type_size": (1 + minima) * size + 16 * bits, "bits": bits, "of_scales": of_scales,
        "with_minima": minima, **more,
    }  # fmt: skip
    return type("TwoLevels", (TwoLevels,), members)()


def apart(random: np.random.Generator, n_cols: int, size: int) -> F32:
    sizes = np.repeat(2.0 ** -random.integers(0, 6, (64, n_cols // size)), size, axis=1)
    return (random.standard_normal((64, n_cols)) * sizes).astype(np.float32)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("format", FORMATS, ids=lambda f: f.name)
def test_nothing_is_said_of_formats_that_are_right(format: QuantFormat, seed: int) -> None:
    random, n_cols = np.random.default_rng(seed), max(2, 512 // format.block_size) * format.block_size
    assert format.layout
    for size in (8, format.layout.group, n_cols):
        values = apart(random, n_cols, size)
        rows = format.quantize(values)
        assert not misread(format, rows, values)
        if size == 8:
            assert not scales_of_others(format, rows, values)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(2, 8), st.sampled_from([3, 4, 6, 8]), st.booleans(), st.booleans(), st.integers(0, 2**16),
    st.sampled_from([np.rint, np.ceil, np.floor]),
)  # fmt: skip
def test_nothing_is_said_of_made_ones(
    bits: int, of_scales: int, minima: bool, before: bool, seed: int, rounds: Any
) -> None:
    """Whether codes are chosen before their scale is rounded or after that, and whichever way it is rounded."""
    format = two_levels(bits, of_scales, minima, rounds=staticmethod(rounds), before=before)
    values = apart(np.random.default_rng(seed), 512, 16)
    assert not misread(format, format.quantize(values), values)
    values = apart(np.random.default_rng(seed), 512, 8)
    assert before or not scales_of_others(format, format.quantize(values), values)


@pytest.mark.parametrize("by", [1, -1])
@pytest.mark.parametrize(("bits", "minima", "before"), [(3, False, False), (3, False, True), (4, True, False)])
@pytest.mark.parametrize("of_scales", [4, 6, 8])
def test_scales_that_are_off_by_one(of_scales: int, bits: int, minima: bool, before: bool, by: int) -> None:
    format = two_levels(bits, of_scales, minima, less=by, before=before)
    values = apart(np.random.default_rng(4), 512, 16)
    word = "more" if by > 0 else "less"
    found = misread(format, format.quantize(values), values)
    assert f"lower scales are one {word} to the encoder than to the layout: give it less=0" in found


@pytest.mark.parametrize("by", [1, -1])
@pytest.mark.parametrize("of_scales", [4, 6, 8])
def test_minima_that_are_off_by_one_and_both(of_scales: int, by: int) -> None:
    for less, what in ((0, "lower minima"), (by, "lower scales and minima")):
        format = two_levels(4, of_scales, True, less, by)
        with pytest.raises(AssertionError, match=f"{what} are one {'more' if by > 0 else 'less'} to the encoder"):
            check_quant_format(format)


GROUPS = two_levels(3, 8, False)


@pytest.mark.parametrize("max_error", [None, 0.9])
def test_a_group_of_another_size_is_named_whatever_error_is_allowed(max_error: float | None) -> None:
    check_quant_format(GROUPS)
    wrong = type("Wrong", (type(GROUPS),), {"layout": evolve(GROUPS.layout, group=32)})()
    with pytest.raises(AssertionError, match="16 values share a scale to the encoder, 32 to the layout"):
        check_quant_format(wrong, max_error=max_error)
