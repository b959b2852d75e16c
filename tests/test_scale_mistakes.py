"""Formats whose codes are right and whose scales are not, or whose codes begin at the other end of a byte: named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from attrs import evolve
from test_encoder_mistakes import Affine
from test_layout_mistakes import ByRow, divisors, halves, nibbles
from test_misplaced_codes import two_levels

from sis_core.arrays import F32, U8
from sis_core.layout import Bits, Layout, Scale, Unpacked
from sis_core.quant import BlockFormat, QuantFormat
from sis_core.testing import check_quant_format


class FromTheTop(BlockFormat):
    """Codes of 3, 5 or 6 bits, the first in the highest bits of the first byte."""

    name, block_size = "FROM_THE_TOP", 32

    def quantize_blocks(self, values: F32) -> U8:
        self.check_values(values, finite=True)
        assert self.layout
        assert isinstance(self.layout.zero, int)
        bits, zero = self.layout.bits, self.layout.zero
        scales = halves(np.abs(values).max(1, keepdims=True) / (zero - 1))
        codes = np.clip(np.rint(values / divisors(scales)) + zero, 0, 2 * zero - 1).astype(np.uint8)
        each = np.unpackbits(codes[:, :, None], axis=2)[:, :, 8 - bits :]
        return np.hstack([scales.view(np.uint8), np.packbits(each.reshape(len(each), -1), axis=1)])


class Fours(BlockFormat):
    """Four scales of 16 values each, which its own `unpack` finds."""

    name, block_size, type_size, layout = "FOURS", 64, 40, Layout(4, 16, Scale("f16"), zero=8)

    def quantize_blocks(self, values: F32) -> U8:
        self.check_values(values, finite=True)
        groups = values.reshape(-1, 4, 16)
        scales = halves(np.abs(groups).max(2) / 7)
        steps = np.rint(groups / divisors(scales)[:, :, None]).reshape(-1, 64)
        return np.hstack([scales.view(np.uint8), nibbles(steps + 8)])

    def unpack(self, rows: U8, n_cols: int) -> Unpacked:
        self.check_rows(rows, n_cols)
        blocks = rows.reshape(-1, 40)
        codes = np.stack([blocks[:, 8:] & 15, blocks[:, 8:] >> 4], axis=2).reshape(len(rows), n_cols)
        scales = self.found(blocks[:, :8].copy().view("<f2").astype(np.float32))
        return Unpacked(codes, np.ascontiguousarray(scales).reshape(len(rows), -1))

    def found(self, scales: F32) -> F32:
        return scales


class ByBlock(ByRow):
    """Writes one scale for a row, and divides each 32 values by their own."""

    def quantize(self, values: F32) -> U8:
        self.check_values(values, finite=True)
        scales = halves(np.abs(values).max(1, keepdims=True) / 7)
        groups = values.reshape(len(values), -1, 32)
        codes = np.rint(groups / divisors(np.abs(groups).max(2, keepdims=True) / 7)).reshape(values.shape) + 8
        return np.hstack([scales.view(np.uint8), nibbles(codes)])


class Coarse(ByRow):
    """Right, and coarser than it says: a large scale for a row of 2-bit numbers in nibbles."""

    def quantize(self, values: F32) -> U8:
        self.check_values(values, finite=True)
        scales = halves(np.abs(values).max(1, keepdims=True))
        return np.hstack([scales.view(np.uint8), nibbles(np.rint(values / divisors(scales)) + 8)])


def of(base: type[QuantFormat], **changes: Any) -> QuantFormat:
    return type("Wrong", (base,), changes)()  # type: ignore[no-any-return]


def from_the_top(bits: int) -> QuantFormat:
    zero = 1 << (bits - 1)
    layout = Layout(bits, 32, Scale("f16", 0), zero=zero, codes=Bits(2, bits))
    return of(FromTheTop, layout=layout, type_size=2 + 4 * bits)


class Turned(Affine):
    """Scale and minimum with the higher byte first."""

    def quantize_blocks(self, values: F32) -> U8:
        rows = super().quantize_blocks(values)
        return np.hstack([rows[:, [1, 0, 3, 2]], rows[:, 4:]])


class TurnedForUnpack(Turned):
    layout = Layout(4, 32, Scale("f16"), Scale("f16", factor=-1))

    def unpack(self, rows: U8, n_cols: int) -> Unpacked:
        self.check_rows(rows, n_cols)
        assert Affine.layout
        return Affine.layout.unpack_blocks(rows.reshape(-1, 20), 32, len(rows))


UPPER = two_levels(4, 6, False)
WITHOUT = evolve(UPPER.layout, scale=evolve(UPPER.layout.scale, times=None, factor=0.01))


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        *((from_the_top(bits), f"codes of {bits} bits begin at the highest bit of a byte") for bits in (3, 5, 6)),
        (Turned(), "scale and minimum have their higher bytes first to the encoder"),
        (TurnedForUnpack(), "scale and minimum are f16 with the higher byte first to the encoder"),
        (of(Fours, found=lambda self, s: s[:, :1]), "16 values share a scale to the encoder, 64 values share one"),
        (of(Fours, found=lambda self, s: np.tile(s[:, :2], 2)), "codes are right and the scales are not: row 0 begins"),
        (ByBlock(), "32 values share a scale to the encoder, all values of a row share one to the layout"),
        (of(type(UPPER), layout=WITHOUT), "(upper level of scales forgotten|that it is multiplied by is forgotten)"),
    ],
)
def test_mistakes_are_named(wrong: QuantFormat, fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check_quant_format(wrong)


def test_a_format_that_is_coarse_and_right_is_told_nothing_else() -> None:
    with pytest.raises(AssertionError, match=r"coarse on purpose says so|are never written") as found:
        check_quant_format(Coarse())
    assert "another" not in str(found.value)


def test_codes_that_are_not_the_nearest_are_told_before_an_error_is_raised() -> None:
    class Mixed(Fours):
        def quantize_blocks(self, values: F32) -> U8:
            order = np.random.default_rng(1).permutation(64)
            return super().quantize_blocks(np.ascontiguousarray(values[:, order]))

    check_quant_format(Fours())
    with pytest.raises(AssertionError, match=r"of the codes are not those nearest .* Before raising max_error"):
        check_quant_format(Mixed(), max_error=0.2)
